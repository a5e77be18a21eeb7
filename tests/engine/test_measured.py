"""What agents do is measured: over real sockets, for every way in which an attempt can end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest
from crew import Crew, Gate, Hand

from agentorch_cli import WorkFailed
from agentorch_cli.core.ledger import weight_of
from agentorch_cli.errors import DatabaseUnreachable, UsageError
from agentorch_cli.store.ledger import keep_accounts
from agentorch_cli.views import AgentView, LedgerView

WORK = {"required_capabilities": ["work"]}


async def answers(work: Any) -> Any:
    """As the task's data says: `{"answer": 1, "usage": {...}, "seconds": 0.1, "fails": true}`."""
    await asyncio.sleep(work.data.get("seconds", 0))
    work.usage = work.data.get("usage")
    if work.data.get("fails"):
        raise WorkFailed("it went wrong", retryable=False)
    return work.data.get("answer")


def says(answer: Any) -> Callable[[Any], Any]:
    async def handler(work: Any) -> Any:
        return answer

    return handler


async def _done(orchestrator: Any, **task: Any) -> Any:
    """Submit a task and wait for its end."""
    return await (await orchestrator.submit({**WORK, **task})).wait(10)


async def _known(orchestrator: Any, agent_id: str) -> AgentView:
    """The agent, after everything that has ended so far has been written."""
    await _write(orchestrator)
    agent: AgentView = await orchestrator.call("agent.get", agent_id=agent_id)
    return agent


async def _write(orchestrator: Any) -> None:
    await orchestrator._engine.settler.idle()
    await orchestrator._engine.ledger.write()


def _crash(orchestrator: Any, hand: Hand) -> None:
    """The agent is gone without a word."""
    orchestrator._gateway.sessions[hand.agent.agent_id].abort()
    hand.running.cancel()


def _row(agent: AgentView, skill: str = "", task_type: str = "") -> LedgerView:
    return next(row for row in agent.ledger if (row.skill, row.task_type) == (skill, task_type))


def _counts(row: LedgerView) -> tuple[float, float, float]:
    return (round(row.completed, 2), round(row.failed, 2), round(row.lost, 2))


async def test_every_way_to_end_is_counted_by_skill_and_type(orchestrator: Any, crew: Crew) -> None:
    hand = await crew.join("a", "work", "extra", does=answers)
    used = {"inputTokens": 1_000, "outputTokens": 200, "costUsd": 0.25}
    for _ in range(3):
        await _done(orchestrator, type="sum", data={"usage": used})
    await _done(orchestrator, type="sum", data={"fails": True})
    await _done(orchestrator, type="nap", data={"seconds": 5}, timeout=0.2, retries=0)
    await _done(orchestrator, type="nap", data={"seconds": 0.2}, required_capabilities=["work", "extra"])
    held = await orchestrator.submit({**WORK, "type": "sum", "data": {"seconds": 60}})
    async with asyncio.timeout(5):
        while not (await orchestrator.call("agent.get", agent_id="a")).busy:
            await asyncio.sleep(0.01)
    _crash(orchestrator, hand)
    async with asyncio.timeout(10):
        while (await orchestrator.call("task.get", task_id=held.task_id)).attempts[0].status != "lost":
            await asyncio.sleep(0.02)

    agent = await _known(orchestrator, "a")

    assert {(row.skill, row.task_type): _counts(row) for row in agent.ledger} == {
        ("", ""): (4, 2, 1),
        ("work", "sum"): (3, 1, 1),
        ("work", "nap"): (0, 1, 0),
        ("extra+work", "nap"): (1, 0, 0),
    }
    everything, sums = _row(agent), _row(agent, "work", "sum")
    assert everything.success_rate == pytest.approx(agent.success_rate) == pytest.approx(4 / 7, rel=1e-4)
    assert sums.cost_usd == pytest.approx(0.75, rel=1e-3)
    assert (round(sums.cost_unknown), round(sums.tokens or 0), round(sums.tokens_unknown)) == (2, 3_600, 2)
    naps = _row(agent, "extra+work", "nap")
    assert naps.cost_usd is None
    assert naps.tokens is None
    assert naps.latency_p50_ms is not None
    assert 200 / math.sqrt(2) < naps.latency_p50_ms < 1_000
    assert _row(agent, "work", "nap").latency_p50_ms is None
    trials = weight_of(7)
    assert everything.trials == pytest.approx(trials, rel=1e-3)
    assert agent.performance_score == pytest.approx(100 * (trials * 4 / 7 + 1) / (trials + 2), abs=1.5)
    assert sum(one.completed for one in agent.trend) == 4
    assert sum(one.failed for one in agent.trend) == 3


