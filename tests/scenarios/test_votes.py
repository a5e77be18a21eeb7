"""Votes over real sockets: agents that agree, disagree, crash, lie, come late, and write differently."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import pytest
from websockets.asyncio.client import ClientConnection, connect

from agentorch_cli.core.election import recount, voter_from
from agentorch_cli.store.proposals import ballot_from
from agentorch_cli.wiring import Orchestrator

Answer = Any
Answers = Callable[[dict[str, Any]], Any]
CRASH = object()
SILENT = object()


class Voters:
    """Plain agents, each with an answer of its own; they speak the protocol by hand."""

    def __init__(self, orchestrator: Orchestrator) -> None:
        self.orchestrator = orchestrator
        self.asked: list[str] = []
        self.told_off: list[str] = []
        self.work: dict[str, dict[str, Any]] = {}
        self.questions: list[dict[str, Any]] = []
        self.errors: list[dict[str, Any]] = []
        self.connections: dict[str, ClientConnection] = {}
        self._running: list[asyncio.Task[None]] = []

    async def join(
        self, name: str, answer: Any, *capabilities: str, votes: Any = None, delay: float = 0.0, **fields: Any
    ) -> None:
        """An agent that gives `answer` to every task: a value, or a function of the task's data."""
        connection = await connect(self.orchestrator.url, compression=None, proxy=None)
        self.connections[name] = connection
        await self.send(
            name,
            {
                "type": "register",
                "agentId": name,
                "agentType": "voter",
                "capabilities": list(capabilities or ("vote",)),
            }
            | fields,
        )
        assert json.loads(await connection.recv())["type"] == "registered"
        self._running.append(asyncio.create_task(self._serve(name, connection, answer, votes, delay)))

    async def send(self, name: str, frame: dict[str, Any]) -> None:
        await self.connections[name].send(json.dumps(frame))

    async def _serve(
        self, name: str, connection: ClientConnection, answer: Any, votes: Any, delay: float
    ) -> None:
        async for raw in connection:
            frame = json.loads(raw)
            if frame["type"] == "error":
                self.errors.append(frame)
            match frame.get("messageType"):
                case "execute_task":
                    self.asked.append(name)
                    self.work[name] = frame
                    await asyncio.sleep(delay)
                    found = answer(frame["data"]) if callable(answer) else answer
                    if found is CRASH:
                        connection.transport.abort()
                        return
                    if found is not SILENT:
                        await self.finish(name, found)
                case "cancel_task":
                    self.told_off.append(name)
                case "consensus_request":
                    self.questions.append(frame["data"])
                    if votes is not None:
                        decision_id = frame["data"]["decisionId"]
                        await self.send(
                            name, {"type": "consensus_vote", "decisionId": decision_id, "vote": votes}
                        )

    async def finish(self, name: str, result: Any) -> None:
        work = self.work[name]
        await self.send(
            name,
            {
                "type": "task_result",
                "messageId": work["messageId"],
                "taskId": work["data"]["taskId"],
                "result": result,
            },
        )

    async def until(self, condition: Callable[[], bool], seconds: float = 5.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        for connection in self.connections.values():
            connection.transport.abort()


@pytest.fixture
async def voters(orchestrator: Orchestrator) -> AsyncIterator[Voters]:
    one = Voters(orchestrator)
    yield one
    await one.close()


def vote(**options: Any) -> dict[str, Any]:
    return {"required_capabilities": ["vote"], "consensus": options}


async def recounted(orchestrator: Orchestrator, decision_id: str) -> Any:
    """The verdict again, from the rows of the vote alone."""
    decision = await orchestrator.call("consensus.get", decision_id=decision_id)
    rows = await orchestrator.store.db.fetch("show_ballots", [UUID(decision.decision_id)])
    ballots = [ballot_from(row) for row in rows if row["status"] != "late"]
    return recount(
        decision.options,
        [voter_from(one) for one in decision.voters],
        ballots,
        [tuple(one) for one in decision.compared],
    )


async def decided(orchestrator: Orchestrator, outcome: Any, task_id: str) -> Any:
    """The task at its end; its vote, counted again, says what was stored."""
    task = await outcome(task_id)
    verdict = await recounted(orchestrator, task.decision.decision_id)
    stored = task.decision
    if stored.decided_by not in ("deadline", "cancelled"):
        assert (verdict.status == "reached", verdict.leader, verdict.votes_used) == (
            stored.consensus_reached,
            stored.answer,
            stored.votes_used,
        )
        assert verdict.confidence == pytest.approx(stored.raw_confidence)
        assert verdict.threshold_count == stored.needed
        assert verdict.margin == pytest.approx(stored.margin)
    return task


async def test_five_agents_agree_and_the_fifth_is_never_asked(
    orchestrator: Orchestrator, voters: Voters, submit: Any, outcome: Any
) -> None:
    for number in range(5):
        await voters.join(f"v{number}", "yes")

    task = await decided(orchestrator, outcome, await submit(**vote(panel=5)))

    assert (task.status, task.result) == ("completed", "yes")
    decision = task.decision
    assert (decision.status, decision.decided_by) == ("reached", "threshold")
    assert (decision.electorate, decision.needed, decision.votes_used) == (5, 4, 4)
    assert decision.votes_not_asked == 1
    assert len(voters.asked) == 4


async def test_a_split_of_three_to_two_fails_and_says_who_dissents(
    orchestrator: Orchestrator, voters: Voters, submit: Any, outcome: Any
) -> None:
    for number in range(5):
        await voters.join(f"v{number}", "yes" if number < 3 else "no")

    task = await decided(orchestrator, outcome, await submit(**vote(panel=5)))

    assert (task.status, task.error["code"]) == ("failed", "consensus_not_reached")
    decision = task.decision
    assert (decision.status, decision.decided_by) == ("failed", "impossible")
    assert decision.counts in ({"yes": 3, "no": 2}, {'"yes"': 3, '"no"': 2}, {'"yes"': 2, '"no"': 2})
    assert [one["agent_id"] for one in decision.dissent][-2:] == ["v3", "v4"]


async def test_without_agreement_the_most_popular_answer_is_taken_and_marked(
    orchestrator: Orchestrator, voters: Voters, submit: Any, outcome: Any
) -> None:
    for number in range(5):
        await voters.join(f"v{number}", "yes" if number < 3 else "no")

    task = await decided(orchestrator, outcome, await submit(**vote(panel=5, on_no_consensus="plurality")))

    assert (task.status, task.result) == ("completed", "yes")
    decision = task.decision
    assert (decision.status, decision.consensus_reached, decision.decided_by) == (
        "failed",
        False,
        "plurality",
    )
    assert decision.final_decision == "yes"


async def test_all_different_answers_fail(
    orchestrator: Orchestrator, voters: Voters, submit: Any, outcome: Any
) -> None:
    for number in range(5):
        await voters.join(f"v{number}", {"answer": number})

    task = await decided(orchestrator, outcome, await submit(**vote(panel=5, vote_on="/answer")))

    assert task.status == "failed"
    assert max(task.decision.counts.values()) == 1


async def test_two_of_five_crash_and_the_rest_decide(
    orchestrator: Orchestrator, voters: Voters, submit: Any, outcome: Any
) -> None:
    for number in range(5):
        await voters.join(f"v{number}", CRASH if number < 2 else 7)

    task = await decided(orchestrator, outcome, await submit(**vote(panel=5)))

    assert (task.status, task.result) == ("completed", 7)
    assert task.decision.votes_used >= 2
    statuses = {one["agent_id"]: one["status"] for one in task.decision.votes}
    assert {statuses.get("v0"), statuses.get("v1")} <= {"lost", None}


async def test_when_all_crash_the_task_fails_and_says_so(
    orchestrator: Orchestrator, voters: Voters, submit: Any, outcome: Any
) -> None:
    for number in range(3):
        await voters.join(f"v{number}", CRASH)

    task = await decided(orchestrator, outcome, await submit(**vote(panel=3)))

    assert (task.status, task.decision.decided_by) == ("failed", "too_few")
    assert task.error["message"] == "no voter gave an answer"


async def test_a_liar_that_votes_twice_is_counted_once(
    orchestrator: Orchestrator, voters: Voters, submit: Any, outcome: Any
) -> None:
    await voters.join("liar", "no")
    await voters.join("one", "yes", delay=0.2)
    await voters.join("two", "yes", delay=0.2)

    task_id = await submit(**vote(panel=3, rule="unanimous", on_no_consensus="plurality"))
    await voters.until(lambda: "liar" in voters.work)
    await asyncio.sleep(0.1)
    await voters.finish("liar", "yes")
    await voters.finish("liar", "maybe")
    task = await decided(orchestrator, outcome, task_id)

    assert task.result in ("yes", "no")
    mine = [one for one in task.decision.votes if one["agent_id"] == "liar"]
    assert [one["answer"] for one in mine] == ["no"]


async def test_who_joins_after_the_vote_was_opened_has_no_vote_in_it(
    orchestrator: Orchestrator, voters: Voters, submit: Any, outcome: Any
) -> None:
    await voters.join("one", SILENT)
    await voters.join("two", SILENT)
    task_id = await submit(**vote(panel=5))
    await voters.until(lambda: len(voters.asked) >= 2)

    await voters.join("late", "no")
    await voters.finish("one", "yes")
    await voters.finish("two", "yes")
    task = await decided(orchestrator, outcome, task_id)

    assert (task.result, task.decision.electorate) == ("yes", 2)
    assert "late" not in voters.asked


async def test_a_late_ballot_is_kept_and_not_counted(
    orchestrator: Orchestrator, voters: Voters, submit: Any, outcome: Any
) -> None:
    await voters.join("v0", "yes", delay=0.1)
    await voters.join("v1", "no", delay=0.1)
    await voters.join("v2", SILENT)

    task = await decided(orchestrator, outcome, await submit(**vote(panel=3, rule="unanimous")))
    await voters.until(lambda: "v2" in voters.told_off)
    await voters.finish("v2", "yes")
    await asyncio.sleep(0.3)

    again = await orchestrator.call("consensus.get", decision_id=task.decision.decision_id)
    assert (again.status, again.votes_used) == ("failed", 2)
    assert [(one["agent_id"], one["answer"]) for one in again.late_votes] == [("v2", "yes")]


@pytest.mark.parametrize(
    ("answers", "options"),
    [
        ([18, "18.0", "$18", "18", 18.0], {"number": True}),
        ([{"a": 1, "b": [2.0, "é"]}, {"b": [2, "é"], "a": 1.0}] * 2 + [{"a": 1, "b": [2, "é"]}], {}),
        (["Yes.", " yes. ", '"YES."', "```\nyes.\n```", "yes."], {"normalize": True}),
        ([{"n": 1.0, "why": "a"}, {"n": 1, "why": "b"}, {"n": 1}, {"n": 1.0}, {"n": 1}], {"vote_on": "/n"}),
        ([10, 10.1, 9.95, 10.05, 10], {"tolerance": 0.2}),
    ],
    ids=["numbers", "key order", "normalized", "a part", "tolerance"],
)
async def test_answers_that_mean_the_same_are_the_same(
    orchestrator: Orchestrator,
    voters: Voters,
    submit: Any,
    outcome: Any,
    answers: list[Any],
    options: dict[str, Any],
) -> None:
    for number, answer in enumerate(answers):
        await voters.join(f"v{number}", answer)

    task = await decided(orchestrator, outcome, await submit(**vote(panel=5, rule="unanimous", **options)))

    assert (task.status, task.decision.consensus_reached) == ("completed", True), task.decision.counts
    assert len(task.decision.counts) == 1 or "tolerance" in options
    assert task.decision.votes_used == 5


async def test_the_wave_after_the_first_asks_only_what_the_leader_lacks(
    orchestrator: Orchestrator, voters: Voters, submit: Any, outcome: Any
) -> None:
    for number in range(5):
        await voters.join(f"v{number}", "no" if number == 0 else "yes")

    task = await decided(orchestrator, outcome, await submit(**vote(panel=5, rule="majority")))

    assert task.result == "yes"
    assert len(voters.asked) in (3, 4)
    assert task.decision.votes_not_asked == 5 - len(voters.asked)


async def test_a_voter_that_is_gone_when_it_should_be_asked_is_lost_after_the_grace(
    orchestrator: Orchestrator, voters: Voters, submit: Any, outcome: Any
) -> None:
    for name in ("a", "b", "c"):
        await voters.join(name, SILENT, "slow", slots=2)
    task_id = await submit(required_capabilities=["slow"], consensus={"panel": 3, "rule": "majority"})
    await voters.until(lambda: {"a", "b"} <= voters.work.keys())
    voters.connections["c"].transport.abort()
    await asyncio.sleep(0.1)
    await voters.finish("a", "x")
    await voters.finish("b", "y")
    task = await decided(orchestrator, outcome, task_id)

    assert task.status == "failed"
    assert task.decision.lost_agents == ["c"]


async def test_no_agreement_escalates_to_more_voters_and_then_to_a_judge(
    orchestrator: Orchestrator, voters: Voters, submit: Any, outcome: Any
) -> None:
    for number, answer in enumerate("abcab"):
        await voters.join(f"v{number}", answer)
    briefs: list[Any] = []

    def judge(data: dict[str, Any]) -> str:
        briefs.append((data["inputs"], data["task"].get("role")))
        return "the judge says c"

    await voters.join("judge-1", judge, "judging")
    options = {"panel": 3, "cap": 5, "rule": "majority", "on_no_consensus": "escalate", "judge": "judging"}

    task = await decided(orchestrator, outcome, await submit(**vote(**options)))

    assert (task.status, task.result) == ("completed", "the judge says c")
    decision = task.decision
    assert (decision.status, decision.decided_by, decision.stage) == ("failed", "judge", "judge")
    steps = [one["step"] for one in decision.escalation]
    assert steps[-2:] == ["judge", "judged"]
    assert decision.escalation[-1]["agent_id"] == "judge-1"
    inputs, role = briefs[0]
    assert role == "judge"
    assert inputs["answers"][0]["votes"] >= 1


async def test_more_voters_settle_what_the_panel_could_not(
    orchestrator: Orchestrator, voters: Voters, submit: Any, outcome: Any
) -> None:
    for number, answer in enumerate("abaaa"):
        await voters.join(f"v{number}", answer)
    options = {"panel": 2, "cap": 5, "rule": "supermajority", "threshold": 0.6, "on_no_consensus": "escalate"}

    task = await decided(orchestrator, outcome, await submit(**vote(**options)))

    assert (task.status, task.result) == ("completed", "a")
    assert task.decision.consensus_reached
    assert [one["step"] for one in task.decision.escalation] == ["voters"]


async def test_without_anybody_to_judge_the_escalation_fails_with_the_reason(
    orchestrator: Orchestrator, voters: Voters, submit: Any, outcome: Any
) -> None:
    for number, answer in enumerate("ab"):
        await voters.join(f"v{number}", answer)

    task = await decided(
        orchestrator, outcome, await submit(**vote(panel=2, rule="unanimous", on_no_consensus="escalate"))
    )

    assert task.status == "failed"
    assert "'human' is registered" in task.error["message"]


async def test_a_comparer_finds_two_wordings_equal(
    orchestrator: Orchestrator, voters: Voters, submit: Any, outcome: Any
) -> None:
    await voters.join("v0", "it is raining")
    await voters.join("v1", "rain is falling")
    await voters.join("v2", "the sun shines")

    def compare(data: dict[str, Any]) -> dict[str, bool]:
        asked = data["task"]["data"]
        return {"same": all("rain" in text for text in (asked["one"], asked["other"]))}

    await voters.join("comparer", compare, "compare_prose", slots=4)

    task = await decided(
        orchestrator, outcome, await submit(**vote(panel=3, rule="majority", comparer="compare_prose"))
    )

    assert task.status == "completed"
    assert "rain" in task.result
    assert ['"it is raining"', '"rain is falling"', True] in task.decision.compared


async def test_the_best_known_agents_are_asked_first_and_two_are_enough(
    orchestrator: Orchestrator, voters: Voters, submit: Any, outcome: Any
) -> None:
    for number in range(7):
        await voters.join(f"v{number}", "right" if number >= 4 else f"wrong {number}", slots=4)
    for _ in range(6):
        task = await outcome(await submit(**vote(rule="weighted", panel=7)))
        await orchestrator.call("outcome.say", task_id=task.task_id, answer="right", has_answer=True)
    voters.asked.clear()

    task = await decided(orchestrator, outcome, await submit(**vote(rule="weighted")))

    assert task.result == "right"
    assert task.decision.decided_by == "confidence"
    assert voters.asked[0] in ("v4", "v5", "v6")
    known = await orchestrator.call("reliability.list", capability="vote")
    best = max(known, key=lambda one: one.estimate)
    assert best.agent_id in ("v4", "v5", "v6")
    assert best.verified_trials > 0


async def test_forty_percent_colluders_lose_once_outcomes_are_known(
    orchestrator: Orchestrator, voters: Voters, submit: Any, outcome: Any
) -> None:
    """Four of ten always give the same wrong answer; every outcome of the first votes is told."""
    for number in range(10):
        is_colluder = number < 4
        await voters.join(
            f"v{number}",
            (lambda data: f"lie {data['task']['data']}")
            if is_colluder
            else (lambda data: f"truth {data['task']['data']}"),
            slots=8,
        )
    right, votes = [], []
    for number in range(40):
        task = await outcome(await submit(**vote(rule="weighted", cap=10) | {"data": number}))
        if number < 30:
            await orchestrator.call(
                "outcome.say", task_id=task.task_id, answer=f"truth {number}", has_answer=True
            )
        else:
            right.append(task.result == f"truth {number}")
            votes.append(task.decision.votes_used)

    assert all(right)
    assert sum(votes) / len(votes) <= 3.5


async def test_a_check_task_verifies_the_vote_that_it_names(
    orchestrator: Orchestrator, voters: Voters, outcome: Any
) -> None:
    for number in range(3):
        await voters.join(f"v{number}", "yes" if number else "no")
    await voters.join("checker", lambda data: {"right": data["inputs"]["question"] == "yes"}, "check")

    handles = await orchestrator.submit_all(
        [
            {"name": "question"} | vote(panel=3, rule="majority"),
            {"name": "check", "required_capabilities": ["check"], "verifies": "question"},
        ]
    )
    await outcome(handles[1].task_id)

    decision = await orchestrator.call("consensus.get", decision_id=handles[0].task_id)
    assert decision.verified is True
    known = {one.agent_id: one for one in await orchestrator.call("reliability.list", capability="vote")}
    assert known["v1"].verified_successes == 3.0
    assert known["v1"].trials == 0.0


async def test_an_outcome_said_again_replaces_the_first(
    orchestrator: Orchestrator, voters: Voters, submit: Any, outcome: Any
) -> None:
    for number in range(3):
        await voters.join(f"v{number}", "yes")
    task = await outcome(await submit(**vote(panel=3, rule="unanimous")))

    before = await orchestrator.call("reliability.list")
    await orchestrator.call("outcome.say", task_id=task.task_id, right=True)
    await orchestrator.call("outcome.say", task_id=task.task_id, right=True)
    right = await orchestrator.call("reliability.list")
    await orchestrator.call("outcome.say", task_id=task.task_id, right=False)
    wrong = await orchestrator.call("reliability.list")

    assert {one.trials for one in before} == {1.0}
    assert {(one.trials, one.verified_successes, one.verified_trials) for one in right} == {(0.0, 3.0, 3.0)}
    assert {(one.trials, one.verified_successes, one.verified_trials) for one in wrong} == {(0.0, 0.0, 3.0)}


async def test_confidence_is_calibrated_after_fifty_outcomes(
    orchestrator: Orchestrator, voters: Voters, submit: Any, outcome: Any
) -> None:
    for number in range(3):
        await voters.join(f"v{number}", "yes", slots=50)
    tasks = [await submit(**vote(panel=3, rule="majority")) for _ in range(50)]
    for number, task_id in enumerate(tasks):
        await outcome(task_id)
        learned = await orchestrator.call("outcome.say", task_id=task_id, right=number % 10 != 0)

    task = await outcome(await submit(**vote(panel=3, rule="majority")))

    assert learned.calibrated == 50
    assert task.decision.confidence_basis == "calibrated(50)"
    assert task.decision.confidence == pytest.approx(0.9, abs=0.05)
    assert task.decision.raw_confidence == 1.0


async def test_a_vote_whose_deadline_passes_is_closed_with_its_task(
    orchestrator: Orchestrator, voters: Voters, submit: Any, outcome: Any
) -> None:
    await voters.join("one", "yes")
    await voters.join("two", SILENT)

    task = await decided(
        orchestrator, outcome, await submit(**vote(panel=2, rule="unanimous") | {"deadline": "600ms"})
    )

    assert (task.status, task.error["code"]) == ("failed", "deadline_exceeded")
    assert (task.decision.status, task.decision.decided_by) == ("failed", "deadline")


async def test_a_vote_that_is_called_off_is_closed_with_its_task(
    orchestrator: Orchestrator, voters: Voters, submit: Any, outcome: Any
) -> None:
    await voters.join("one", SILENT)
    await voters.join("two", SILENT)
    task_id = await submit(**vote(panel=2))
    await voters.until(lambda: len(voters.asked) == 2)

    await orchestrator.call("task.cancel", task_ids=[task_id])

    task = await outcome(task_id)
    assert (task.status, task.decision.status, task.decision.decided_by) == (
        "cancelled",
        "failed",
        "cancelled",
    )
    await voters.until(lambda: len(voters.told_off) == 2)


async def test_a_vote_leaves_its_steps_in_the_log(
    orchestrator: Orchestrator, voters: Voters, submit: Any, outcome: Any
) -> None:
    for number in range(3):
        await voters.join(f"v{number}", "yes")

    task = await outcome(await submit(**vote(panel=3, rule="unanimous")))

    kinds = [event.kind for event in task.events if event.kind.startswith(("consensus", "ballot"))]
    assert kinds == ["consensus_opened", "ballot_cast", "ballot_cast", "ballot_cast", "consensus_decided"]


async def test_a_vote_asks_those_who_are_free_and_the_others_as_they_come_free(
    orchestrator: Orchestrator, voters: Voters, submit: Any, outcome: Any
) -> None:
    await voters.join("busy", SILENT, "vote", "other")
    await voters.join("one", "yes")
    await voters.join("two", "yes")
    other = await submit(required_capabilities=["other"])
    await voters.until(lambda: "busy" in voters.work)

    task_id = await submit(**vote(panel=3, rule="unanimous"))
    await voters.until(lambda: {"one", "two"} <= voters.work.keys())
    first = voters.work["busy"]
    await voters.finish("busy", "done")
    await outcome(other)
    await voters.until(lambda: voters.work["busy"] is not first)
    await voters.finish("busy", "yes")

    task = await decided(orchestrator, outcome, task_id)
    assert (task.result, task.decision.votes_used) == ("yes", 3)
