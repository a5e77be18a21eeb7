"""Every example of every help page, run as it stands against a scratch fleet."""

from __future__ import annotations

import asyncio
import io
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import asyncpg
import pexpect
import pytest
from test_help import ALL

from agentorch_cli.__main__ import run
from bench.fleet.processes import Serve, new_data_dir, remove
from tests.databases import new_database

ROOT = Path(__file__).parents[2]

Call = Callable[..., tuple[int, str, str]]

THE_ID = "019a8f2e-7b1c-7d10-a3f4-52c8e09b1d6f"
"""The id that stands in examples."""

ELSEWHERE = {
    "agentorch demo": "tests/test_demo.py runs it",
    "agentorch demo --data-dir .demo": "tests/test_demo.py runs it",
    "agentorch chaos --tasks 500 --kills 3": "tests/chaos runs it",
    "agentorch chaos --tasks 100000 --kills 50 --seed 7 --json": "make chaos runs it; it takes an hour",
    "agentorch db restore fleet.backup --data-dir ./restored": "tests/cli/test_db_commands.py runs it",
    "agentorch db restore fleet.backup --database-url postgresql://me@localhost/fleet": (
        "tests/cli/test_db_commands.py runs it"
    ),
    "agentorch init": "tests/scenarios/test_up.py runs it",
    "agentorch up agents.toml": "tests/scenarios/test_up.py runs it",
    "agentorch up -d": "tests/scenarios/test_up.py runs it",
    "agentorch up --scale greeter=3": "tests/scenarios/test_up.py runs it",
    "agentorch up --restart greeter": "tests/scenarios/test_up.py runs it",
    "agentorch logs greeter": "tests/scenarios/test_up.py runs it",
    "agentorch logs greeter-1 serve -n 20 -f": "tests/scenarios/test_up.py runs it",
    "agentorch db stop": "tests/cli/test_db_commands.py runs it",
}
"""Examples that take long, or take a fleet away, and which tests run them."""

UNTIL = {
    "agentorch serve": "is ready",
    "agentorch agent run": "connected",
    "agentorch event tail -f": "task_failed",
    "agentorch status --watch": "anna|alice",
    "agentorch top": "anna|alice|worker",
    "agentorch agent attach alice -c approve -c human": "human",
}
"""Examples that run until they are stopped, and what they say once they do."""

FAKES = {
    "postgresql://me@localhost/fleet": "{database}",
    "wss://host:3001": "{engine}",
}
"""Addresses in examples, and what stands for them here."""

FILES = {
    "task.toml": '[task]\ntype = "count"\nrequired_capabilities = ["count"]\ndata = {text = "one two"}\n',
    "review.toml": '[[tasks]]\nname = "draft"\n[[tasks]]\nname = "review"\ndepends_on = ["draft"]\n',
    "agents.toml": '[[agents]]\nid = "carl"\ncapabilities = ["draw"]\n',
    "count.py": "import json, sys\nprint(len(str(json.load(sys.stdin)['data']).split()))\n",
    "mywork.py": "def summarise(work):\n    return str(work.data)[:10]\n",
    "outcomes.csv": "task,right\ndone-1,yes\n",
    "labels.csv": "task,worker,label\n" + "".join(f"t{n % 9},w{n % 5},{n % 2}\n" for n in range(45)),
    "truth.csv": "task,truth\n" + "".join(f"t{n},{n % 2}\n" for n in range(9)),
    "prod.token": "ao_none",
    "ca.pem": "",
    "fleet.toml": f"""
        [[tasks]]
        id = "{THE_ID}"
        type = "vote"
        required_capabilities = ["check_facts"]
        min_agents = 2
        consensus = {{rule = "majority", min_votes = 2}}
        [[tasks]]
        id = "done-1"
        required_capabilities = ["count"]
        [[tasks]]
        id = "failing"
        required_capabilities = ["fail"]
        retries = 0
    """,
    "waiting.toml": """
        [[tasks]]
        id = "nightly-report"
        required_capabilities = ["report"]
        [[tasks]]
        id = "nightly-export"
        required_capabilities = ["export"]
    """,
    "imports.toml": """
        [[tasks]]
        id = "import-a"
        required_capabilities = ["count"]
        [[tasks]]
        id = "import-b"
        required_capabilities = ["count"]
    """,
    "ask.toml": '[task]\nid = "ask-1"\nrequired_capabilities = ["approve"]\n',
}

