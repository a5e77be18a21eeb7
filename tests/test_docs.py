"""What the pages say is so: names, tables and links agree with the program, and the examples run."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from agentorch_cli import Agent, errors
from agentorch_cli.cli.app import build
from agentorch_cli.config import load_settings
from agentorch_cli.core.consensus import Rule
from agentorch_cli.core.lifecycle import TASK_BEGINS, TASK_MOVES, mermaid
from agentorch_cli.core.vote import threshold_count
from agentorch_cli.documents import Document, Format, load_document
from agentorch_cli.fleetfile import read_fleet
from agentorch_cli.gateway.metrics import kinds
from agentorch_cli.messages import AGENTS, TASKS, Named
from agentorch_cli.settings import setting_names
from agentorch_cli.taskfile import read_tasks
from agentorch_cli.wiring import Orchestrator

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("**/*.md"))]

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")


def blocks(page: Path, *kinds: str) -> list[str]:
    """The code blocks of these kinds, in their order."""
    return [text for kind, text in BLOCK.findall(page.read_text()) if kind in kinds]


def region(page: Path, name: str) -> str:
    """What stands between the two markers of a name."""
    text = page.read_text()
    begin = re.search(rf"^<!-- {name}: begin[^\n]*-->\n", text, re.MULTILINE)
    assert begin is not None, f"{page.name} has no region {name}"
    return text[begin.end() : text.index(f"<!-- {name}: end -->")]


def rows(text: str) -> list[list[str]]:
    """The cells of the Markdown tables in a text, without headings and rules."""
    tables = [
        [cell.strip() for cell in line[1:-1].split("|")] for line in text.splitlines() if line[:1] == "|"
    ]
    rules = [number for number, row in enumerate(tables) if set(row[0]) == {"-"}]
    return [row for number, row in enumerate(tables) if number not in rules and number + 1 not in rules]


def quoted(text: str) -> list[str]:
    """What stands in back quotes."""
    return re.findall(r"`([^`\n]+)`", text)


# --- names ------------------------------------------------------------------------------------


def commands() -> Iterator[str]:
    """Every command of the program, as it is typed."""
    root = build()
    context = root.make_context("agentorch", [], resilient_parsing=True)
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        verbs = command.list_commands(context) if hasattr(command, "list_commands") else [""]
        yield from (f"agentorch {name} {verb}".strip() for verb in verbs)


def test_the_page_of_commands_has_every_command_and_no_other() -> None:
    listed = [quoted(row[0])[0] for row in rows((ROOT / "docs" / "commands.md").read_text())]

    assert sorted(listed) == sorted(commands())


def test_the_readme_names_every_command_and_no_other() -> None:
    section = README.read_text().split("\n## Commands\n")[1].split("\n## ")[0]
    named, noun = [], ""
    for row in rows(section):
        for words in map(str.split, quoted(row[1])):
            noun = words[0] if len(words) > 1 or f"agentorch {words[0]}" in commands() else noun
            named.append(" ".join(["agentorch", *([] if words[0] == noun else [noun]), *words]))

    assert sorted(named) == sorted(commands())


def test_the_readme_can_be_read_in_five_minutes() -> None:
    """At 250 words a minute, without what is only looked up: code and tables."""
    text = re.sub(r"```.*?```", "", README.read_text(), flags=re.S)
    prose = [line for line in text.splitlines() if not line.startswith("|")]

    assert len(" ".join(prose).split()) <= 5 * 250


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_line_that_is_shown_is_understood(page: Path) -> None:
    lines = [
        line[2:].removeprefix("agentorch").split("  #")[0].replace("…", "")
        for block in blocks(page, "console")
        for line in block.splitlines()
        if line.startswith("$ agentorch")
    ]

    for line in lines:
        root = build()
        words = shlex.split(line)
        context = root.make_context("agentorch", words[:1], resilient_parsing=True)
        command = root.get_command(context, words[0])
        if hasattr(command, "list_commands"):
            command, words = command.get_command(context, words[1]), words[1:]
        assert command is not None, line
        strict = type(context)(command, obj=context.obj)
        command.make_parser(strict).parse_args(words[1:])  # raises for an option that is not there


def test_the_exit_codes_are_those_of_the_errors() -> None:
    section = README.read_text().split("\n## Exit codes\n")[1].split("\n## ")[0]
    listed = {int(code) for row in rows(section) for code in row[0].split(",")}
    used = {
        error.exit_code
        for _, error in inspect.getmembers(errors, inspect.isclass)
        if issubclass(error, errors.OrchestratorError)
    }

    assert listed == used | {0, 130, 143}


def test_the_picture_of_a_tasks_moves_is_the_table() -> None:
    assert region(README, "task-moves") == f"```mermaid\n{mermaid(TASK_BEGINS, TASK_MOVES)}\n```\n"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are commonly made."""
    text = BLOCK.sub("", page.read_text())
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    targets = [link for link in LINK.findall(BLOCK.sub("", page.read_text())) if "://" not in link]

    lost = []
    for target in targets:
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            lost.append(target)
    assert lost == []


