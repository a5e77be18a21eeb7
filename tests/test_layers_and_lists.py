"""Lists that must agree: layers and imports, statements and their users, operations and handlers, moves
and their picture."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from agentorch_cli import handlers
from agentorch_cli.core.lifecycle import (
    ATTEMPT_MOVES,
    TASK_BEGINS,
    TASK_MOVES,
    AttemptEvent,
    TaskEvent,
    mermaid,
)
from agentorch_cli.core.model import AttemptStatus, TaskStatus
from agentorch_cli.store.queries import FILES, statements

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "agentorch_cli"


@cache
def trees() -> dict[str, ast.Module]:
    """Every module of the package, parsed."""
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}


# --- layers -------------------------------------------------------------------------------------


def test_imports_run_one_way() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


IMPURE_MODULES = {"asyncio", "os", "secrets", "socket", "subprocess", "threading", "time", "uuid"}
OWN_RANDOMNESS = IMPURE_MODULES | {"random"}
IMPURE_CALLS = re.compile(r"open|print|input|(datetime|date)\.(now|today|utcnow)|random\.(?!Random$).*")


def impurities(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.AsyncFunctionDef() | ast.Await():
                yield f"line {node.lineno}: await"
            case ast.Import(names=names):
                modules = {alias.name.partition(".")[0] for alias in names} & IMPURE_MODULES
                yield from (f"line {node.lineno}: {module}" for module in modules)
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in IMPURE_MODULES | {
                "random"
            }:
                yield f"line {node.lineno}: {module}"
            case ast.Call(func=func) if IMPURE_CALLS.fullmatch(ast.unparse(func)):
                yield f"line {node.lineno}: {ast.unparse(func)}"


def test_the_core_has_no_clock_no_await_and_no_randomness_of_its_own() -> None:
    core = {name: tree for name, tree in trees().items() if name.startswith("agentorch_cli/core/")}

    assert len(core) > 10
    assert not [f"{name}, {found}" for name, tree in core.items() for found in impurities(tree)]


# --- statements ---------------------------------------------------------------------------------

ASKS = {"fetch", "fetch_by_key", "fetch_one", "hot"}
"""Methods whose first argument is the name of a statement."""


def asked() -> Iterator[tuple[str, str]]:
    """Where a statement is asked for by name, and the name."""
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ASKS
                and node.args
                and isinstance(node.args[0], ast.Constant)
                and isinstance(node.args[0].value, str)
                and " " not in node.args[0].value  # a statement itself, to the driver
            ):
                yield f"{path}:{node.lineno}", node.args[0].value


def test_every_statement_that_is_asked_for_exists() -> None:
    unknown = [f"{where} asks for {name}" for where, name in asked() if name not in statements()]

    assert not unknown


def test_every_statement_is_asked_for() -> None:
    unused = statements().keys() - {name for _, name in asked()}

    assert not unused


def test_every_statement_has_a_sentence() -> None:
    for name, body in statements().items():
        assert re.match(r"-- \S.*[.:]?\n", body), f"{name} begins without a comment"


def test_every_file_of_statements_is_read() -> None:
    assert sorted(path.name for path in (PACKAGE / "store" / "queries").glob("*.sql")) == sorted(FILES)


def test_a_statement_gets_as_many_arguments_as_it_has_parameters() -> None:
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr not in ASKS or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            if node.args[0].value not in statements() or any(isinstance(a, ast.Starred) for a in node.args):
                continue
            wanted = {int(n) for n in re.findall(r"\$(\d+)", uncommented(statements()[node.args[0].value]))}
            where = f"{path}:{node.lineno}: {node.args[0].value}"
            assert wanted == set(range(1, len(node.args))), where


def uncommented(statement: str) -> str:
    return "\n".join(line.partition("--")[0] for line in statement.splitlines())


# --- operations ---------------------------------------------------------------------------------


def test_every_handler_says_what_it_does() -> None:
    for name, handler in handlers.HANDLERS.items():
        assert re.fullmatch(r"[a-z]+\.[a-z_]+", name)
        assert inspect.iscoroutinefunction(handler), name
        assert (inspect.getdoc(handler) or "").strip().endswith((".", ")")), name


def test_every_public_handler_can_be_called_by_name() -> None:
    modules = [import_module(one.name) for one in iter_modules(handlers.__path__, f"{handlers.__name__}.")]
    # those that other modules share make views, and are called `find_...`
    public = {
        function
        for module in modules
        for name, function in inspect.getmembers(module, inspect.iscoroutinefunction)
        if not name.startswith(("_", "find_")) and function.__module__ == module.__name__
    }

    assert public == set(handlers.HANDLERS.values())


# --- the life of a task -------------------------------------------------------------------------


def test_the_page_about_the_life_of_a_task_is_what_the_tables_say() -> None:
    script = ROOT / "scripts" / "lifecycle-page"
    drawn = subprocess.run([sys.executable, script], capture_output=True, check=True, timeout=60).stdout

    assert (ROOT / "docs" / "lifecycle.md").read_bytes() == drawn, (
        "write it anew: .venv/bin/python scripts/lifecycle-page > docs/lifecycle.md"
    )


def arrows(picture: str) -> list[tuple[str, str, str]]:
    return [(old, event, new) for old, new, event in re.findall(r"^\s+(\S+) --> (\S+): (.*)$", picture, re.M)]


def test_the_pictures_show_each_move_once() -> None:
    tasks, attempts = re.findall(r"```mermaid\n(.*?)```", (ROOT / "docs" / "lifecycle.md").read_text(), re.S)

    assert sorted(a for a in arrows(tasks) if a[0] != "[*]") == sorted(
        (old, event, new) for (old, event), new in TASK_MOVES.items()
    )
    assert sorted(a for a in arrows(attempts) if a[0] != "[*]") == sorted(
        (old, event, new) for (old, event), new in ATTEMPT_MOVES.items()
    )


def test_the_readme_draws_the_same_moves() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    picture = re.search(
        r"<!-- task-moves: begin.*?```mermaid\n(.*?)\n```\s*<!-- task-moves: end", readme, re.S
    )

    assert picture is not None
    assert picture[1] == mermaid(TASK_BEGINS, TASK_MOVES)


def test_every_event_that_is_logged_is_an_event_of_the_tables() -> None:
    """The log says what happened in the words of the tables."""
    sql = "\n".join(uncommented(body) for body in statements().values())
    of_tasks = set(re.findall(r"select 'task_(\w+)'", sql))
    of_attempts = set(re.findall(r"select 'attempt_(\w+)'", sql))

    assert of_tasks - {"submitted"} <= set(TaskEvent)
    assert of_attempts <= set(AttemptEvent)
    # 'task_' || status: the outcome is its own event
    assert {s.value for s in TaskStatus if s.is_final} <= set(TaskEvent)
    assert {s.value for s in AttemptStatus} - {"sent"} == set(AttemptEvent) - {"moved"}
