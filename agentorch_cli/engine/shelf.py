"""What agents hold and have not begun: handed to them beyond their slots, or not taken for long.

It is what others may be given when they are idle. On a fleet whose agents begin what they get at
once it is empty, and nobody looks at it.
"""

from __future__ import annotations

from collections.abc import Iterator


class Shelf:
    """Message ids of attempts, by agent and by what they require."""

    def __init__(self) -> None:
        self.ahead: dict[str, dict[str, None]] = {}
        """By agent, what it was handed beyond its slots; what it begins first comes first."""
        self._by_demand: dict[frozenset[str], dict[str, str]] = {}
        """Agents by message id."""
        self._demands: dict[str, frozenset[str]] = {}

    def __len__(self) -> int:
        return len(self._demands)

    def __contains__(self, message_id: str) -> bool:
        return message_id in self._demands

    def put(self, message_id: str, agent_id: str, required: frozenset[str], *, is_ahead: bool) -> None:
        """The agent holds this attempt and has not begun it."""
        if is_ahead:
            self.ahead.setdefault(agent_id, {})[message_id] = None
        self._demands[message_id] = required
        self._by_demand.setdefault(required, {})[message_id] = agent_id

    def take(self, message_id: str) -> None:
        """It has been begun, or is not live any more."""
        required = self._demands.pop(message_id, None)
        if required is None:
            return
        agent_id = self._by_demand[required].pop(message_id)
        if not self._by_demand[required]:
            del self._by_demand[required]
        ahead = self.ahead.get(agent_id)
        if ahead is not None:
            ahead.pop(message_id, None)
            if not ahead:
                del self.ahead[agent_id]

    def demand_of(self, message_id: str) -> frozenset[str] | None:
        """The capabilities that it requires; None where it is not here."""
        return self._demands.get(message_id)

    def is_ahead(self, message_id: str, agent_id: str) -> bool:
        """Whether the agent holds it beyond its slots; else it has a slot for it."""
        return message_id in self.ahead.get(agent_id, ())

    def fit_for(self, agent_id: str, capabilities: frozenset[str], *, ahead_only: bool) -> Iterator[str]:
        """What others hold and this agent could do; `ahead_only`: beyond their slots."""
        for required, attempts in self._by_demand.items():
            if required <= capabilities:
                for message_id, holder in attempts.items():
                    if holder != agent_id and (not ahead_only or self.is_ahead(message_id, holder)):
                        yield message_id
