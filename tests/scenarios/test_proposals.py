"""Questions that agents and people vote on, over real sockets and through the operations of the program."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from test_votes import Voters

from agentorch_cli.errors import Conflict, NotAllowed, NotFound, UsageError
from agentorch_cli.wiring import Orchestrator


@pytest.fixture
async def voters(orchestrator: Orchestrator) -> AsyncIterator[Voters]:
    one = Voters(orchestrator)
    yield one
    await one.close()


async def ask(orchestrator: Orchestrator, **fields: Any) -> Any:
    options = fields.pop("options", {"rule": "majority", "options": ["yes", "no"]})
    return await orchestrator.call(
        "consensus.open", topic="deploy", question="Ship it?", options=options, **fields
    )


async def closed(orchestrator: Orchestrator, decision_id: str, seconds: float = 5.0) -> Any:
    async with asyncio.timeout(seconds):
        while True:
            decision = await orchestrator.call("consensus.get", decision_id=decision_id)
            if decision.status != "pending":
                return decision
            await asyncio.sleep(0.02)


async def test_agents_and_a_person_decide_a_question(orchestrator: Orchestrator, voters: Voters) -> None:
    await voters.join("a", None, "review", votes="yes")
    await voters.join("b", None, "review", votes="no")

    opened = await ask(orchestrator, voters=["a", "b", "ada"], opened_by="grace")
    await voters.until(lambda: len(voters.questions) == 2)
    counted = None
    async with asyncio.timeout(5):
        while (await orchestrator.call("consensus.get", decision_id=opened.decision_id)).votes_used < 2:
            await asyncio.sleep(0.02)
    counted = await orchestrator.call(
        "consensus.vote", decision_id=opened.decision_id, agent_id="ada", vote="yes"
    )

    decision = await orchestrator.call("consensus.get", decision_id=opened.decision_id)
    assert counted.is_closed
    assert (decision.status, decision.final_decision, decision.decided_by) == ("reached", "yes", "threshold")
    assert decision.counts == {'"yes"': 2, '"no"': 1}
    assert [one["agent_id"] for one in decision.dissent] == ["b"]
    question = voters.questions[0]
    assert (question["topic"], question["question"], question["options"]) == (
        "deploy",
        "Ship it?",
        ["yes", "no"],
    )


async def test_ballots_are_sealed_while_the_question_is_open(orchestrator: Orchestrator) -> None:
    opened = await ask(orchestrator, voters=["ada", "grace", "linus"])
    await orchestrator.call("consensus.vote", decision_id=opened.decision_id, agent_id="ada", vote="no")

    decision = await orchestrator.call("consensus.get", decision_id=opened.decision_id)

    assert decision.votes == [{"agent_id": "ada", "status": "answered"}]
    assert decision.counts == {}


async def test_a_second_vote_is_refused_with_the_reason(orchestrator: Orchestrator) -> None:
    opened = await ask(orchestrator, voters=["ada", "grace", "linus"])
    vote = {"decision_id": opened.decision_id, "agent_id": "ada"}
    await orchestrator.call("consensus.vote", **vote, vote="no")

    with pytest.raises(Conflict, match="ada has voted already"):
        await orchestrator.call("consensus.vote", **vote, vote="yes")


async def test_two_votes_at_the_same_moment_are_one(orchestrator: Orchestrator) -> None:
    opened = await ask(orchestrator, voters=["ada", "grace", "linus"])

    outcomes = await asyncio.gather(
        *(
            orchestrator.call("consensus.vote", decision_id=opened.decision_id, agent_id="ada", vote=vote)
            for vote in ("yes", "no")
        ),
        return_exceptions=True,
    )

    assert sorted(type(one).__name__ for one in outcomes) == ["Conflict", "VoteView"]


async def test_a_vote_after_the_close_is_refused_with_the_reason(
    orchestrator: Orchestrator, voters: Voters
) -> None:
    await voters.join("late", None, "review")
    opened = await ask(orchestrator, voters=["ada", "late", "linus"])
    for name in ("ada", "linus"):
        await orchestrator.call("consensus.vote", decision_id=opened.decision_id, agent_id=name, vote="yes")

    await voters.send("late", {"type": "consensus_vote", "decisionId": opened.decision_id, "vote": "no"})

    await voters.until(lambda: bool(voters.errors))
    assert voters.errors[0]["code"] == "conflict"
    assert "closed at" in voters.errors[0]["message"]
    assert "reached, by threshold" in voters.errors[0]["message"]


async def test_strangers_strange_answers_and_unknown_questions_are_refused(
    orchestrator: Orchestrator,
) -> None:
    opened = await ask(orchestrator, voters=["ada", "grace"])
    vote = {"decision_id": opened.decision_id}

    with pytest.raises(NotAllowed, match="eve has no vote"):
        await orchestrator.call("consensus.vote", **vote, agent_id="eve", vote="yes")
    with pytest.raises(UsageError, match="is not one of the options: yes, no"):
        await orchestrator.call("consensus.vote", **vote, agent_id="ada", vote="perhaps")
    with pytest.raises(NotFound):
        await orchestrator.call("consensus.vote", decision_id="none", agent_id="ada", vote="yes")
    with pytest.raises(UsageError, match="nobody could vote"):
        await ask(orchestrator, capability="nothing")


async def test_a_deadline_closes_with_the_votes_that_are_there(orchestrator: Orchestrator) -> None:
    opened = await ask(
        orchestrator,
        voters=["ada", "grace", "linus"],
        deadline_seconds=0.4,
        options={"rule": "plurality", "options": ["yes", "no"]},
    )
    await orchestrator.call("consensus.vote", decision_id=opened.decision_id, agent_id="ada", vote="no")

    decision = await closed(orchestrator, opened.decision_id)

    assert (decision.status, decision.final_decision, decision.decided_by) == ("reached", "no", "deadline")
    assert {one["agent_id"] for one in decision.votes if one["status"] == "lost"} == {"grace", "linus"}


async def test_a_person_closes_a_question(orchestrator: Orchestrator) -> None:
    opened = await ask(orchestrator, voters=["ada", "grace"])

    decision = await orchestrator.call("consensus.close", decision_id=opened.decision_id, closed_by="ada")

    assert (decision.status, decision.decided_by, decision.closed_by) == ("failed", "closed", "ada")
    with pytest.raises(Conflict, match="closed at"):
        await orchestrator.call("consensus.close", decision_id=opened.decision_id)


async def test_ranked_ballots_elect_the_one_that_wins_every_duel(orchestrator: Orchestrator) -> None:
    names = [f"p{number}" for number in range(5)]
    opened = await ask(
        orchestrator, voters=names, options={"rule": "schulze", "options": ["tea", "coffee", "water"]}
    )
    rankings = (
        [["tea", "water", "coffee"]] * 2 + [["coffee", "water", "tea"]] * 2 + [["water", "tea", "coffee"]]
    )
    for name, ranking in zip(names, rankings, strict=True):
        await orchestrator.call("consensus.vote", decision_id=opened.decision_id, agent_id=name, vote=ranking)

    decision = await orchestrator.call("consensus.get", decision_id=opened.decision_id)

    assert (decision.status, decision.final_decision) == ("reached", "water")


async def test_an_abstention_lowers_what_is_needed(orchestrator: Orchestrator) -> None:
    opened = await ask(orchestrator, voters=["ada", "grace", "linus"])
    vote = {"decision_id": opened.decision_id}
    await orchestrator.call("consensus.vote", **vote, agent_id="ada", abstain=True)
    await orchestrator.call("consensus.vote", **vote, agent_id="grace", vote="yes")

    counted = await orchestrator.call("consensus.vote", **vote, agent_id="linus", vote="yes")

    decision = await orchestrator.call("consensus.get", decision_id=opened.decision_id)
    assert counted.is_closed
    assert (decision.final_decision, decision.electorate, decision.needed) == ("yes", 2, 2)


async def test_an_open_question_survives_a_restart_and_is_asked_again(
    start_engine: Any, orchestrator: Orchestrator
) -> None:
    opened = await ask(orchestrator, voters=["a", "ada"])
    await orchestrator.call("consensus.vote", decision_id=opened.decision_id, agent_id="ada", vote="yes")

    second = await start_engine()
    agents = Voters(second)
    await agents.join("a", None, "review", votes="yes")
    try:
        decision = await closed(second, opened.decision_id)
    finally:
        await agents.close()

    assert (decision.status, decision.final_decision) == ("reached", "yes")