async def test_the_table_has_both_scores_after_the_minute(
    orchestrator: Any, crew: Crew, sql: Callable[..., Any]
) -> None:
    await crew.join("a", does=answers)
    await crew.join("new", "other")
    await _done(orchestrator, data={})
    await _done(orchestrator, data={"fails": True})

    await _write(orchestrator)
    await orchestrator._engine.ledger.reckon()

    rows = await sql(
        "select agent_id, performance_score, performance_hourly from agent_registry order by agent_id"
    )
    assert [(row["agent_id"], row["performance_hourly"]) for row in rows] == [("a", 75.0), ("new", 50.0)]
    assert [round(row["performance_score"]) for row in rows] == [50, 100]


async def test_a_ballot_counts_by_agreement_and_a_verified_outcome_takes_its_place(
    orchestrator: Any, crew: Crew
) -> None:
    for name, answer in (("a", "yes"), ("b", "no"), ("c", "yes")):
        await crew.join(name, does=says(answer))
    vote = await orchestrator.submit({**WORK, "type": "ask", "consensus": {"rule": "majority", "panel": 3}})
    await vote.wait(10)

    agreed = {name: _row(await _known(orchestrator, name), "work", "ask") for name in "abc"}
    asked = {row.agent_id for row in (await orchestrator.call("task.get", task_id=vote.task_id)).attempts}
    assert asked == set("abc")
    for name in "abc":
        assert agreed[name].trials == pytest.approx(1, rel=1e-3)
    rates = await _evidence(orchestrator)
    assert rates["a"] == pytest.approx(rates["c"])
    assert 1 > rates["a"] > rates["b"] > 0

    await orchestrator.call("outcome.say", task_id=vote.task_id, answer="no", has_answer=True)
    known = await _evidence(orchestrator)
    rows = await orchestrator.store.db.pool.fetch(
        "select agent_id, trials from agent_ledger where skill = 'work' order by agent_id"
    )
    wrong, right = pytest.approx(0, abs=1e-4), pytest.approx(1, abs=1e-4)
    assert known == {"a": wrong, "b": right, "c": wrong}
    assert [row["trials"] for row in rows] == pytest.approx([3, 3, 3], rel=1e-3)

    await orchestrator.call("outcome.say", task_id=vote.task_id, answer="yes", has_answer=True)
    assert await _evidence(orchestrator) == {"a": right, "b": wrong, "c": right}


async def _evidence(orchestrator: Any) -> dict[str, float]:
    """The share that is right, by agent, of the rows for skill `work`."""
    await _write(orchestrator)
    rows = await orchestrator.store.db.pool.fetch(
        "select agent_id, rights / trials as share from agent_ledger where skill = 'work'"
    )
    return {row["agent_id"]: row["share"] for row in rows}


async def test_who_answers_alone_in_a_vote_was_in_time(orchestrator: Any, crew: Crew) -> None:
    await crew.join("a", does=says("yes"))
    await _done(orchestrator, type="ask", consensus={"rule": "majority", "panel": 1})

    row = _row(await _known(orchestrator, "a"), "work", "ask")

    assert _counts(row) == (1, 0, 0)
    assert row.trials == pytest.approx(1, rel=1e-3)
    assert await _evidence(orchestrator) == {"a": pytest.approx(1)}


@pytest.mark.parametrize("is_written", [True, False])
async def test_a_wrong_result_of_one_agent_counts_against_it_before_and_after_it_is_written(
    orchestrator: Any, crew: Crew, sql: Callable[..., Any], is_written: bool
) -> None:
    await crew.join("a", does=answers)
    task = await orchestrator.submit({**WORK, "data": {"answer": 41}})
    await task.wait(10)
    if is_written:
        await _write(orchestrator)

    await orchestrator.call("outcome.say", task_id=task.task_id, right=False)
    await _write(orchestrator)

    (row,) = await sql("select rights, trials from agent_ledger where skill = 'work'")
    assert row["rights"] == pytest.approx(0, abs=0.05)
    assert row["trials"] == pytest.approx(3, abs=0.1)
    (shown,) = await orchestrator.call("agent.list")
    assert shown.performance_score == pytest.approx(100 / 5, abs=1)
    if is_written:
        assert (await sql("select performance_score from agent_registry"))[0][0] == shown.performance_score


