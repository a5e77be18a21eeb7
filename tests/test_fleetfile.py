"""An agents file as `agentorch up` reads it, and the parts of supervision that need no processes."""

from __future__ import annotations

import json
import random
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentorch_cli.documents import Document
from agentorch_cli.errors import InvalidTask, NotAllowed, OrchestratorError, UsageError
from agentorch_cli.fleetfile import Restart, processes_of, read_fleet, read_scale, replicas_of
from agentorch_cli.supervision import control
from agentorch_cli.supervision import record as records
from agentorch_cli.supervision.child import Pace
from agentorch_cli.supervision.record import LONGEST_LINE, Follower, Record, file_of, last_lines, names_in
from agentorch_cli.supervision.supervisor import Ground, Supervisor


def fleet(*agents: dict[str, Any]) -> Any:
    return read_fleet(Document({"agents": list(agents)}, "agents.toml"), Path("/srv/fleet"))


def test_an_agent_that_says_nothing_runs_once_beside_its_file() -> None:
    (agent,) = fleet({"id": "a", "exec": ["wc", "-w x"]})

    assert (agent.replicas, agent.restart, agent.cwd, agent.env) == (1, Restart.ALWAYS, "/srv/fleet", ())
    assert (agent.spec.exec, agent.is_run) == ("wc '-w x'", True)


def test_what_it_says_is_taken() -> None:
    (agent,) = fleet(
        {"id": "a", "python": "m:f", "replicas": 3, "cwd": "deep", "env": ["B", "B"], "restart": "on-failure"}
    )

    assert (agent.python, agent.spec.exec, agent.replicas) == ("m:f", None, 3)
    assert (agent.cwd, agent.env, agent.restart) == ("/srv/fleet/deep", ("B",), Restart.ON_FAILURE)


