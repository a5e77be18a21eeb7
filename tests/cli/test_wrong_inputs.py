"""What people get wrong: the right exit code, one short first line, no traceback, something to go on."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agentorch_cli.__main__ import run
from agentorch_cli.cli.failure import LONGEST_LINE
from tests.databases import new_database

CORPUS = Path(__file__).parents[1] / "data" / "wrong_inputs.txt"

RAW_WORDS = (
    "Traceback",
    "pydantic",
    "validation error",
    "Input should",
    "asyncpg.",
    "<class",
    "object at 0x",
)
"""What no user should have to read."""

FILES: dict[str, str | bytes] = {
    "good.toml": '[task]\nname = "good"\n',
    "id.toml": '[task]\nid = "x"\n',
    "empty.toml": "",
    "empty.json": "",
    "blank.jsonl": "\n\n",
    "binary.toml": bytes(range(128, 256)),
    "utf16.toml": "[task]".encode("utf-16"),
    "latin1.toml": '[task]\nname = "Käse"\n'.encode("latin-1"),
    "nul.toml": b'[task]\nname = "a\x00b"\n',
    "bad.toml": "[task]\nname = \n",
    "open.toml": '[task]\nname = "never closed\n',
    "twice.toml": '[task]\nname = "a"\nname = "b"\n',
    "bad.json": "{name: 1}",
    "cut.json": '{"tasks": [{"name": "a"',
    "comma.json": '{"name": "a",}',
    "twice.json": '{"name": "a", "name": "b"}',
    "bad.jsonl": '{"name": "a"}\n{"name": }\n',
    "nan.json": '{"data": NaN}',
    "infinite.toml": "[task]\ndata = {x = inf}\n",
    "huge-number.json": '{"data": 1e400}',
    "long-integer.json": '{"data": ' + "9" * 5000 + "}",
    "surrogate.json": '{"data": "\\ud800"}',
    "deep.json": '{"data": ' + "[" * 5000 + "]" * 5000 + "}",
    "deep.toml": "[task]\ndata = " + "[" * 100 + "]" * 100 + "\n",
    "dotted.toml": ".".join("a" * 40) + " = 1\n",
    "x.yaml": "task:\n  name: a\n",
    "text.json": '"task"',
    "number.json": "7",
    "bom-bad.toml": b"\xef\xbb\xbf[task]\nprioritty = 3\n",
    "key.toml": "[task]\nprioritty = 3\n",
    "range.toml": "[task]\npriority = 11\n",
    "type.toml": '[task]\nretries = "many"\n',
    "section.toml": '[tsk]\nname = "a"\n[task]\nname = "b"\n',
    "list.toml": '[[task]]\nname = "a"\n',
    "single.toml": '[tasks]\nname = "a"\n',
    "circle.toml": '[[tasks]]\nname = "a"\ndepends_on = ["b"]\n[[tasks]]\nname = "b"\ndepends_on = ["a"]\n',
    "self.toml": '[task]\nname = "a"\ndepends_on = ["a"]\n',
    "names.toml": '[[tasks]]\nname = "a"\n[[tasks]]\nname = "a"\n',
    "spelling.toml": "[task]\nmin_agents = 2\nminAgents = 3\n",
    "agents.toml": "[task]\nmin_agents = 5\nmax_agents = 2\n",
    "duration.toml": '[task]\ntimeout = "5 parsecs"\n',
    "zone.toml": '[task]\nrun_at = "2030-01-31T12:00:00"\n',
    "year.toml": '[task]\nrun_at = "9999-01-31T12:00:00Z"\n',
    "both.toml": '[task]\ndelay = "5m"\nrun_at = "2030-01-31T12:00:00Z"\n',
    "rule.toml": '[task]\n[task.consensus]\nrule = "majorty"\n',
    "threshold.toml": "[task]\n[task.consensus]\nthreshold = 66\n",
    "options.toml": '[task]\n[task.consensus]\nrule = "borda"\noptions = ["a"]\n',
    "quorum.toml": "[task]\n[task.consensus]\nquorum = 9\npanel = 3\n",
    "vote.toml": "[task]\nrequires_consensus = false\nconsensus = {panel = 3}\n",
    "pointer.toml": '[task]\nconsensus = {vote_on = "verdict"}\n',
    "team.toml": '[task]\ncoverage = "team"\n',
    "deadlock.toml": '[task]\non_deadlock = "ignore"\n',
    "key-limit.toml": "[task]\nconcurrency_limit = 3\n",
    "budget.toml": "[task]\nbudget = {cost_usd = 1.0, attempt_usd = 2.0}\n",
    "free.toml": "[budget]\nattempt_usd = 1.0\n[task]\n",
    "schema.toml": '[task]\nresult_schema = {type = "objekt"}\n',
    "retry.toml": '[task.retry.busy]\nbackof = "5s"\n',
    "label.toml": "[task]\nlabels = {team = 7}\n",
    "big.json": '{"data": "' + "x" * 1_000_001 + '"}',
    "blank-id.toml": '[task]\nid = "   "\n',
    "12.toml": "[[tasks]]\npriority = 11\n" * 12,
    "lost.toml": '[task]\ndepends_on = ["never"]\n',
    "late.toml": '[[tasks]]\nname = "a"\n[[tasks]]\nname = "b"\ndeadline = "2020-01-31T12:00:00Z"\n',
    "taken.toml": '[task]\nid = "harbour-1"\n',
    "agents-bad.toml": '[[agents]]\nid = "a"\nslots = 0\n',
    "agents-twice.toml": '[[agents]]\nid = "a"\n[[agents]]\nid = "a"\n',
    "agents-none.toml": "",
    "agents-noid.toml": '[[agents]]\ntype = "x"\n',
    "agents-key.toml": '[[agents]]\nid = "a"\ncapabilites = ["x"]\n',
    "outcomes-deep.jsonl": '{"task": "a", "answer": ' + "[" * 5000 + "]" * 5000 + "}",
    "outcomes-number.jsonl": '{"task": 5, "right": true}\n',
    "outcomes-long.csv": f"task,answer\na,{'x' * 200_000}\n",
    "outcomes-nan.csv": "task,answer\na,NaN\n",
    "outcomes-open.csv": 'task,answer\na,"never closed\n',
    "labels.csv": "task,worker,label\n1,a,yes\n1,b,no\n",
    "c-key.toml": "[gateway]\nprot = 1\n",
    "c-section.toml": "[gatway]\nport = 1\n",
    "c-type.toml": '[gateway]\nport = "high"\n',
    "c-range.toml": "[gateway]\nport = 70000\n",
    "c-duration.toml": '[engine]\ntask_timeout = "soon"\n',
    "c-choice.toml": '[logging]\nlevel = "loud"\n',
    "c-url.toml": '[database]\nurl = "mysql://x"\n',
    "c-nan.toml": "[matching]\nload_weight = nan\n",
    "c-table.toml": "gateway = 7\n",
    "token-open.txt": "ao_secret",
    "token-empty.txt": "",
}

WORDS = {"{NL}": "\n", "{BYTE}": "\udcff", "{LONG}": "x" * 300, "{DEEP}": "a-folder-with-a-long-name/" * 4}


class Case(NamedTuple):
    """One line of the corpus."""

    code: int
    line: str
    said: list[str]
    needs_database: bool


def cases() -> Iterator[Case]:
    needs_database = False
    for line in CORPUS.read_text("utf-8").splitlines():
        if line.startswith("==="):
            needs_database = True
        elif line and not line.startswith("#"):
            code, command, said = (part.strip() for part in line.split(" | "))
            yield Case(int(code), command, said.split(" && "), needs_database)


ALL = list(cases())


@pytest.fixture
def folder(home: Path) -> Path:
    """A home with the files of the corpus."""
    for name, content in FILES.items():
        data = content.encode() if isinstance(content, str) else content
        (home / name).write_bytes(data)
    (home / "folder" / "sub.toml").mkdir(parents=True)
    (home / "device.toml").mkdir()
    (home / "circle-of-links.toml").symlink_to("circle-of-links.toml")
    with (home / "huge.toml").open("wb") as file:
        file.truncate(17 << 20)
    deep = home / WORDS["{DEEP}"]
    deep.mkdir(parents=True)
    (deep / "bad.toml").write_text("[task]\npriority = 11\n")
    (home / "token-open.txt").chmod(0o644)
    (home / "token-empty.txt").chmod(0o600)
    return home


@pytest.fixture
def say(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], tuple[int, str, str]]:
    """Runs a line of the corpus; gives exit code, stdout and stderr."""

    def call(line: str) -> tuple[int, str, str]:
        words = shlex.split(line)
        for mark, text in WORDS.items():
            words = [word.replace(mark, text) for word in words]
        with monkeypatch.context() as patched:
            while words and re.match(r"[A-Z_]+=", words[0]):
                name, _, value = words.pop(0).partition("=")
                patched.setenv(name, value)
            capsys.readouterr()
            try:
                code = run(words)
            except SystemExit as end:
                code = int(end.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture
def database(postgres: str) -> str:
    """A database with nothing in it but the schema."""
    return asyncio.run(new_database(postgres, "wrong_inputs"))


def faults(case: Case, told: tuple[int, str, str]) -> list[str]:
    """What is wrong with how a wrong input was answered."""
    code, out, err = told
    lines = err.splitlines() or [""]
    first = lines[0]
    found = [f"exit code {code}, not {case.code}"] if code != case.code else []
    found += [f"stderr does not say {said!r}" for said in case.said if said not in " ".join(err.split())]
    found += [f"stderr says {word!r}" for word in RAW_WORDS if word in err]
    if len(first) > LONGEST_LINE:
        found.append(f"the first line has {len(first)} characters")
    if first.startswith("error: ") and not any(line.startswith(("fix: ", "hint: ")) for line in lines):
        found.append("nothing says what to do next")
    if not first.startswith("error: ") and "Usage: " not in err:
        found.append("it does not begin with error:")
    if out and case.code != 9:
        found.append(f"stdout has {out[:50]!r}")
    return found


def report(wrong: list[tuple[Case, list[str], str]]) -> str:
    return "\n".join(f"\n$ agentorch {case.line}\n{err}  -> {'; '.join(found)}" for case, found, err in wrong)


def test_the_corpus_is_large_and_says_nothing_twice() -> None:
    lines = [case.line for case in ALL]

    assert len(lines) >= 120
    assert len(set(lines)) == len(lines)
    assert {case.code for case in ALL} == {2, 4, 5, 6, 7, 8, 9}


def test_every_wrong_input_is_told_well(
    folder: Path, say: Callable[[str], tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a database is asked for")

    monkeypatch.setattr("agentorch_cli.store.embedded.EmbeddedServer.start", refuse)
    monkeypatch.setattr("agentorch_cli.client.remote.UNREACHABLE_SECONDS", 1.0)

    wrong = []
    for case in ALL:
        if not case.needs_database:
            told = say(case.line)
            if found := faults(case, told):
                wrong.append((case, found, told[2]))

    assert not wrong, report(wrong)


def test_every_wrong_id_is_told_well(
    folder: Path,
    say: Callable[[str], tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    database: str,
) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("AGENTORCH_DATABASE_POOL_SIZE", "2")
    (folder / "harbour.toml").write_text(
        '[[tasks]]\nid = "harbour-1"\nname = "first"\n[[tasks]]\nid = "harbour-2"\nname = "second"\n'
    )
    for line in (
        "task submit harbour.toml",
        "agent register anna -c count",
        "schedule add nightly good.toml --cron @daily",
        "limit set type:crawl 5/s",
        "budget set team=ml --cost-usd 5",
        "token create ci --scope read",
    ):
        assert say(line)[0] == 0, line

    wrong = []
    for case in ALL:
        if case.needs_database:
            told = say(case.line)
            if found := faults(case, told):
                wrong.append((case, found, told[2]))

    assert not wrong, report(wrong)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_told_well(
    folder: Path, say: Callable[[str], tuple[int, str, str]]
) -> None:
    (folder / "good.toml").chmod(0)

    code, _, err = say("task validate good.toml")

    assert (code, err.splitlines()[0]) == (2, "error: good.toml: cannot be read: Permission denied")
