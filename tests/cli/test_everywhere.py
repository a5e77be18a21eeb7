"""One corpus of commands, on the embedded database, on a PostgreSQL, and on a server: the same JSON.

Each place has a `serve` of its own and nothing in it. What differs by nature (times, made-up ids,
measured milliseconds) is put in order first; everything else must be equal, errors and exit codes
included.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from jsonschema_rs import validator_for

from agentorch_cli.__main__ import run
from agentorch_cli.cli.app import build
from agentorch_cli.cli.outputs import OUTPUTS, document_name, make_schema
from bench.fleet.processes import Serve, new_data_dir, remove
from tests.databases import new_database

PLACES = ("embedded", "postgres", "server")

HERE_ONLY = {
    "agentorch demo", "agentorch init-db", "agentorch serve", "agentorch doctor", "agentorch agent run",
    "agentorch agent attach", "agentorch chaos",
    "agentorch config init", "agentorch config show", "agentorch protocol schema",
    "agentorch init", "agentorch up", "agentorch down", "agentorch logs",
    "agentorch config get", "agentorch config set", "agentorch config unset",
    "agentorch schema output",
    "agentorch help", "agentorch explain", "agentorch schema task", "agentorch schema agents",
    "agentorch schema config", "agentorch completion bash", "agentorch completion zsh",
    "agentorch completion fish",
    "agentorch db status", "agentorch db upgrade", "agentorch db backup", "agentorch db restore",
    "agentorch db url", "agentorch db stop",
    "agentorch profile add", "agentorch profile use", "agentorch profile list", "agentorch profile remove",
}  # fmt: skip
"""Commands about this machine, its files, or an agent of its own."""

FILES = {
    "one.toml": """
        [task]
        id = "one"
        type = "count"
        required_capabilities = ["count"]
        priority = 7
        labels = {team = "north"}
        data = {text = "a b c"}
    """,
    "graph.toml": """
        [[tasks]]
        id = "first"
        name = "first"
        type = "count"
        required_capabilities = ["count"]
        data = {n = [1, 2.5, "ä", "\\u001b[31m"]}
        [[tasks]]
        id = "second"
        name = "second"
        depends_on = ["first"]
        required_capabilities = ["count"]
        timeout = "2m"
        retries = 0
    """,
    "vote.toml": """
        [task]
        id = "voted"
        type = "count"
        required_capabilities = ["count"]
        min_agents = 2
        consensus = {rule = "majority", min_votes = 2, number = true, tolerance = {abs = 0.5}}
    """,
    "nobody.toml": """
        [[tasks]]
        id = "lonely"
        required_capabilities = ["fly"]
        deadline = "2031-01-31T12:00:00Z"
        [[tasks]]
        id = "follower"
        depends_on = ["lonely"]
        [[tasks]]
        id = "free"
        required_capabilities = ["fly"]
    """,
    "nightly.toml": '[task]\nname = "report"\nrequired_capabilities = ["count"]\n',
    "bad.toml": '[task]\ntype = "count"\npriority = 11\n',
    "lost.toml": '[task]\nid = "x"\ndepends_on = ["never"]\n',
    "agents.toml": '[[agents]]\nid = "carl"\ncapabilities = ["draw"]\nslots = 3\nmetadata = {lend = 1}\n',
    "outcomes.jsonl": '{"task": "first", "right": true}\n{"task": "nothing", "right": false}\n',
}

CORPUS = """
agent register anna -c count --slots 2 --exec "cat > /dev/null; echo 3"
agent register bert -c count -c check --exec "cat > /dev/null; echo 3" --metadata room=7
agent register --from agents.toml
agent register x --slots 0
agent list
agent list --status offline -c draw
agent show nobody
task validate graph.toml
task submit graph.toml --dry-run
task submit bad.toml
task submit lost.toml
task submit one.toml --wait
task submit one.toml
task submit graph.toml
task wait first second
task submit vote.toml --wait
task submit nobody.toml
task submit lost.toml --allow-forward
task list
task list --status completed --limit 2
task list --submission nonsense
task list --agent nobody
task list --where 'label.team=north and priority>=7 or name~"sec*"' --sort priority
task list --where 'status=failed and nme=x'
task list --label team=north --capability count --since 1h --sort -priority
task list --status skipped -o csv
task list -o none
task list --cursor nonsense
task list --sort -created --cursor priority:1:1
task show follo
task show nowh
task wait one --for final
task wait one lonely --any --for completed
task wait one --for failed
task wait one --any --all
task cancel --where 'name=nobody'
task cancel --where 'status=pending'
task retry --where 'status=completed' --dry-run
task cancel --where 'id=free' --dry-run
task cancel
task show one
task show missing
task why lonely
task why follower
task graph follower
task graph missing
task timeline follower
task depend free --on lonely
task depend lonely --on follower
task cancel follower --reason "not any more"
task cancel follower missing
task retry follower
task retry one
task cancel lonely free x
task wait follower --timeout 0.1
task wait missing
agent list --sort -created --limit 1 -q
agent list --label room=7 -c check -q
limit set type:crawl 2/s --burst 10
budget set team=ml --cost-usd 50 --period day
budget set nothing --cost-usd 50
budget show team=ml
budget show nothing
budget list
budget remove team=ml nothing
agent pause bert --reason "new model"
agent drain anna nobody
agent resume bert anna
limit list
limit remove type:crawl
limit remove type:crawl
schedule add nightly nightly.toml --cron "0 2 * * *" --time-zone Europe/Berlin
schedule add nightly nightly.toml --cron "0 2 * * *"
schedule add wrong nightly.toml --cron "99 2 * * *"
schedule list
schedule list --status active,paused --sort next -q
schedule list --status broken
schedule pause nightly nothing
schedule resume nightly
schedule show nightly
schedule run nothing
schedule remove nightly
outcome one --right --as ada
outcome one --wrong
outcome missing --right
outcome --from outcomes.jsonl
status --limit 3
top
consensus list
consensus list --status reached --capability count -q
consensus list --status pending -o csv
consensus show voted
consensus show nothing
consensus open --topic tea --question tea? --voters ada,ben --option tea --option coffee --as ada
consensus vote $DECISION --as ada --option tea
consensus vote $DECISION --as zoe --option tea
consensus vote $DECISION --as ben --abstain
consensus close $DECISION --as ada
consensus show $DECISION
consensus reliability
consensus reliability --agent anna
consensus replay
node list
ui
prune --older-than 1d --keep-last 5 --dry-run
prune --older-than nonsense
prune --older-than 1d
deadlock list
deadlock list --status resolved --kind timeout
deadlock show nothing
deadlock check
deadlock resolve --dry-run
token create ci --scope read --scope agent:crew-* --expires 30d
token create ci --scope read
token create other --scope everything
token list
token revoke ci
token revoke ci
token list --all
event list --task one
event list --kind task_completed --limit 2
event tail -n 2 --task one
event list --cursor nonsense
event list --since 1h --until 0s --kind "task_com*" --limit 2
event tail --since 1h --kind task_submitted
event list --since yesterday
agent show anna
agent remove carl
agent remove carl
task list -o jsonl --limit 2
-q agent list
""".strip().splitlines()


NOTICED: dict[str, tuple[list[str], int]] = {
    "task submit nobody.toml": (["deadlock", "list"], 1),
    "task submit lost.toml --allow-forward": (["deadlock", "list"], 2),
    "task cancel lonely free x": (["deadlock", "list", "--open"], 0),
}
"""What the server notices by itself after a command, and how many there are then."""


class Told(NamedTuple):
    """What a command did."""

    code: int
    out: Any
    err: Any


class Place:
    """Where the commands work."""

    def __init__(self, name: str, arguments: list[str], serve: Serve) -> None:
        self.name = name
        self.arguments = arguments
        self.serve = serve


def write_files(folder: Path) -> None:
    """What the commands of the corpus read."""
    for name, text in FILES.items():
        (folder / name).write_text("\n".join(line.strip() for line in text.strip().splitlines()) + "\n")


@pytest.fixture
def places(home: Path, empty_databases: Callable[[int], list[str]]) -> Iterator[list[Place]]:
    """A serve each, ready."""
    write_files(home)
    first, second = empty_databases(2)
    common = {
        "AGENTORCH_GATEWAY_ALLOW_REMOTE_EXEC": "true",
        "AGENTORCH_GATEWAY_HEARTBEAT_INTERVAL": "1",
        "AGENTORCH_ENGINE_DRAIN_TIMEOUT": "0",
        "AGENTORCH_DATABASE_POOL_SIZE": "4",
        "AGENTORCH_DEADLOCKS_RESOLVE": "false",
        "AGENTORCH_MATCHING_EXPLORATION": "0",  # how often it draws depends on how tasks fall together
        "AGENTORCH_ENGINE_DEADLOCK_SWEEP_INTERVAL": "0.5",
        "HOME": str(home),
    }
    with ExitStack() as stack:
        serves = []
        for name, url in zip(PLACES, (None, first, second), strict=True):
            folder = new_data_dir()
            stack.callback(remove, folder)
            serve = Serve(folder, name=name, environment={**common, **({"DATABASE_URL": url} if url else {})})
            serve.launch()
            stack.callback(_kill, serve)
            serves.append((serve, folder))
        for serve, _ in serves:
            serve.wait_ready()
        yield [
            Place("embedded", ["--data-dir", str(serves[0][1])], serves[0][0]),
            Place("postgres", ["--database-url", first], serves[1][0]),
            Place("server", ["--server", serves[2][0].url.removesuffix("/agents")], serves[2][0]),
        ]


def _kill(serve: Serve) -> None:
    serve.send(signal.SIGTERM)
    serve.wait(20)


def test_every_command_prints_the_same_json_everywhere(
    places: list[Place], capsys: pytest.CaptureFixture[str]
) -> None:
    told = {place.name: [told for _, told in _said(place, capsys)] for place in places}

    _as_it_was(told["embedded"])
    different = []
    for number, line in enumerate(CORPUS):
        embedded, postgres, server = (told[name][number] for name in PLACES)
        if not embedded == postgres == server:
            different.append("\n".join((line, f"  {embedded}", f"  {postgres}", f"  {server}")))
    assert not different, "\n".join(different)


GOLDEN = Path(__file__).parents[1] / "data" / "golden_commands.jsonl"
"""What each command of the corpus prints, in order: AGENTORCH_WRITE_GOLDEN=1 writes it anew."""

WRITES_GOLDEN = os.environ.get("AGENTORCH_WRITE_GOLDEN") == "1"


def _as_it_was(told: list[Told]) -> None:
    """Compare with what was printed before; a change here is one that every script has to live with."""
    lines = [
        json.dumps({"line": line, **one._asdict()}, ensure_ascii=False, sort_keys=True)
        for line, one in zip(CORPUS, told, strict=True)
    ]
    if WRITES_GOLDEN:
        GOLDEN.write_text("\n".join(lines) + "\n")
    before = GOLDEN.read_text().splitlines()
    assert [line for line in lines if line not in before] == [line for line in before if line not in lines]


def _fits(line: str, printed: str) -> None:
    """What a command has printed as JSON is what its schema says."""
    words = _words(line)
    name = next(name for name in (" ".join(words[:2]), words[0]) if name in OUTPUTS)
    documents = json.loads(printed)
    of_lists: dict[bool, list[Any]] = {True: [], False: []}
    for output in OUTPUTS[name]:
        of_lists[output.is_list].append(output.kind)
    for document in documents if isinstance(documents, list) else [documents]:
        faults = [
            next(validator_for(make_schema(document_name(kind))).iter_errors(document), None)
            for kind in of_lists[isinstance(documents, list)]
        ]
        assert None in faults, (line, faults)


def test_the_corpus_has_every_command_that_a_server_can_do() -> None:
    words = {tuple(_words(line)) for line in CORPUS}
    root = build()
    context = root.make_context("agentorch", [], resilient_parsing=True)
    missing = []
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        verbs = command.list_commands(context) if hasattr(command, "list_commands") else [""]
        for verb in verbs:
            full = f"agentorch {name} {verb}".strip()
            wanted = (name, verb) if verb else (name,)
            if full not in HERE_ONLY and not any(line[: len(wanted)] == wanted for line in words):
                missing.append(full)

    assert missing == []


def _words(line: str) -> list[str]:
    return [word for word in shlex.split(line) if word != "-q"]


def _said(place: Place, capsys: pytest.CaptureFixture[str]) -> Iterator[tuple[str, Told]]:
    decision = ""
    for line in CORPUS:
        words = shlex.split(line.replace("$DECISION", decision))
        is_json = "-q" not in words and "-o" not in words
        capsys.readouterr()
        code = run([*place.arguments, *(["--json"] if is_json else []), *words])
        printed = capsys.readouterr()
        if words[:2] == ["consensus", "open"]:
            decision = json.loads(printed.out)["decision_id"]
        if words[:3] == ["agent", "register", "bert"]:
            _until(place, capsys, ["agent", "list", "--status", "online"])
        if line in NOTICED:
            _until(place, capsys, *NOTICED[line])
        if is_json and printed.out:
            _fits(line, printed.out)
        if is_json and code != 0 and "{" in printed.err:
            error = json.loads(printed.err[printed.err.index("{") :])
            assert validator_for(make_schema("error")).is_valid(error), line
        out = _parsed(printed.out)
        if words[:2] == ["agent", "register"] and isinstance(out, list):
            out = [{**one, "status": "whether serve has started it yet"} for one in out]
        if line == "node list":  # where it runs, and since when, is not the same
            out = [sorted(one) for one in out]
        if line == "ui":  # likewise
            out = sorted(out)
        if line == "deadlock list":  # how often the same one was seen anew depends on the clock
            out = sorted({one["kind"]: sorted(one) for one in out}.items())
        yield line, Told(code, _ordered(out), _ordered(_parsed(_without_notes(printed.err))))


def _until(place: Place, capsys: pytest.CaptureFixture[str], words: list[str], number: int = 2) -> None:
    """Until there are so many: the server notices in its own time."""
    for _ in range(200):
        capsys.readouterr()
        run([*place.arguments, *words, "--json"])
        found = len(json.loads(capsys.readouterr().out))
        if found == number or found > number > 0:  # one that was seen anew is there twice
            return
    raise AssertionError(f"{' '.join(words)} does not come to {number}")


def _without_notes(text: str) -> str:
    """Of stderr, the error: sentences to the person speak of the place too."""
    return text[text.index("{") :] if "{" in text else ""


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        lines = text.splitlines()
        if lines and all(line.startswith("{") for line in lines):
            return [json.loads(line) for line in lines]
        return lines


MOMENT = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00)$")
WRITTEN_MOMENT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC")
MADE_UP = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
SECONDS = re.compile(r"\b\d+(\.\d+)? m?s\b")
MEASURED = {
    "cursor", "latency_p50_ms", "latency_p95_ms", "oldest_pending_seconds", "seconds", "waited_s", "pid",
    "node_id", "port", "token", "token_id", "load", "busy", "working_on", "completed", "performance_score",
    "success_rate", "last_heartbeat", "tokens", "spare", "left", "available", "started_at",
    "waits_since", "last_used_at", "message_id", "decision_id", "submission_id", "recent",
    "latency", "next_run_at", "upcoming", "ledger", "confidence", "p50_ms", "p95_ms", "estimate",
    "evidence", "standing", "flow", "deadlocks", "performance", "performance_hourly", "host", "version",
}  # fmt: skip
"""What depends on the clock, on chance, or on how far the heartbeats are."""

OF_EQUALS = {"votes", "voters"}
"""Agents that do the same: who comes first depends on how quick each has been."""


def _ordered(value: Any, key: str = "") -> Any:
    if key in MEASURED:
        return f"<{key}>"
    if key == "assigned_agents":  # which of those that can depends on how quick each has been
        return len(value)
    if isinstance(value, dict):
        return {name: _ordered(one, name) for name, one in value.items()}
    if isinstance(value, list):
        # a quick command is done before its acceptance is written down
        found = [_ordered(one, key) for one in value if not _is_acceptance(one)]
        return sorted(found, key=json.dumps) if key in OF_EQUALS else found
    if isinstance(value, str):
        if MOMENT.match(value) and "2031" not in value:
            return "<moment>"
        return WRITTEN_MOMENT.sub("<moment>", SECONDS.sub("<time>", MADE_UP.sub("<id>", value)))
    return value


def _is_acceptance(value: Any) -> bool:
    return isinstance(value, dict) and value.get("kind") == "attempt_accepted"


@pytest.fixture
def empty_databases(postgres: str) -> Callable[[int], list[str]]:
    """Databases with nothing in them but the schema."""
    import asyncio
    import itertools

    numbers = itertools.count(1)

    def make(number: int) -> list[str]:
        return [asyncio.run(new_database(postgres, f"everywhere_{next(numbers)}")) for _ in range(number)]

    return make