@pytest.mark.parametrize(
    ("agent", "field", "said"),
    [
        ({"exec": "x", "python": "m:f"}, "python", "one of them"),
        ({"replicas": 2}, "replicas", "is for agents with exec or python"),
        ({"exec": "x", "replicas": -1}, "replicas", "at least 0"),
        ({"exec": "x", "restart": "sometimes"}, "restart", "always"),
        ({"exec": "x", "env": ["A=1"]}, "env", "name of a variable"),
        ({"python": "function"}, "python", "module:function"),
        ({"exec": "x", "replica": 2}, "replica", 'did you mean "replicas"'),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(agent: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        fleet({"id": "a", **agent})

    (error,) = caught.value.details["errors"]
    assert f"agents[0].{field}" in error["where"] and said in error["message"]


def test_processes_are_called_by_number_and_scale_goes_before_the_file() -> None:
    agents = fleet({"id": "a", "exec": "x", "replicas": 2}, {"id": "b", "exec": "x"}, {"id": "c"})

    assert list(replicas_of(agents, {}, "f")) == ["a-1", "a-2", "b-1"]
    assert list(replicas_of(agents, {"a": 0, "b": 2}, "f")) == ["b-1", "b-2"]
    with pytest.raises(UsageError, match='no agent "c"'):
        replicas_of(agents, {"c": 1}, "f")
    with pytest.raises(InvalidTask, match="more than 200 characters"):
        replicas_of(fleet({"id": "x" * 200, "exec": "x"}), {}, "f")


@pytest.mark.parametrize("word", ["a", "=1", "a=", "a=x", "a=-1", "a=1.5", "a=99999999", "a=1001"])
def test_a_scale_that_is_none_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="--scale"):
        read_scale([word])


def test_the_last_scale_of_a_name_counts() -> None:
    assert read_scale(["a=1", "b=c=2", "a=3"]) == {"a": 3, "b=c": 2}


def test_waits_double_up_to_the_longest() -> None:
    pace = Pace(0.5, 30, 10)

    assert [pace.wait(lives) for lives in (0, 1, 2, 3, 7, 8, 1000)] == [0.5, 0.5, 1, 2, 30, 30, 30]


def test_an_agent_or_one_of_its_processes_is_named_to_be_started_anew() -> None:
    declared = fleet({"id": "a", "exec": "x", "replicas": 2}, {"id": "a-b", "exec": "x"})
    wanted = replicas_of(declared, {}, "f")

    assert processes_of(wanted, ["a"], "f") == ("a-1", "a-2")
    assert processes_of(wanted, ["a-2", "a-b"], "f") == ("a-2", "a-b-1")
    with pytest.raises(UsageError, match='no agent "a-3"'):
        processes_of(wanted, ["a-3"], "f")


# --- records --------------------------------------------------------------------------------------


def test_lines_are_kept_in_whatever_pieces_they_come(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    written = [f"line {number} ä\u202e\x1b[31m {'x' * draw.randrange(50)}" for number in range(300)]
    data = "".join(line + "\n" for line in written).encode()
    record = Record(file_of(tmp_path, "a-1"), 4_000, 50)

    while data:
        size = draw.randrange(1, 500)
        record.take(data[:size])
        data = data[size:]
    record.take(b"the end")
    record.close()

    lines = [line.line for line in last_lines(names_in(tmp_path), 1000)]
    assert lines == [*map(_shown, written), "the end"]
    assert len(list((tmp_path / "logs/agents").iterdir())) > 3


def _shown(line: str) -> str:
    return line.replace("\u202e", "\\u{202e}").replace("\x1b", "\\x1b")


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    record = Record(file_of(tmp_path, "a"), 1 << 30, 1)

    for _ in range(40):
        record.take(b"x" * LONGEST_LINE)
    record.close()

    assert sum(len(line.line) for line in last_lines(names_in(tmp_path), 1000)) == 40 * LONGEST_LINE


def test_secrets_and_tricks_do_not_reach_the_file(tmp_path: Path) -> None:
    record = Record(file_of(tmp_path, "a"), 1 << 20, 1)

    record.take(b"password=hunter2 \x1b]52;c;x\x07 \xff\nerror: it broke\nhint: mend it\n")
    record.close()

    assert record.said == "it broke"
    text = file_of(tmp_path, "a").read_text()
    assert "hunter2" not in text and "\x1b" not in text and "\x07" not in text


@pytest.mark.parametrize("name", ["a/../../b", ".hidden", "ä" * 199, "x" * 200, "a b", "%41", "~"])
def test_any_name_has_a_file_of_its_own_in_the_folder(tmp_path: Path, name: str) -> None:
    path = file_of(tmp_path, name)

    assert path.parent == tmp_path / "logs/agents" and len(path.name.encode()) < 240
    assert path != file_of(tmp_path, name + "x") and not path.name.startswith(".")
    if len(name) < 20:
        record = Record(path, 100, 1)
        record.note("x")
        record.close()
        assert list(names_in(tmp_path)) == [name]


def test_a_log_that_was_put_aside_just_now_is_still_known(tmp_path: Path) -> None:
    record = Record(file_of(tmp_path, "x.log-1"), 10, 1)

    record.take(b"the line that fills it\n")
    record.close()

    assert [path.name for path in (tmp_path / "logs/agents").iterdir()] == ["x.log-1.log.1"]
    assert [line.line for line in last_lines(names_in(tmp_path), 5)] == ["the line that fills it"]


def test_following_begins_where_the_past_ends(tmp_path: Path) -> None:
    record = Record(file_of(tmp_path, "a"), 250, 5)
    record.take(b"".join(b"before %d\n" % number for number in range(20)))

    with closing(Follower(tmp_path, lambda name: True)) as follower:
        record.take(b"after 0\n")
        late = Record(file_of(tmp_path, "b"), 1000, 1)
        late.take(b"after 1\n")
        past, news = follower.before(4), follower.read()
        assert follower.read() == []
    record.close()
    late.close()

    assert [line.line for line in past] == [f"before {number}" for number in range(16, 20)]
    assert sorted(line.line for line in news) == ["after 0", "after 1"]


def test_following_misses_nothing_of_what_is_put_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Record(file_of(tmp_path, "a"), 100, 50)
    record.take(b"first\n")
    numbers = iter(range(1000))

    def write() -> None:
        record.take(b"line %d\n" % next(numbers))

    def look(path: Path, inode: int) -> bool:
        for _ in range(5):
            write()
        return False

    with closing(Follower(tmp_path, lambda name: True)) as follower:
        seen = []
        for burst in (1, 0, 30, 2):  # thirty lines one by one are some ten files
            for _ in range(burst):
                write()
            seen += follower.read()
        # and what comes between a look at the file and a look for newer ones
        monkeypatch.setattr(records, "_is", look)
        for _ in range(6):  # with the file filled to another degree each time
            write()
            seen += follower.read()
        monkeypatch.undo()
        seen += follower.read()
    record.close()

    assert [line.line for line in seen] == [f"line {number}" for number in range(next(numbers))]


# --- control --------------------------------------------------------------------------------------


def test_an_error_of_the_supervisor_arrives_with_all_that_it_said() -> None:
    details = {"errors": [{"where": "agents.toml:2:1", "message": "no"}]}
    error = InvalidTask("no", hint="h", where="agents.toml:2:1", why="w", fix="f", **details)

    told = control.error_of(json.loads(json.dumps(error.to_json())))

    assert (type(told), told.to_json()) == (InvalidTask, error.to_json())


async def test_one_supervisor_at_a_time_is_asked_over_its_socket(tmp_path: Path) -> None:
    import asyncio
    import os

    data_dir = tmp_path / ("deep" * 40)  # longer than the path of a socket may be

    async def answer(request: dict[str, Any]) -> dict[str, Any]:
        if request["do"] == "fail":
            raise NotAllowed("no", hint="never")
        return {"did": request["do"]}

    lock, other = control.Lock(data_dir), control.Lock(data_dir)
    assert lock.take() and not other.take()
    assert control.supervisor_pid(data_dir) == os.getpid()
    async with control.answering(data_dir, answer):
        assert await asyncio.to_thread(control.ask, data_dir, {"do": "x"}, 5) == {"did": "x"}
        with pytest.raises(NotAllowed, match="no") as caught:
            await asyncio.to_thread(control.ask, data_dir, {"do": "fail"}, 5)
        assert caught.value.hint == "never"
    lock.release()
    assert control.supervisor_pid(data_dir) is None and other.take()
    other.release()
    with pytest.raises(OrchestratorError, match="cannot be asked"):
        control.ask(data_dir, {"do": "x"}, 5)


def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    control.folder_of(tmp_path).mkdir(mode=0o755)

    with pytest.raises(NotAllowed, match="not yours alone"):
        control.Lock(tmp_path).take()


# --- a child --------------------------------------------------------------------------------------


async def test_a_listener_that_fails_stops_no_process(tmp_path: Path) -> None:
    import asyncio

    def fail(_: object) -> None:
        raise RuntimeError("the terminal is gone")

    ground = Ground(
        tmp_path, Pace(0.01, 0.01, 10), 1.0, 1_000, 1, 1_000, lambda url: {}, "ws://127.0.0.1:1", None, None
    )
    supervisor = Supervisor(ground, fail)
    await supervisor.open()
    agents = fleet({"id": "a", "exec": "true", "cwd": str(tmp_path / "nowhere")})
    await supervisor.apply(replicas_of(agents, {}, "f"))

    async with asyncio.timeout(20):
        while supervisor.status()[0]["starts"] < 3:
            await asyncio.sleep(0.01)

    assert "cannot be started" in supervisor.status()[0]["said"]
    assert await supervisor.close() == [{"name": "a-1", "how": "stopped"}]