async def test_a_check_task_teaches_the_ledger_too(orchestrator: Any, crew: Crew) -> None:
    await crew.join("a", does=answers)
    await crew.join("checker", "check", does=says({"right": True}))
    handles = await orchestrator.submit_all(
        [
            {**WORK, "name": "sum", "data": {"answer": 3}},
            {"name": "check", "required_capabilities": ["check"], "verifies": "sum", "depends_on": ["sum"]},
        ]
    )
    for handle in handles:
        await handle.wait(10)

    row = _row(await _known(orchestrator, "a"), "work", "task")

    assert row.trials == pytest.approx(3, abs=0.1)
    assert row.right > _row(await _known(orchestrator, "checker"), "check", "task").right


async def test_the_loss_of_an_attempt_that_no_node_carried_is_counted(
    start_engine: Any, crew_of: Callable[[Any], Crew]
) -> None:
    first = await start_engine()
    gate = Gate()
    hand = await crew_of(first).join("a", does=gate)
    await first.submit({**WORK, "type": "held", "retries": 0})
    await gate.work()
    await first.stop()
    await hand.vanish()

    second = await start_engine()
    async with asyncio.timeout(10):
        while not (agent := await _known(second, "a")).ledger:
            await asyncio.sleep(0.05)

    assert _counts(_row(agent, "work", "held")) == (0, 0, 1)
    assert agent.failed <= 1


async def test_a_result_that_comes_after_its_attempt_was_given_up_is_not_counted_again(
    orchestrator: Any, crew: Crew
) -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    async def stubborn(work: Any) -> Any:
        entered.set()
        try:
            await release.wait()
        except asyncio.CancelledError:
            await asyncio.shield(release.wait())
        return "late"

    await crew.join("a", does=stubborn)
    task = await orchestrator.submit({**WORK, "timeout": 0.2, "retries": 0})
    assert (await task.wait(10)).status == "failed"
    release.set()

    agent = await _known(orchestrator, "a")

    assert _counts(_row(agent)) == (0, 1, 0)


async def test_the_choice_hears_of_votes_outcomes_and_what_is_not_written_yet(
    orchestrator: Any, crew: Crew
) -> None:
    await crew.join("a", does=answers)
    engine = orchestrator._engine
    engine.ledger._follow_at = math.inf  # only when it is told to
    task = await orchestrator.submit({**WORK, "type": "sum", "data": {"answer": 41}})
    await task.wait(10)
    await _write(orchestrator)
    await orchestrator.call("outcome.say", task_id=task.task_id, right=False)
    for _ in range(3):
        await _done(orchestrator, type="sum", data={})
    await engine.settler.idle()
    member = engine.state.roster.members["a"]
    before = member.estimate("work", "sum")

    async with engine.ledger._writing:  # what is just being written is not known until the next time
        await engine.ledger.follow(everything=False)
    heard = member.estimate("work", "sum")
    await _write(orchestrator)
    await engine.ledger.follow()

    assert heard < before
    assert member.estimate("work", "sum") == pytest.approx(heard, abs=0.01)
    shown = _row(await _known(orchestrator, "a"), "work", "sum")
    assert shown.right == pytest.approx(member.estimate("work", "sum"), abs=1e-3)


async def test_a_new_leader_knows_what_agents_were_known_for(
    start_engine: Any, crew_of: Callable[[Any], Crew]
) -> None:
    first = await start_engine()
    await crew_of(first).join("a", does=answers)
    for _ in range(4):
        await _done(first, data={"fails": True})
    await first._engine.settler.idle()  # its end is told before it is counted
    known = first._engine.state.roster.members["a"].estimate("work", "task")
    await first.stop()

    second = await start_engine()
    await crew_of(second).join("a", does=answers)

    assert second._engine.state.roster.members["a"].estimate("work", "task") == pytest.approx(known, abs=0.01)
    assert known < 0.5


async def test_what_an_agent_of_another_node_did_is_known_to_the_one_that_leads(
    start_engine: Any, crew_of: Callable[[Any], Crew]
) -> None:
    leader = await start_engine()
    other = await start_engine()
    await crew_of(other).join("a", does=answers)
    await leader._engine.ledger.reckon()  # finds nothing to do
    for fails in (True, False, True):
        await _done(leader, data={"fails": fails})
    await _write(other)

    ledger = leader._engine.ledger
    async with asyncio.timeout(20):
        shown = None
        while shown is None or shown.performance_hourly != pytest.approx(50 + 50 / 3):
            # A row that somebody is just writing is passed over; the loop may be doing this as well.
            ledger._follow_at = ledger._reckon_at = 0.0
            await ledger.lead(asyncio.get_running_loop().time())
            (shown,) = await leader.call("agent.list")
    shown_row = _row(await _known(other, "a"), "work", "task")
    member = leader._engine.state.roster.members["a"]
    assert _counts(shown_row) == (1, 2, 0)
    assert member.estimate("work", "task") == pytest.approx(shown_row.right, abs=1e-3)


