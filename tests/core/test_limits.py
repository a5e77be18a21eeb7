"""Rates, concurrency keys, and the backlog behind gates."""

from __future__ import annotations

import random

import pytest

from agentorch_cli.core.backlog import Backlog, Ready
from agentorch_cli.core.limits import Bucket, Keys, LimitGates, Rate, default_burst, parse_rate
from agentorch_cli.core.matching import Member, Roster, Want
from agentorch_cli.core.model import AgentStatus


def ready(
    number: int, *, type: str = "task", key: str | None = None, limit: int = 1, needs: tuple[str, ...] = ()
) -> Ready:
    options = {"concurrency_key": key, "concurrency_limit": limit} if key is not None else {}
    return Ready(
        task_id=f"t{number:03}",
        seq=number,
        urgency=0,
        remaining_path=1.0,
        type=type,
        priority=5,
        want=Want(frozenset(needs), type=type, gates=(f"key:{key}",) if key is not None else ()),
        min_agents=1,
        max_agents=1,
        attempts_made=0,
        timeout_seconds=60.0,
        retries=2,
        failures=0,
        losses=0,
        has_dependents=False,
        options=options,
        status="pending",
        required_capabilities=list(needs),
    )


def crew(*slots: int) -> Roster:
    roster = Roster()
    for number, free in enumerate(slots):
        roster.put(Member(f"a{number}", "worker", frozenset({"x"}), free, AgentStatus.ONLINE, "node"))
    return roster


def served(backlog: Backlog, roster: Roster, gates: LimitGates) -> list[str]:
    return [task.task_id for task, _ in backlog.match(roster, 1_000, gates)]


def filled(gates: LimitGates, *tasks: Ready) -> Backlog:
    backlog = Backlog()
    for task in tasks:
        gates.place(task)
        backlog.put(task)
    return backlog


def with_rates(now: float = 0.0, **buckets: Bucket) -> LimitGates:
    gates = LimitGates()
    gates.rates.now = now
    gates.set_rates({name.replace("__", ":"): bucket for name, bucket in buckets.items()})
    return gates


# --- rates --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rate"),
    [("10/s", Rate(10, 1)), ("100/m", Rate(100, 60)), (" 5 / hour ", Rate(5, 3600)), ("3/90s", Rate(3, 90))],
)
def test_rates_are_read_as_people_write_them(text: str, rate: Rate) -> None:
    assert parse_rate(text) == rate
    assert parse_rate(str(rate)) == rate


@pytest.mark.parametrize("text", ["", "10", "0/s", "-1/s", "1.5/s", "10/fortnight", "10/0s", "9999999/s"])
def test_what_is_no_rate_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="10/s"):
        parse_rate(text)


def test_a_bucket_gives_its_burst_at_once_and_then_its_rate() -> None:
    bucket = Bucket(Rate(60, 60), burst=5, level=5, at=0.0)
    taken = 0
    for tick in range(1_000):  # ten seconds
        while bucket.has(1, tick / 100):
            bucket.take(1, tick / 100)
            taken += 1

    assert taken == 5 + 9


def test_a_bucket_never_gives_more_than_its_rate_and_burst_in_any_window() -> None:
    seed = 20_26
    rng = random.Random(seed)
    bucket = Bucket(Rate(7, 2.0), burst=4, level=4, at=0.0)
    now, starts = 0.0, []
    for _ in range(2_000):
        now += rng.expovariate(8)
        if bucket.has(1, now):
            bucket.take(1, now)
            starts.append(now)

    for first in range(len(starts)):
        for last in range(first, min(len(starts), first + 60)):
            window = starts[last] - starts[first]
            assert last - first + 1 <= 4 + window * 3.5 + 1e-6, seed


def test_a_start_that_asks_for_more_than_the_bucket_holds_leaves_a_debt() -> None:
    bucket = Bucket(Rate(1, 1.0), burst=2, level=2, at=0.0)

    assert bucket.has(5, 0.0)
    bucket.take(5, 0.0)
    assert not bucket.has(1, 3.5)
    assert bucket.wait(1, 3.5) == pytest.approx(0.5)
    assert bucket.has(1, 4.0)


def test_the_default_burst_is_a_seconds_worth() -> None:
    assert [default_burst(parse_rate(text)) for text in ("10/s", "90/m", "5/h")] == [10, 2, 1]


def test_tasks_beyond_a_rate_wait_and_others_pass_them() -> None:
    gates = with_rates(type__crawl=Bucket(Rate(1, 1.0), 2, 2, 0.0))
    backlog = filled(gates, *(ready(n, type="crawl") for n in range(5)), ready(9, type="other"))
    roster = crew(100)

    assert served(backlog, roster, gates) == ["t000", "t001", "t009"]
    assert backlog.shut_gates() == ["rate:type:crawl"]
    assert gates.rates.due_in(backlog.shut_gates(), roster) == pytest.approx(1.0)
    gates.rates.now = 1.0
    backlog.open_gate("rate:type:crawl")
    assert served(backlog, roster, gates) == ["t002"]


