"""What is drawn, whatever the form: a graph of tasks, and a timeline of attempts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

from agentorch_cli.signs import STYLES

TASK_STATES: Final = (
    "running", "failed", "pending", "blocked", "completed", "cancelled", "skipped", "planned", "unknown",
)  # fmt: skip
"""In the order in which a legend names them.

`planned` is a task of a file, `unknown` one that others wait for and that is not stored."""

WAITS: Final = frozenset({"blocked", "pending"})
"""Bars on which nobody works: waiting for other tasks, or for an agent."""


@dataclass(frozen=True, slots=True)
class GraphNode:
    """One task."""

    task_id: str
    name: str
    status: str
    agents: tuple[str, ...] = ()
    """That have it, or had it last."""
    note: str = ""
    """What else there is to say: why it failed, how far it is."""
    type: str = ""

    @property
    def state(self) -> str:
        """The status, if it is one that has a sign."""
        return self.status if self.status in STYLES else "unknown"


@dataclass(frozen=True, slots=True)
class GraphEdge:
    """`after` waits for `before`; or, as `sub_task`, was made by it."""

    before: str
    after: str
    kind: str = "depends"


@dataclass(frozen=True, slots=True)
class Graph:
    """Tasks and who waits for whom. Edges to tasks that are not among the nodes are left out."""

    nodes: tuple[GraphNode, ...]
    edges: tuple[GraphEdge, ...]
    cut: int = 0
    """Tasks that are there and not shown."""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """The graph of a `task.graph` document (GraphView, or its JSON)."""
        nodes = tuple(
            GraphNode(
                task_id=str(one["task_id"]),
                name=str(one.get("name") or one["task_id"]),
                status=str(one["status"]),
                agents=tuple(map(str, one.get("agents") or ())),
                note=str(one.get("note") or ""),
                type=str(one.get("type") or ""),
            )
            for one in document["nodes"]
        )
        edges = tuple(
            GraphEdge(str(one["before"]), str(one["after"]), str(one.get("kind") or "depends"))
            for one in document["edges"]
        )
        return cls(nodes, edges, int(document.get("cut") or 0))

    def links(self) -> list[tuple[int, int, str]]:
        """The edges as numbers of nodes, each once, with their kind."""
        number = {node.task_id: place for place, node in enumerate(self.nodes)}
        found: dict[tuple[int, int], str] = {}
        for edge in self.edges:
            before, after = number.get(edge.before), number.get(edge.after)
            if before is not None and after is not None:
                found.setdefault((before, after), edge.kind)
        return [(before, after, kind) for (before, after), kind in found.items()]

    def counts(self) -> list[tuple[str, int]]:
        """How many tasks are in each state, for a legend."""
        counted = Counter(node.state for node in self.nodes)
        return [(state, counted[state]) for state in TASK_STATES if counted[state]]


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch of time of one task: an attempt, or a wait (`blocked`, `pending`, attempt 0)."""

    task_id: str
    name: str
    agent: str
    """Empty for a wait."""
    lane: int
    """0, or more where several agents work on the task at once, as in a vote."""
    start: datetime
    end: datetime
    status: str
    attempt: int
    is_open: bool
    """It goes on: `end` is the moment at which the document was made."""
    task_status: str = ""
    """Of the whole task; empty: what its bars say."""

    @property
    def state(self) -> str:
        """The status, if it is one that has a sign."""
        return self.status if self.status in STYLES else "unknown"

    @property
    def is_wait(self) -> bool:
        """Nobody works."""
        return self.status in WAITS

    @property
    def seconds(self) -> float:
        """How long."""
        return max((self.end - self.start).total_seconds(), 0.0)


@dataclass(frozen=True, slots=True)
class Timeline:
    """When each task was worked on."""

    bars: tuple[Bar, ...]
    start: datetime
    end: datetime
    critical: tuple[str, ...] = ()
    """Ids of the chain of tasks that took the longest, first to last: what would have to be quicker."""
    cut: int = 0
    """Tasks that are there and not shown."""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """The timeline of a `task.timeline` document (TimelineView, or its JSON)."""
        bars = tuple(
            Bar(
                task_id=str(one["task_id"]),
                name=str(one.get("name") or one["task_id"]),
                agent=str(one.get("agent") or ""),
                lane=int(one.get("lane") or 0),
                start=moment(one["start"]),
                end=moment(one["end"]),
                status=str(one["status"]),
                attempt=int(one.get("attempt") or 0),
                is_open=bool(one.get("is_open")),
                task_status=str(one.get("task_status") or ""),
            )
            for one in document["bars"]
        )
        return cls(
            bars,
            moment(document["start"]),
            moment(document["end"]),
            tuple(map(str, document.get("critical") or ())),
            int(document.get("cut") or 0),
        )

    @property
    def seconds(self) -> float:
        """From the first bar to the last."""
        return max((self.end - self.start).total_seconds(), 0.0)

    @property
    def is_open(self) -> bool:
        """Something still goes on, so that the end of the picture is now."""
        return any(bar.is_open for bar in self.bars)

    def offset(self, when: datetime) -> float:
        """Seconds after the start."""
        return (when - self.start).total_seconds()

    def rows(self) -> list[list[list[Bar]]]:
        """By task, in the order of the bars, and within a task by lane."""
        tasks: dict[str, dict[int, list[Bar]]] = {}
        for bar in self.bars:
            tasks.setdefault(bar.task_id, {}).setdefault(bar.lane, []).append(bar)
        return [[lanes[lane] for lane in sorted(lanes)] for lanes in tasks.values()]


def outcome(lanes: Sequence[Sequence[Bar]]) -> str:
    """How a task stands: as it says itself, else by what goes on, or what its attempts reached."""
    bars = [bar for lane in lanes for bar in lane]
    if bars[0].task_status in STYLES:
        return bars[0].task_status
    is_open = {bar.status for bar in bars if bar.is_open}
    if is_open:
        return next((state for state in ("pending", "blocked") if state in is_open), "running")
    ended = [bar for bar in bars if not bar.is_wait]
    if any(bar.status == "completed" for bar in ended):
        return "completed"
    return max(ended or bars, key=lambda bar: (bar.end, bar.attempt)).state


def moment(value: datetime | str) -> datetime:
    """A time of a document: as it is, or from ISO 8601."""
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)