# --- tables -----------------------------------------------------------------------------------


def test_the_tables_of_task_fields_are_those_of_the_models() -> None:
    text = region(ROOT / "docs/task-file.md", "task-fields")
    tasks, _, votes = text.partition("### `[task.consensus]`")

    page = (ROOT / "docs/task-file.md").read_text()
    rules = page.split("\n### Retries by error code\n")[1].split("\n## ")[0]
    retry = TASKS.nested["retry"]
    assert isinstance(retry, Named)

    for part, table in ((tasks, TASKS), (votes, TASKS.nested["consensus"]), (rules, retry.each)):
        listed = {quoted(row[0])[0]: set(quoted(row[1])) for row in rows(part)}
        also = {name: {alias for alias, key in table.aliases.items() if key == name} for name in table.keys}
        assert listed == also


def test_the_defaults_of_task_fields_are_those_of_a_task_that_says_nothing() -> None:
    fields = {quoted(row[0])[0]: row[3] for row in rows(region(ROOT / "docs/task-file.md", "task-fields"))}
    settings = load_settings({}, {}, None, ROOT / "tests")
    task = read_tasks(Document([{}], "empty"), new_id=lambda: "made").tasks[0]

    assert fields["id"] == "a new UUIDv7" and task.task_id == "made"
    for name in ("type", "coverage", "priority", "retries", "aggregate", "on_dependency_failure"):
        assert json.loads(quoted(fields[name])[0]) == getattr(task, name), name
    assert (
        quoted(fields["timeout"]) == ['"5m"'] and task.timeout_seconds == settings.engine.task_timeout == 300
    )
    assert quoted(fields["max_backoff"]) == ['"5m"'] and task.max_backoff_seconds == 300
    assert settings.engine.max_backoff == 300
    assert quoted(fields["backoff"]) == ['"1s"'] and task.backoff_seconds == settings.engine.backoff == 1
    assert settings.engine.retries == task.retries
    vote = read_tasks(Document([{"requires_consensus": True}], "vote"), new_id=lambda: "made").tasks[0]
    assert (task.min_agents, task.max_agents, vote.min_agents, vote.max_agents) == (1, 1, 2, 3)


def test_the_table_of_agent_fields_is_that_of_the_models() -> None:
    listed = [quoted(row[0])[0] for row in rows(region(ROOT / "docs/operations.md", "agent-fields"))]

    assert sorted(listed) == sorted(AGENTS.keys)


def test_the_parameters_of_an_agent_are_those_of_its_class() -> None:
    page = (ROOT / "docs" / "python-api.md").read_text("utf-8")
    _, _, shown = page.partition("**`Agent(agent_id, ")
    parameters = inspect.signature(Agent).parameters
    for one in shown.partition(")`")[0].split(", "):
        name, _, default = one.partition("=")
        assert name in parameters
        assert default in ("", repr(parameters[name].default))


def test_the_rules_of_votes_are_those_of_the_program() -> None:
    section = (ROOT / "docs/consensus.md").read_text().split("\n## Rules\n")[1].split("\n## ")[0]
    listed = [quoted(row[0])[0] for row in rows(section)]

    assert sorted(listed) == sorted(Rule)


