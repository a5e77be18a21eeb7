"""Asks connected agents for their vote on open questions, takes their votes, and ends what is overdue.

A question is sent when it is opened (a hint names it), and to each agent that comes in and has
not voted. Agents vote once, so asking twice is harmless, and a restart loses nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any, Protocol

from agentorch_cli.engine.state import State
from agentorch_cli.errors import DatabaseUnreachable, OrchestratorError
from agentorch_cli.identity import new_id_text
from agentorch_cli.store.proposals import cast_vote, close_proposal, waiting_for
from agentorch_cli.store.store import Store

log = logging.getLogger("agentorch.proposals")

LIMIT = 1_000


class Voter(Protocol):
    """A session that may be asked."""

    def message(self, message_id: str, message_type: str, data: dict[str, Any]) -> None: ...

    def refuse(
        self, code: str, message: str, message_id: str | None = None, request_id: str | None = None
    ) -> None: ...


class Sessions(Protocol):
    """The agents that are connected to this node."""

    def session_of(self, agent_id: str) -> Voter | None: ...

    def connected(self) -> Iterable[str]: ...


class Proposals:
    """Between the open questions in the tables and the agents of this node."""

    def __init__(self, state: State, store: Store, sessions: Sessions) -> None:
        self.state = state
        self.store = store
        self.sessions = sessions
        self._arrived: set[str] = set()
        self._opened: set[str] = set()
        self._wake = asyncio.Event()

    def arrived(self, agent_id: str) -> None:
        """An agent came in: it may be asked."""
        self._arrived.add(agent_id)
        self._wake.set()

    def opened(self, decision_id: str) -> None:
        """A question was opened; `*`: some may have been."""
        if decision_id == "*":
            self._arrived.update(self.sessions.connected())
        else:
            self._opened.add(decision_id)
        self._wake.set()

    async def run(self) -> None:
        """For ever: ask."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            arrived, self._arrived = self._arrived, set()
            opened, self._opened = self._opened, set()
            try:
                await self._ask(sorted(arrived), None)
                for decision_id in sorted(opened):
                    await self._ask(sorted(self.sessions.connected()), decision_id)
            except DatabaseUnreachable:
                self._arrived |= arrived
                self._opened |= opened
                await asyncio.sleep(0.3)
                self._wake.set()
            except Exception:
                log.exception("open questions could not be asked")

    async def _ask(self, agents: list[str], decision_id: str | None) -> None:
        if not agents:
            return
        for _, unheard, data in await waiting_for(self.store, agents, decision_id):
            for agent_id in unheard:
                session = self.sessions.session_of(agent_id)
                if session is not None:
                    session.message(new_id_text(), "consensus_request", data)

    async def take(self, session: Any, frame: Any) -> None:
        """A vote from the wire. Raises what the operation raises: the session tells its agent."""
        counted = await cast_vote(
            self.store,
            frame.decision_id,
            session.agent_id,
            frame.vote,
            confidence=frame.confidence,
            abstain=frame.abstain,
        )
        self.state.bus.publish("ballot_cast", agent_id=session.agent_id, decision_id=frame.decision_id)
        if counted.is_closed:
            self.state.bus.publish("consensus_decided", decision_id=frame.decision_id)

    async def close_overdue(self) -> None:
        """End questions whose deadline has passed; the leader calls this."""
        for row in await self.store.db.fetch("overdue_proposals", LIMIT):
            try:
                await close_proposal(self.store, row["decision_id"], decided_by="deadline")
            except DatabaseUnreachable:
                raise
            except OrchestratorError as error:
                log.info("question %s was closed meanwhile: %s", row["decision_id"], error)