def test_an_agent_beyond_its_rate_is_passed_over_and_says_so() -> None:
    gates = with_rates(agent__a0=Bucket(Rate(1, 1.0), 1, 1, 0.0))
    backlog = filled(gates, *(ready(n) for n in range(4)))
    roster = crew(100, 2)

    pairs = [(task.task_id, seats[0].member.agent_id) for task, seats in backlog.match(roster, 100, gates)]

    assert sorted(agent for _, agent in pairs) == ["a0", "a1", "a1"]
    assert backlog.explain(roster, backlog.tasks["t003"])["a0"] == "has used up its rate of 1/s"
    gates.rates.now = 1.0
    gates.rates.bound_all(roster)
    assert served(backlog, roster, gates) == ["t003"]


def test_taking_a_start_back_gives_its_tokens_back() -> None:
    gates = with_rates(
        type__crawl=Bucket(Rate(1, 60.0), 1, 1, 0.0), agent__a0=Bucket(Rate(1, 60.0), 1, 1, 0.0)
    )
    task = ready(0, type="crawl")
    backlog = filled(gates, task)
    roster = crew(1)
    ((task, seats),) = backlog.match(roster, 1, gates)
    assert roster.members["a0"].excluded

    roster.give_back("a0", 0)
    gates.leave(task, seats)
    gates.unspend(seats, roster)
    backlog.put(task)

    assert served(backlog, roster, gates) == ["t000"]


# --- concurrency keys ---------------------------------------------------------------------------


def test_a_key_lets_as_many_run_as_it_says_and_the_rest_in_turn() -> None:
    gates = LimitGates()
    backlog = filled(gates, *(ready(n, key="deploy", limit=2) for n in range(4)), ready(9))
    roster = crew(100)

    assert served(backlog, roster, gates) == ["t000", "t001", "t009"]
    assert gates.closed(backlog.tasks["t002"], 1) == (
        "key:deploy",
        "its concurrency key 'deploy' is held by t000, t001 (2 may run at once)",
    )

    gates.keys.replace(["deploy"], {("deploy", 1): "t001"})  # t000 ended
    backlog.open_gate("key:deploy")
    assert served(backlog, roster, gates) == ["t002"]
    assert gates.keys.by_task == {"t001": ("deploy", 1), "t002": ("deploy", 0)}


def test_a_task_that_holds_its_key_may_be_given_more_agents() -> None:
    keys = Keys()
    task = ready(0, key="k")
    keys.own("t000", "k", 0)

    assert keys.closed("key:k", task, 1) is None
    assert keys.closed("key:k", ready(1, key="k"), 1) is not None


def test_a_gang_behind_a_closed_gate_keeps_no_agents_from_others() -> None:
    gates = LimitGates()
    gates.keys.own("other", "k", 0)
    gang = ready(0, key="k")
    gang.want = Want(frozenset(), number=2, most=2, gates=gang.want.gates)
    backlog = filled(gates, gang, *(ready(n) for n in range(1, 200)))
    roster = crew(1, 1)

    for _ in range(90):  # far beyond the bound on overtaking
        pairs = list(backlog.match(roster, 100, gates))
        assert len(pairs) == 2
        for _, seats in pairs:
            roster.give_back(seats[0].member.agent_id, seats[0].slot)


@pytest.mark.parametrize("seed", range(20))
def test_the_walk_behind_gates_serves_whom_a_plain_scan_would(seed: int) -> None:
    rng = random.Random(seed)
    gates = LimitGates()
    tasks = [
        ready(n, key=rng.choice([None, "a", "b"]), limit=2, needs=("x",) if rng.random() < 0.5 else ())
        for n in range(60)
    ]
    backlog = filled(gates, *tasks)
    roster = crew(*(rng.randint(1, 3) for _ in range(5)))
    running: dict[str, tuple[str, int]] = {}
    waiting = list(tasks)
    for _ in range(60):
        room = sum(m.slots - len(m.used) for m in roster.members.values())
        held = [task.options.get("concurrency_key") for task in tasks if task.task_id in running]
        expected = []
        for task in waiting:  # the dumb twin: in order, whoever has an agent and a free key
            key = task.options.get("concurrency_key")
            if room and (key is None or held.count(key) < 2):
                expected.append(task.task_id)
                held.append(key)
                room -= 1
        found = []
        for task, seats in backlog.match(roster, 1_000, gates):
            running[task.task_id] = (seats[0].member.agent_id, seats[0].slot)
            found.append(task.task_id)
        assert found == expected, seed
        waiting = [task for task in waiting if task.task_id not in running]
        if not running:
            break
        for task_id in rng.sample(sorted(running), rng.randint(1, len(running))):
            roster.give_back(*running.pop(task_id))
            key_slot = gates.keys.by_task.get(task_id)
            if key_slot is not None:
                key = key_slot[0]
                left = {(key, s): t for s, t in gates.keys.held[key].items() if t != task_id}
                gates.keys.replace([key], left)
                backlog.open_gate(f"key:{key}")
    assert not waiting
