"""A question that the fleet votes on, and one agent's answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Question:
    """What a voter is asked; `question` is any JSON, `options` and `deadline` may be missing."""

    decision_id: str
    topic: str
    question: Any
    options: list[Any] | None
    deadline: str | None


@dataclass(frozen=True, slots=True)
class Vote:
    """A vote with how sure the voter is (0..1), or an abstention. A bare value votes as well."""

    value: Any = None
    confidence: float | None = None
    abstain: bool = False


def question_of(data: dict[str, Any]) -> Question:
    return Question(
        decision_id=data["decisionId"],
        topic=data.get("topic") or "",
        question=data.get("question"),
        options=data.get("options"),
        deadline=data.get("deadline"),
    )


def vote_frame(decision_id: str, agent_id: str, vote: Vote) -> bytes:
    """Raises TypeError when the vote is not JSON."""
    frame: dict[str, Any] = {
        "type": "consensus_vote",
        "decisionId": decision_id,
        "agentId": agent_id,
        "vote": vote.value,
    }
    if vote.confidence is not None:
        frame["confidence"] = vote.confidence
    if vote.abstain:
        frame["abstain"] = True
    return orjson.dumps(frame)