def test_the_table_of_what_a_threshold_asks_for_is_right() -> None:
    numbers = region(ROOT / "docs/consensus.md", "threshold").splitlines()
    sizes = [int(cell) for cell in numbers[0][1:-1].split("|")[1:]]
    needed = [int(cell) for cell in numbers[2][1:-1].split("|")[1:]]

    assert needed == [threshold_count(0.66, size) for size in sizes]


def test_the_metrics_are_those_of_the_page() -> None:
    listed = {quoted(row[0])[0]: row[1] for row in rows(region(ROOT / "docs/monitoring.md", "metrics"))}

    assert listed == kinds()


async def test_the_columns_of_the_public_tables_are_those_of_the_schema(database_url: str) -> None:
    text = region(ROOT / "docs/operations.md", "public-columns")
    told = re.findall(r"^\*\*`(\w+)`\*\*: (.+?)(?=^\*\*|\Z)", text, re.MULTILINE | re.DOTALL)
    connection = await asyncpg.connect(database_url)
    try:
        records = await connection.fetch(
            "select table_name, column_name from information_schema.columns"
            " where table_name = any($1) order by ordinal_position",
            [table for table, _ in told],
        )
        for query in blocks(ROOT / "docs/operations.md", "sql"):
            await connection.fetch(query)
    finally:
        await connection.close()
    columns: dict[str, list[str]] = {}
    for table, column in records:
        columns.setdefault(table, []).append(column)
    decision = {
        name
        for row in rows(region(ROOT / "docs/consensus.md", "decision-columns"))
        for name in quoted(row[0])
    }

    assert {table: sorted(quoted(names)) for table, names in told} == {
        table: sorted(names) for table, names in columns.items()
    }
    assert decision == set(columns["consensus_decisions"])


def test_the_settings_without_effect_are_those_that_nothing_reads() -> None:
    listed = quoted(region(ROOT / "docs/configuration.md", "no-effect"))
    elsewhere = [
        path
        for path in (ROOT / "agentorch_cli").glob("**/*.py")
        if path.name not in ("settings.py", "config.py")
    ]
    code = "\n".join(path.read_text() for path in elsewhere)

    unread = [name for name in setting_names() if not re.search(rf"\b{re.escape(name)}\b", code)]

    assert listed == unread


# --- examples ---------------------------------------------------------------------------------


def documents(page: Path) -> list[tuple[str, str]]:
    return [
        (kind, text) for kind, text in BLOCK.findall(page.read_text()) if kind in ("toml", "json", "jsonl")
    ]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.stem != "protocol"], ids=lambda page: page.stem
)
def test_files_that_are_shown_are_valid(page: Path, tmp_path: Path) -> None:
    for number, (kind, text) in enumerate(documents(page)):
        path = tmp_path / f"{number}.{kind}"
        path.write_text(text)
        values: Any = tomllib.loads(text) if kind == "toml" else load_document(path, Format(kind)).value
        if kind == "toml" and values.keys() & {"agent", "agents"}:
            read_fleet(load_document(path), tmp_path)
            continue
        if isinstance(values, dict) and not values.keys() & {"task", "tasks"}:
            if kind == "toml":
                load_settings({}, {}, path, tmp_path)  # a configuration
            continue
        read_tasks(load_document(path), new_id=iter(map(str, range(100))).__next__).plan()


