"""A person as an agent: what is asked of them, and the ways to answer.

To the engine a person is an agent like any other. Here each task that comes, and each question
that is put to the vote, is an `Ask` that waits until somebody answers it, declines it, or the
engine takes it back. How it is shown and typed is the terminal's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from agentorch_cli.agents.agent import Agent
from agentorch_cli.agents.ballot import Question, Vote
from agentorch_cli.agents.work import GivenBack, Work, WorkFailed

HUMAN = "human"
"""The capability of people: who has it is asked where a vote escalates and no judge is named."""


class Ask:
    """One thing that a person is asked: a task, or a question of a vote."""

    def __init__(self, asked: Work | Question) -> None:
        self._asked = asked
        self.outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.came_at = datetime.now(UTC)

    @property
    def work(self) -> Work | None:
        """The task; None for a question."""
        return self._asked if isinstance(self._asked, Work) else None

    @property
    def question(self) -> Question | None:
        return self._asked if isinstance(self._asked, Question) else None

    @property
    def title(self) -> str:
        if isinstance(self._asked, Question):
            return self._asked.topic or "a question"
        return self._asked.name or self._asked.type

    @property
    def is_judge(self) -> bool:
        """Voters did not agree, and this person decides."""
        return self._vote is not None and self.work is not None and self.work.role == "judge"

    @property
    def is_vote(self) -> bool:
        """An answer among others, so that one may abstain."""
        return self.question is not None or (self._vote is not None and not self.is_judge)

    @property
    def _vote(self) -> dict[str, Any] | None:
        return self.work.vote if self.work is not None else None

    @property
    def options(self) -> list[Any] | None:
        """The answers that count; for a judge, where none are named, those that were given."""
        if isinstance(self._asked, Question):
            return self._asked.options
        options = (self._vote or {}).get("options")
        if options is None and self.is_judge:
            given = self._asked.inputs.get("answers")
            options = [one.get("answer") for one in given if isinstance(one, dict)] if given else None
        return options if isinstance(options, list) else None

    @property
    def vote_on(self) -> str:
        """The part of the answer that is voted on, as a JSON pointer."""
        return str((self._vote or {}).get("voteOn") or "")

    @property
    def schema(self) -> dict[str, Any] | bool | None:
        """What the answer has to fit."""
        return self.work.result_schema if self.work is not None else None

    @property
    def deadline(self) -> datetime | None:
        """Until when an answer is taken; None where that is not said."""
        if isinstance(self._asked, Work):
            return self._asked.deadline
        try:
            return datetime.fromisoformat(self._asked.deadline) if self._asked.deadline else None
        except ValueError:
            return None

    def to_document(self) -> dict[str, Any]:
        """The same as one JSON document."""
        if isinstance(self._asked, Work):
            return {"kind": "task", **self._asked.to_document()}
        asked = self._asked
        return {
            "kind": "question",
            "decisionId": asked.decision_id,
            "topic": asked.topic,
            "question": asked.question,
            "options": asked.options,
            "deadline": asked.deadline,
        }

    # --- answers ----------------------------------------------------------------------------

    def answer(self, value: Any) -> None:
        """This is the result, or the vote."""
        self._end(value if self.work is not None else Vote(value))

    def abstain(self) -> None:
        """A vote that counts for nothing. Only where `is_vote`."""
        self._end(None if self.work is not None else Vote(abstain=True))

    def decline(self, reason: str) -> None:
        """Somebody else shall do it. Only for a task. Nothing was used, as far as budgets go."""
        if self.work is not None:
            self.work.usage = {"inputTokens": 0, "outputTokens": 0, "costUsd": 0}
        self._fail(WorkFailed(reason or "no reason given", code="declined"))

    def fail(self, reason: str) -> None:
        """It cannot be done like this. Only for a task."""
        self._fail(WorkFailed(reason, code="failed"))

    def give_back(self) -> None:
        """The person leaves."""
        if self.work is not None:
            self._fail(GivenBack())
        else:
            self.outcome.cancel()

    def _end(self, value: Any) -> None:
        if not self.outcome.done():
            self.outcome.set_result(value)

    def _fail(self, error: Exception) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)


class Person:
    """What one person is asked at the moment, oldest first."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self._asks: list[Ask] = []
        self.on_change: Callable[[], None] = lambda: None
        """Told when something came, or is no longer asked."""
        self.gone: dict[Ask, str] = {}
        """Why asks ended without an answer of this person; whoever has told so takes them out."""
        agent.add_handler(self._do)
        agent.voter(self._vote)

    @property
    def asks(self) -> list[Ask]:
        """What waits for an answer."""
        return [ask for ask in self._asks if not ask.outcome.done()]

    def later(self, ask: Ask) -> None:
        """Put it behind the others."""
        if ask in self._asks:
            self._asks.remove(ask)
            self._asks.append(ask)

    def give_back(self) -> int:
        """Leave all of it to others; how many tasks that were."""
        held = self.asks
        for ask in held:
            ask.give_back()
        return sum(ask.work is not None for ask in held)

    async def _do(self, work: Work) -> Any:
        return await self._wait(Ask(work))

    async def _vote(self, question: Question) -> Vote:
        ask = Ask(question)
        limit = ask.deadline
        if limit is not None:
            seconds = max(0.0, (limit - datetime.now(UTC)).total_seconds())
            asyncio.get_running_loop().call_later(min(seconds, 10**6), self._too_late, ask)
        vote: Vote = await self._wait(ask)
        return vote

    def _too_late(self, ask: Ask) -> None:
        if not ask.outcome.done():
            self.gone[ask] = "its time is over"
            ask.outcome.cancel()

    async def _wait(self, ask: Ask) -> Any:
        self._asks.append(ask)
        self.on_change()
        try:
            return await ask.outcome
        except asyncio.CancelledError:
            self.gone.setdefault(ask, (ask.work.cancel_reason if ask.work is not None else None) or "")
            raise
        finally:
            self._asks.remove(ask)
            self.on_change()
