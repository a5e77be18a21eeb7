"""Budgets on a running engine: what is paid, what is not started, and what both say."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from crew import Gate

from agentorch_cli import WorkFailed
from agentorch_cli.cli import money
from agentorch_cli.core.model import AttemptStatus
from agentorch_cli.engine.state import Report
from agentorch_cli.errors import UsageError


def uses(cost: float | None = None, tokens: int | None = None, result: Any = "done") -> Any:
    """A handler that tells what it used."""

    async def handler(work: Any) -> Any:
        told: dict[str, Any] = {}
        if cost is not None:
            told["costUsd"] = cost
        if tokens is not None:
            told |= {"inputTokens": tokens - tokens // 3, "outputTokens": tokens // 3}
        work.usage = told or None
        return result

    return handler


async def settled(orchestrator: Any, key: str, **wanted: Any) -> Any:
    """The budget, once it stands like this."""
    async with asyncio.timeout(10):
        while True:
            found = await orchestrator.call("budget.get", key=key)
            if all(getattr(found, name) == value for name, value in wanted.items()):
                return found
            await asyncio.sleep(0.01)


async def test_what_was_used_takes_the_place_of_what_was_reserved(orchestrator: Any, crew: Any) -> None:
    gate = Gate()

    async def handler(work: Any) -> Any:
        result = await gate(work)
        work.usage = {"costUsd": 0.25, "inputTokens": 7, "outputTokens": 3}
        return result

    await crew.join("a", does=handler)
    task = await orchestrator.submit(
        {"required_capabilities": ["work"], "budget": {"cost_usd": 1, "tokens": 100}, "data": 1}
    )
    work = await gate.work()
    running = await orchestrator.call("budget.get", key=task.task_id)
    gate.is_open.set()
    await task.result(10)
    ended = await orchestrator.call("budget.get", key=task.task_id)

    assert work.budget == {"costUsd": 1.0, "tokens": 100}
    assert (running.spent_usd, running.reserved_usd, running.reserved_tokens) == (0, 1, 100)
    assert (ended.spent_usd, ended.spent_tokens) == (0.25, 10)
    assert (ended.reserved_usd, ended.reserved_tokens) == (0, 0)
    shown = await orchestrator.call("task.get", task_id=task.task_id)
    assert (shown.usage.cost_usd, shown.usage.tokens, shown.usage.unknown_attempts) == (0.25, 10, 0)
    assert [event.kind for event in shown.events if event.kind.startswith("budget")] == [
        "budget_reserved",
        "budget_settled",
    ]


async def test_usage_that_is_not_told_counts_as_what_was_reserved_and_is_called_unknown(
    orchestrator: Any, crew: Any
) -> None:
    async def fails(work: Any) -> None:
        raise WorkFailed("no", code="wrong")

    await crew.join("a", does=fails)
    task = await orchestrator.submit(
        {"required_capabilities": ["work"], "budget": {"cost_usd": 0.5}, "backoff": 0, "retries": 5}
    )
    ended = await task.wait(10)
    shown = await orchestrator.call("task.get", task_id=task.task_id)
    budget = shown.budgets[0]

    assert (ended.status, ended.attempts_made) == ("failed", 1)
    assert ended.error["code"] == "budget_exhausted"
    assert ended.error["message"] == (
        "the task's budget of $0.50 cannot pay for another attempt: $0.50 is spent, $0 is left"
    )
    assert (budget.spent_usd, budget.unknown_usd, budget.unknown_attempts) == (0.5, 0.5, 1)
    assert (shown.usage.cost_usd, shown.usage.unknown_attempts) == (None, 1)
    assert shown.attempts[0].funding[0].is_unknown
    spend = (await orchestrator.call("status.get")).spend
    assert (spend.total_usd, spend.today_unknown_attempts) == (None, 1)


async def test_an_attempt_that_failed_leaves_the_rest_to_the_next(orchestrator: Any, crew: Any) -> None:
    told: list[Any] = []

    async def handler(work: Any) -> Any:
        told.append(work.budget)
        work.usage = {"costUsd": 0.1}
        if work.attempt < 3:
            raise WorkFailed("again")
        return "at last"

    await crew.join("a", does=handler)
    task = await orchestrator.submit(
        {"required_capabilities": ["work"], "budget": {"cost_usd": 0.5}, "backoff": 0, "retries": 5}
    )

    assert await task.result(10) == "at last"
    assert told == [{"costUsd": 0.5}, {"costUsd": 0.4}, {"costUsd": 0.3}]
    assert (await orchestrator.call("budget.get", key=task.task_id)).spent_usd == 0.3


async def why(orchestrator: Any, task_id: str) -> list[tuple[str, str]]:
    found = await orchestrator.call("task.why", task_id=task_id)
    return [(link.code, link.sentence) for link in found.links]


async def test_what_a_label_cannot_pay_for_waits_and_says_so_until_it_is_raised(
    orchestrator: Any, crew: Any
) -> None:
    gate = Gate()

    async def handler(work: Any) -> Any:
        work.usage = {"costUsd": 0.44}
        return await gate(work)

    await crew.join("a", slots=9, does=handler)
    await orchestrator.call("budget.set", key="team=ml", cost_usd=1.2, attempt_usd=0.5)
    handles = [
        await orchestrator.submit(
            {"required_capabilities": ["work"], "labels": {"team": "ml"}, "data": n, "name": f"t{n}"}
        )
        for n in range(5)
    ]
    begun = {(await gate.work()).task_id for _ in range(2)}
    waiting = [one for one in handles if one.task_id not in begun]
    others = await orchestrator.submit({"required_capabilities": ["work"], "data": "of nobody"})

    assert (await gate.work()).task_id == others.task_id  # what waits is in nobody's way
    assert await why(orchestrator, waiting[0].task_id) == [
        (
            "budget",
            "waits for budget label team=ml: $0.20 of $1.20 left ($1 reserved for attempts that run),"
            " an attempt needs $0.50",
        )
    ]
    status = await orchestrator.call("status.get")
    assert status.alarms == [
        "3 tasks wait for budget label team=ml: $0.20 of $1.20 left ($1 reserved for attempts that run),"
        " each needs $0.50"
    ]
    assert [(one.key, one.waiting, one.running) for one in status.budgets] == [("team=ml", 3, 2)]

    gate.is_open.set()
    await settled(orchestrator, "team=ml", spent_usd=0.88, reserved_usd=0)
    assert [task.status for task in await orchestrator.call("task.list", status=["pending"])] == [
        "pending"
    ] * 3

    await orchestrator.call("budget.set", key="team=ml", cost_usd=9)
    assert [await one.result(10) for one in handles] == list(range(5))
    found = await orchestrator.call("budget.get", key="team=ml")
    assert (found.spent_usd, found.attempt_usd, found.unknown_attempts) == (2.2, 0.5, 0)


async def test_one_runs_at_a_time_until_it_is_known_what_one_uses(orchestrator: Any, crew: Any) -> None:
    running, most, before = 0, 0, []

    async def handler(work: Any) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        before.append(running)
        await asyncio.sleep(0.02)  # work takes a while, or nothing could overlap
        running -= 1
        work.usage = {"costUsd": 0.1}
        return "done"

    await crew.join("a", slots=9, does=handler)
    await orchestrator.call("budget.set", key="team=ml", cost_usd=1)
    handles = [
        await orchestrator.submit({"required_capabilities": ["work"], "labels": {"team": "ml"}})
        for _ in range(6)
    ]
    assert [await one.result(10) for one in handles] == ["done"] * 6

    # then 1.25 x 0.1 fits seven times into what is left: all the others may run at once
    assert before[0] == 1 and most <= 5
    assert (await orchestrator.call("budget.get", key="team=ml")).spent_usd == 0.6


async def test_a_submission_that_has_used_up_its_budget_fails_what_is_left(
    orchestrator: Any, crew: Any
) -> None:
    await crew.join("a", does=uses(0.4))
    handles = await orchestrator.submit_all(
        [{"required_capabilities": ["work"]} for _ in range(5)], budget={"cost_usd": 1}
    )
    ended = [await one.wait(10) for one in handles]
    shown = await orchestrator.call("task.get", task_id=handles[0].task_id)

    assert [task.status for task in ended].count("completed") == 2
    failed = next(task for task in ended if task.status == "failed")
    assert failed.attempts_made == 0
    assert failed.error["message"] == (
        "the budget of its submission of $1 cannot pay for another attempt: $0.80 is spent, $0.20 is left,"
        " an attempt needs $0.50"
    )
    assert [(one.scope, one.key, one.spent_usd) for one in shown.budgets] == [
        ("submission", shown.submission_id, 0.8)
    ]


async def test_what_a_lost_agent_held_is_returned_and_its_late_result_is_paid(
    orchestrator: Any, crew: Any, sql: Any
) -> None:
    gate = Gate()
    await crew.join("a", does=gate)
    task = await orchestrator.submit(
        {"required_capabilities": ["work"], "budget": {"cost_usd": 1}, "retries": 0}
    )
    work = await gate.work()
    await sql("update agent_registry set status = 'paused' where agent_id = 'a'")
    await orchestrator.engine.read_fleet()
    orchestrator.engine.lifeline.lose("a")
    returned = await settled(orchestrator, task.task_id, reserved_usd=0)
    assert (returned.spent_usd, returned.unknown_attempts) == (0, 0)

    await crew.join("b", does=uses(0.3))
    assert await task.result(10) == "done"
    orchestrator.engine.settler.put(
        Report(work.message_id, "a", AttemptStatus.COMPLETED, result="1", usage='{"cost_usd": 0.2}')
    )
    paid = await settled(orchestrator, task.task_id, spent_usd=0.5)
    assert paid.unknown_attempts == 0
    rows = await sql("select status, usage from task_attempts where message_id = $1", work.message_id)
    assert tuple(rows[0]) == ("lost", '{"cost_usd": 0.2}')
    assert (await orchestrator.call("status.get")).spend.today_usd == 0.5


async def test_a_sub_task_uses_what_is_reserved_for_its_parent(orchestrator: Any, crew: Any) -> None:
    held: list[Any] = []

    async def parent(work: Any) -> Any:
        result = await work.submit({"type": "child", "required_capabilities": ["child"]})
        held.append(await orchestrator.call("budget.get", key="team=ml"))
        work.usage = {"costUsd": 0.2}
        return result

    await crew.join("a", does=parent)
    await crew.join("b", "child", does=uses(0.3, result="from below"))
    await orchestrator.call("budget.set", key="team=ml", cost_usd=1)
    task = await orchestrator.submit({"required_capabilities": ["work"], "labels": {"team": "ml"}})

    assert await task.result(10) == "from below"
    # nobody knew what the parent uses, so all was reserved for it; the rest went back to it
    assert (held[0].spent_usd, held[0].reserved_usd) == (0.3, 0.7)
    ended = await settled(orchestrator, "team=ml", reserved_usd=0)
    assert (ended.spent_usd, ended.unknown_attempts, ended.running) == (0.5, 0, 0)


async def test_what_was_called_off_is_unknown_once_it_was_taken_and_nothing_before(
    orchestrator: Any, crew: Any
) -> None:
    gate = Gate()
    await crew.join("a", does=gate, slots=2)
    taken = await orchestrator.submit({"required_capabilities": ["work"], "budget": {"cost_usd": 1}})
    await gate.work()
    async with asyncio.timeout(10):
        while (await orchestrator.call("task.get", task_id=taken.task_id)).attempts[0].accepted_at is None:
            await asyncio.sleep(0.01)
    session = orchestrator._gateway.sessions["a"]
    session.execute = lambda delivery: None  # what is sent never arrives
    sent = await orchestrator.submit({"required_capabilities": ["work"], "budget": {"cost_usd": 1}})
    await settled(orchestrator, sent.task_id, reserved_usd=1)
    await orchestrator.call("task.cancel", task_ids=[taken.task_id, sent.task_id])

    one = await settled(orchestrator, taken.task_id, reserved_usd=0)
    other = await settled(orchestrator, sent.task_id, reserved_usd=0)
    assert (one.spent_usd, one.unknown_usd, one.unknown_attempts) == (1, 1, 1)
    assert (other.spent_usd, other.unknown_attempts) == (0, 0)


async def test_the_voters_of_a_task_share_its_budget(orchestrator: Any, crew: Any) -> None:
    told: list[Any] = []

    async def handler(work: Any) -> str:
        told.append(work.budget["tokens"])
        work.usage = {"inputTokens": 30}
        return "yes"

    for agent_id in "abc":
        await crew.join(agent_id, does=handler)
    task = await orchestrator.submit(
        {"required_capabilities": ["work"], "requires_consensus": True, "budget": {"tokens": 100}}
    )

    assert await task.result(10) == "yes"
    assert told == [50, 50]
    assert (await orchestrator.call("budget.get", key=task.task_id)).spent_tokens == 60


async def test_a_vote_that_cannot_pay_for_another_ballot_fails(orchestrator: Any, crew: Any) -> None:
    for agent_id, answer in {"a": "yes", "b": "no", "c": "yes"}.items():
        await crew.join(agent_id, does=uses(0.5, result=answer))
    task = await orchestrator.submit(
        {"required_capabilities": ["work"], "requires_consensus": True, "budget": {"cost_usd": 1}}
    )

    ended = await task.wait(10)
    vote = await orchestrator.call("consensus.get", decision_id=task.task_id)
    assert (ended.status, ended.error["code"]) == ("failed", "budget_exhausted")
    assert (vote.status, vote.decided_by) == ("failed", "budget_exhausted")


async def test_a_budget_begins_anew_with_its_period(orchestrator: Any, crew: Any, sql: Any) -> None:
    await crew.join("a", does=uses(0.5))
    await orchestrator.call("budget.set", key="team=ml", cost_usd=0.5, period="day")
    first, second = [
        await orchestrator.submit({"required_capabilities": ["work"], "labels": {"team": "ml"}})
        for _ in range(2)
    ]
    await first.result(10)
    await settled(orchestrator, "team=ml", waiting=1, left_usd=0)

    await sql("update budgets set window_start = window_start - interval '1 day'")
    orchestrator.engine.scheduler.look_at_budgets()  # what its timer does at midnight
    await second.result(10)
    assert (await orchestrator.call("budget.get", key="team=ml")).spent_usd == 0.5
    assert orchestrator.engine.scheduler.funds._timer is not None


@pytest.mark.parametrize("change", ["settled", "raised", "lifted"])
async def test_what_waits_goes_on_when_another_node_settles_or_raises_or_lifts_the_budget(
    start_engine: Any, crew_of: Any, change: str
) -> None:
    first = await start_engine(engine={"poll_interval": 600})
    second = await start_engine(engine={"poll_interval": 600})
    await crew_of(first).join("a", slots=2)
    session = first._gateway.sessions["a"]
    execute, session.execute = session.execute, lambda delivery: None  # what is sent never arrives
    await second.call("budget.set", key="team=ml", cost_usd=1, attempt_usd=0.6)
    one, other = [
        await second.submit({"required_capabilities": ["work"], "labels": {"team": "ml"}, "data": n})
        for n in range(2)
    ]
    await settled(second, "team=ml", reserved_usd=0.6, waiting=1)
    assert (await why(second, other.task_id))[0][0] == "budget"
    session.execute = execute

    match change:
        case "settled":
            await second.call("task.cancel", task_ids=[one.task_id])
        case "raised":
            await second.call("budget.set", key="team=ml", cost_usd=1.2)
        case "lifted":
            await second.call("budget.remove", keys=["team=ml"])

    assert await other.result(10) == 1


async def test_agents_of_all_nodes_are_paid_from_one_budget(start_engine: Any, crew_of: Any) -> None:
    first = await start_engine(engine={"poll_interval": 600})
    second = await start_engine(engine={"poll_interval": 600})
    told: list[Any] = []
    running, most = 0, 0

    async def handler(work: Any) -> str:
        nonlocal running, most
        told.append(work.budget)
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)  # work takes a while, or nothing could overlap
        running -= 1
        work.usage = {"costUsd": 0.1}
        return "done"

    await crew_of(first).join("a", slots=9, does=handler)
    await crew_of(second).join("b", slots=9, does=handler)
    await first.call("budget.set", key="team=ml", cost_usd=0.9, attempt_usd=0.15)
    handles = [
        await second.submit({"required_capabilities": ["work"], "labels": {"team": "ml"}}) for _ in range(9)
    ]
    ended = [handle.wait(5) for handle in handles[:8]]

    done = await asyncio.gather(*ended, return_exceptions=True)
    found = await second.call("budget.get", key="team=ml")
    agents = {task.assigned_agents[0] for task in done if not isinstance(task, BaseException)}
    assert 1 < most <= 6
    assert agents == {"a", "b"}
    assert {"costUsd"} == set().union(*told)
    # eight of nine are paid: 0.8 is spent then, and 0.15 does not fit into what is left
    assert (found.spent_usd, found.reserved_usd, found.waiting, found.unknown_attempts) == (0.8, 0, 1, 0)


async def test_what_an_attempt_has_used_so_far_is_shown_and_not_charged(orchestrator: Any, crew: Any) -> None:
    has_told, go_on = asyncio.Event(), asyncio.Event()

    async def model(work: Any) -> str:
        await work.progress(0.5)
        await work.progress(note="half of it", usage={"inputTokens": 1200, "costUsd": 0.25})
        has_told.set()
        await go_on.wait()
        return "done"

    await crew.join("a", does=model)
    task = await orchestrator.submit({"required_capabilities": ["work"], "budget": {"cost_usd": 2}})
    await has_told.wait()
    async with asyncio.timeout(10):
        while True:
            (attempt,) = (await orchestrator.call("task.get", task_id=task.task_id)).attempts
            if attempt.usage_so_far is not None:
                break
            await asyncio.sleep(0.01)

    assert attempt.usage_so_far == {"input_tokens": 1200, "cost_usd": 0.25}
    assert (attempt.progress, attempt.note, attempt.usage) == (0.5, "half of it", None)
    assert money.of_attempt(attempt) == "$0.25, 1,200 tokens so far"
    go_on.set()
    assert await task.result(10) == "done"
    found = await orchestrator.call("task.get", task_id=task.task_id)
    assert money.of_attempt(found.attempts[0]) == "unknown, at least $0.25, 1,200 tokens"
    assert found.budgets[0].spent_usd == 2


async def test_labels_that_read_the_same_have_budgets_of_their_own(orchestrator: Any, crew: Any) -> None:
    await crew.join("a", slots=2, does=uses(0.25))
    await orchestrator.call("budget.set", key="a=b=c", cost_usd=2, attempt_usd=0.5)
    await orchestrator.call("budget.set", key=r"a\=b=c", cost_usd=1, attempt_usd=0.5)

    both = await orchestrator.submit(
        {"required_capabilities": ["work"], "labels": {"a=b": "c", "a": "b=c"}, "budget": {"cost_usd": 1}}
    )
    one = await orchestrator.submit({"required_capabilities": ["work"], "labels": {"a=b": "c"}})

    assert [await task.result(10) for task in (both, one)] == ["done"] * 2
    assert (await settled(orchestrator, "a=b=c", reserved_usd=0)).spent_usd == 0.25
    assert (await settled(orchestrator, r"a\=b=c", reserved_usd=0)).spent_usd == 0.5
    charged = (await orchestrator.call("task.get", task_id=both.task_id)).budgets
    assert {(found.scope, found.key) for found in charged} == {
        ("task", both.task_id),
        ("label", "a=b=c"),
        ("label", r"a\=b=c"),
    }


@pytest.mark.parametrize(
    "key", ["=ml", " =ml", "te\x1bam=ml", "k" * 201 + "=" + "v" * 201, "k" * 900 + "=", r"a\b=c"]
)
async def test_a_label_that_no_task_can_have_is_given_no_budget(orchestrator: Any, key: str) -> None:
    with pytest.raises(UsageError, match="no task can have the label"):
        await orchestrator.call("budget.set", key=key, cost_usd=1)

    assert await orchestrator.call("budget.list") == []