async def test_work_that_was_called_off_says_nothing_about_its_agent(orchestrator: Any, crew: Crew) -> None:
    gate = Gate()
    await crew.join("a", does=gate)
    task = await orchestrator.submit(WORK)
    await gate.work()
    await orchestrator.call("task.cancel", task_ids=[task.task_id])

    agent = await _known(orchestrator, "a")

    assert agent.ledger == []
    assert agent.performance_score == 100.0


async def test_what_could_not_be_written_is_written_the_next_time(
    orchestrator: Any, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = orchestrator._engine.ledger

    async def away(*_: Any) -> None:
        raise DatabaseUnreachable("it is away")

    await crew.join("a", does=answers)
    with monkeypatch.context() as patch:
        patch.setattr("agentorch_cli.engine.ledger.keep_accounts", away)
        await _done(orchestrator, data={})
        with pytest.raises(DatabaseUnreachable):
            async with asyncio.timeout(10):
                while True:  # the ledger's own write may be trying at this moment
                    await ledger.write()
                    await asyncio.sleep(0.01)
        await _done(orchestrator, data={})

    assert _counts(_row(await _known(orchestrator, "a"))) == (2, 0, 0)


async def test_what_is_being_written_when_the_node_stops_is_counted_once(
    start_engine: Any, crew_of: Callable[[Any], Crew], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await start_engine()
    ledger, is_stored = first._engine.ledger, asyncio.Event()

    async def slow(*args: Any) -> None:
        await keep_accounts(*args)
        is_stored.set()
        await asyncio.sleep(0.3)

    await crew_of(first).join("a", does=answers)
    await _done(first, data={})
    await first._engine.settler.idle()
    with monkeypatch.context() as patch:
        patch.setattr("agentorch_cli.engine.ledger.keep_accounts", slow)
        writing = asyncio.create_task(ledger.write())
        await is_stored.wait()
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
    await first.stop()

    assert _counts(_row(await _known(await start_engine(), "a"))) == (1, 0, 0)


async def test_an_account_that_cannot_be_written_stops_nothing(
    orchestrator: Any, crew: Crew, noise: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = orchestrator._engine.ledger
    tried = asyncio.Event()

    async def sick(*_: Any) -> None:
        tried.set()
        raise ValueError("it is sick")

    await crew.join("a", does=answers)
    with monkeypatch.context() as patch:
        patch.setattr("agentorch_cli.engine.ledger.keep_accounts", sick)
        await _done(orchestrator, data={})
        async with asyncio.timeout(10):
            await tried.wait()
    await _done(orchestrator, data={})

    assert _counts(_row(await _known(orchestrator, "a"))) == (1, 0, 0)
    assert any("it is sick" in line for line in noise.take())
    assert ledger.state.accounts == {}


async def test_a_fleet_with_nothing_to_do_asks_nothing_of_the_ledger(
    orchestrator: Any, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    await crew.join("a", does=answers)
    ledger = orchestrator._engine.ledger
    await ledger.reckon()  # finds an hour without work
    asked: list[str] = []
    db = orchestrator.store.db
    for call in ("fetch", "fetch_one"):
        original = getattr(db, call)

        async def counted(name: str, *args: Any, original: Any = original) -> Any:
            asked.append(name)
            return await original(name, *args)

        monkeypatch.setattr(db, call, counted)
    ledger.every, ledger._reckon_at, ledger._follow_at = 0.01, 0.0, 0.0
    running = asyncio.create_task(ledger.run())
    async with asyncio.timeout(10):
        while asked.count("beat") < 3:
            await asyncio.sleep(0.02)
    running.cancel()
    idle = list(asked)
    await _done(orchestrator, data={})
    await _write(orchestrator)

    assert not {"keep_accounts", "reckon_hour", "trim_ledger", "ledger", "ledger_since"} & set(idle)
    assert "keep_accounts" in asked


@pytest.mark.parametrize(
    ("one", "said"),
    [
        ({"task_id": 5, "right": True}, "outcomes.1"),
        ({"right": True}, "outcomes.1"),
        ({"task_id": "x", "rihgt": True}, "rihgt"),
    ],
    ids=["number", "nothing", "unknown"],
)
async def test_many_outcomes_are_taken_all_or_refused_with_the_place(
    orchestrator: Any, one: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        await orchestrator.call("outcome.say_many", outcomes=[{"task_id": "a", "right": True}, one])