WORKERS = {
    "worker": ("-c count -c report -c export", "cat > /dev/null; echo 2"),
    "fact-1": ("-c check_facts", "cat > /dev/null; echo true"),
    "fact-2": ("-c check_facts", "cat > /dev/null; echo true"),
    "loser": ("-c fail", "exit 1"),
}

BEFORE: list[tuple[str, list[str]]] = [
    (r"agent (show|remove|pause|drain|resume) ", ["agent register alice -c summarise"]),
    (r"task wait import-a", ["task submit imports.toml"]),
    (r"agent resume", ["agent pause alice"]),
    (r"agent attach alice -c approve$", ["task submit ask.toml"]),
    (r"(budget) (show|remove|list)", ["budget set team=ml --cost-usd 50"]),
    (r"schedule (show|pause|resume|remove|run) ", ["schedule add nightly --cron @daily task.toml"]),
    (r"schedule resume", ["schedule pause nightly"]),
    (r"limit (remove|list)", ["limit set capability:summarise 100/m"]),
    (r"token (revoke|list)", ["token create ci --scope read"]),
    (r"profile (use prod|remove)", ["profile add prod --url wss://h --token-file prod.token"]),
    (r"--host 0.0.0.0", ["token create serve --scope admin"]),
]
"""What has to be there before an example; it may be there already."""

ORDER = [
    "nightly-export",
    "task why",
    "deadlock show",
    "task cancel",
    "task retry",
    "task wait",
    "outcome nightly",
]
"""Of the examples about one task: which comes first."""


class Example(NamedTuple):
    """One line of a help page."""

    page: str
    line: str


def examples() -> list[Example]:
    found: dict[str, Example] = {}
    for page, command, ctx in ALL:
        for line in command.get_help(ctx).splitlines():
            if line.startswith("  $ "):
                found.setdefault(line.strip()[2:], Example(page, line.strip()[2:]))
    return list(found.values())


def rank(example: Example) -> int:
    """Those that make votes come first, what they need comes before them."""
    if re.search(r"consensus (vote|close)", example.line):
        return -1
    return next((number for number, part in enumerate(ORDER, 1) if part in example.line), 0)


@pytest.fixture
def scratch(home: Path) -> Path:
    """A home with the files that the examples read."""
    for name, text in FILES.items():
        (home / name).write_text("\n".join(line.strip() for line in text.splitlines()) + "\n")
    (home / "mywork.py").write_text(FILES["mywork.py"])
    (home / "prod.token").chmod(0o600)
    asked = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=x"
    subprocess.run(
        [*asked.split(), "-keyout", "key.pem", "-out", "cert.pem"], check=True, capture_output=True
    )
    return home