def environment(database_url: str, tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AGENTORCH_")}
    return kept | {
        "DATABASE_URL": database_url,
        "AGENTORCH_GATEWAY_PORT": "0",
        "AGENTORCH_DATABASE_POOL_SIZE": "4",
        "AGENTORCH_ENGINE_DRAIN_TIMEOUT": "0",
        "AGENTORCH_LOGGING_LEVEL": "warning",
        "XDG_CONFIG_HOME": str(tmp_path),
    }


API = BLOCK.findall((ROOT / "docs/python-api.md").read_text())
API_EXAMPLES = [
    (text, following) for (kind, text), (_, following) in itertools.pairwise(API) if kind == "python"
]


@pytest.mark.parametrize(("example", "printed"), API_EXAMPLES, ids=lambda text: text.splitlines()[-1][:20])
async def test_an_example_of_the_python_page_prints_what_the_page_says(
    example: str, printed: str, database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "example.py").write_text(example)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        "example.py",
        cwd=tmp_path,
        env=environment(database_url, tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    stdout, stderr = await asyncio.wait_for(process.communicate(), 30)

    assert (stdout.decode(), stderr.decode()) == (printed, "")


def readme_file(name: str) -> str:
    """The block of the README whose first line is the comment with this name."""
    found = [
        text for _, text in BLOCK.findall(README.read_text()) if text.split("\n")[0][2:].strip(" /") == name
    ]
    assert len(found) == 1, name
    return textwrap.dedent(found[0])


def node_command() -> list[str]:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no Node here")
    knows = subprocess.run(
        [node, "--experimental-websocket", "-e", "new WebSocket('ws://127.0.0.1:1')"], capture_output=True
    )
    if b"ReferenceError" in knows.stderr or b"bad option" in knows.stderr:
        pytest.skip("this Node has no WebSocket")
    return [node, "--experimental-websocket", "agent.mjs"]


@pytest.mark.parametrize("way", ["exec", "python", "node"])
async def test_the_agents_of_the_readme_do_its_first_task(
    way: str, orchestrator: Orchestrator, tmp_path: Path
) -> None:
    for name in ("count.py", "task.toml", "agent.py", "agent.mjs"):
        (tmp_path / name).write_text(
            readme_file(name).replace("ws://127.0.0.1:3001/agents", orchestrator.url)
        )
    task = tomllib.loads((tmp_path / "task.toml").read_text())["task"]
    command = {
        "exec": [
            *shlex.split(f"{sys.executable} -m agentorch_cli agent run counter-2 -c count --slots 4"),
            *("--exec", f"{sys.executable} count.py", "--url", orchestrator.url),
        ],
        "python": [sys.executable, "agent.py"],
        "node": node_command() if way == "node" else [],
    }[way]
    process = await asyncio.create_subprocess_exec(*command, cwd=tmp_path, stderr=subprocess.PIPE)
    try:
        handle = await orchestrator.submit(task)
        assert await handle.result(timeout=20) == {"words": 6}
    finally:
        process.kill()
        await process.communicate()


async def test_the_python_agent_of_the_readme_leaves_quietly(
    orchestrator: Orchestrator, tmp_path: Path
) -> None:
    text = readme_file("agent.py").replace("ws://127.0.0.1:3001/agents", orchestrator.url)
    (tmp_path / "agent.py").write_text(text)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "agent.py", cwd=tmp_path, stderr=subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        said = [await asyncio.wait_for(process.stderr.readline(), 30)]
        process.send_signal(signal.SIGINT)
        said += (await asyncio.wait_for(process.stderr.read(), 30)).splitlines()
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    assert said[0].startswith(b"python-1: connected")
    assert (code, said[1:]) == (0, [b"python-1: stopped"])


async def test_the_recipes_for_scripts_print_what_the_page_says(
    orchestrator: Orchestrator, database_url: str, tmp_path: Path
) -> None:
    recipes = BLOCK.findall(region(ROOT / "docs/scripting.md", "recipes"))
    assert [kind for kind, _ in recipes] == ["bash", "text"] * (len(recipes) // 2)
    (tmp_path / "agentorch").write_text(f'#!/bin/sh\nexec {sys.executable} -m agentorch_cli "$@"\n')
    (tmp_path / "agentorch").chmod(0o755)
    (tmp_path / "count.py").write_text(
        "import json, sys\n"
        'data = json.load(sys.stdin)["data"]\n'
        'sys.exit(1) if data == "FAIL" else print(json.dumps({"words": len(data.split())}))\n'
    )
    await orchestrator.register_agent(
        "counter", capabilities=["count"], exec=f"{sys.executable} {tmp_path}/count.py"
    )
    variables = environment(database_url, tmp_path)
    variables["PATH"] = f"{tmp_path}:{variables['PATH']}"
    variables["PYTHONPATH"] = str(ROOT)

    for (_, script), (_, expected) in zip(recipes[::2], recipes[1::2], strict=True):
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-e",
            "-c",
            script,
            cwd=tmp_path,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        stdout, stderr = await asyncio.wait_for(process.communicate(), 120)
        assert stdout.decode() == expected, (script, stderr.decode())