@pytest.fixture
def fleet(scratch: Path, postgres: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Serve]]:
    """A serve on a database of its own; the commands work on that database."""
    database = asyncio.run(new_database(postgres, "help_runs"))
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("AGENTORCH_DATABASE_POOL_SIZE", "2")
    monkeypatch.setenv("AGENTORCH_ENGINE_DRAIN_TIMEOUT", "0")
    folder = new_data_dir()
    environment = {
        "DATABASE_URL": database,
        "AGENTORCH_DATABASE_POOL_SIZE": "5",
        # An example attaches a person who leaves with a question open: nobody is to wait for the answer.
        "AGENTORCH_ENGINE_DRAIN_TIMEOUT": "0",
    }
    serve = Serve(folder, name="help", environment=environment)
    serve.launch()
    try:
        serve.wait_ready()
        yield database, serve
    finally:
        serve.send(signal.SIGTERM)
        serve.wait(20)
        remove(folder)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs a command line in this process, with what is piped into it."""

    def call(words: list[str], stdin: str = "") -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        try:
            code = run(words)
        except SystemExit as end:
            code = int(end.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def test_every_example_of_every_page_runs(fleet: tuple[str, Serve], scratch: Path, call: Call) -> None:
    database, serve = fleet
    engine = serve.url.removesuffix("/agents")
    port = engine.rpartition(":")[2]
    for name, (capabilities, command) in WORKERS.items():
        needed = capabilities.replace("-c report -c export", "").split()
        assert call(["agent", "register", name, *needed, "--exec", command])[0] == 0
    assert call(["task", "submit", "waiting.toml"])[0] == 0
    asyncio.run(until(database, "select 1 from deadlocks where 'nightly-report' = any (members)"))

    wrong = []
    is_fleet_ready = are_workers_whole = False
    for example in sorted(examples(), key=rank):
        if example.line in ELSEWHERE:
            continue
        if rank(example) >= 0 and not is_fleet_ready:
            asyncio.run(forget_votes(database))
            code, _, err = call(["task", "submit", "fleet.toml"])
            assert code == 0, err
            call(["task", "wait", THE_ID, "done-1", "failing", "--timeout", "60s"])
            is_fleet_ready = True
        if rank(example) > ORDER.index("task retry") + 1 and not are_workers_whole:
            call(
                ["agent", "register", "worker", *WORKERS["worker"][0].split(), "--exec", WORKERS["worker"][1]]
            )
            are_workers_whole = True
        line = example.line
        for text, here in FAKES.items():
            line = line.replace(text, here.format(database=database, engine=engine))
        prepare(line, call, database, scratch)
        code, told = perform(line, call, port)
        if code != 0:
            wrong.append(f"$ {line}\n{told.strip()[-600:]}\n-> exit code {code}")
    assert not wrong, "\n\n".join(wrong)


def prepare(line: str, call: Call, database: str, scratch: Path) -> None:
    """What the example takes for granted."""
    if " profile " in line:
        (scratch / "config" / "agentorch" / "config.toml").unlink(missing_ok=True)
    for pattern, before in BEFORE:
        if re.search(pattern, line):
            for one in before:
                call(shlex.split(one))
    if re.search(r"consensus (vote|close)", line):
        options = ["tea", "coffee", "water"] if "--rank" in line else ["yes", "no"]
        rule = ["--rule", "schulze"] if "--rank" in line else []
        asked = [word for option in options for word in ("--option", option)]
        call(["consensus", "open", "--topic", "x", "--voters", "ada,ben", *asked, *rule])
        asyncio.run(rename_vote(database))


async def rename_vote(database: str) -> None:
    """Give the newest vote the id that stands in the examples."""
    await forget_votes(database)
    connection = await asyncpg.connect(database)
    try:
        await connection.execute(
            "update consensus_decisions set decision_id = $1 where decision_id = ("
            "select decision_id from consensus_decisions where status = 'pending'"
            " order by created_at desc limit 1)",
            THE_ID,
        )
    finally:
        await connection.close()


async def forget_votes(database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        await connection.execute("delete from consensus_ballots where decision_id = $1", THE_ID)
        await connection.execute("delete from consensus_decisions where decision_id = $1", THE_ID)
    finally:
        await connection.close()


async def until(database: str, question: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        async with asyncio.timeout(60):
            while await connection.fetchval(question) is None:
                await asyncio.sleep(0.05)
    finally:
        await connection.close()


def perform(line: str, call: Call, port: str) -> tuple[int, str]:
    """Exit code (0 also for one that had to be stopped) and what was said."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|>")
    lexer.whitespace_split = True
    words = list(lexer)
    stdin = ""
    if "|" in words:
        at = words.index("|")
        assert words[0] == "echo"
        stdin, words = " ".join(words[1:at]) + "\n", words[at + 1 :]
    target = words[words.index(">") + 1] if ">" in words else None
    words = words[: words.index(">")] if target else words
    waits = next((sign for start, sign in UNTIL.items() if line.startswith(start)), None)
    if waits is not None:
        return stopped(words[1:], waits, port)
    code, out, err = call(words[1:], stdin)
    if target:
        Path(target).write_text(out)
        assert out.strip()
    return code, out + err


def stopped(words: list[str], sign: str, port: str) -> tuple[int, str]:
    """Run it in a terminal until it says that it runs, then stop it with Ctrl-C."""
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "AGENTORCH_GATEWAY_PORT": "0" if words[0] == "serve" else port,
    }
    log = io.StringIO()
    child = pexpect.spawn(
        sys.executable,
        ["-m", "agentorch_cli", *words],
        env=env,
        encoding="utf-8",
        dimensions=(40, 120),
        timeout=60,
    )
    child.logfile_read = log
    try:
        child.expect(sign)
        if "top" in words:
            child.send("q")
        else:
            child.sendcontrol("d" if "attach" in words else "c")  # a person's line wants Ctrl-C twice
        child.expect(pexpect.EOF)
        child.close()
    except (pexpect.EOF, pexpect.TIMEOUT):
        child.close(force=True)
        return 99, log.getvalue()
    return (0 if child.exitstatus in (0, 130) else 98), log.getvalue()


def test_what_is_run_elsewhere_is_still_an_example() -> None:
    assert ELSEWHERE.keys() <= {example.line for example in examples()}
