"""What stands in the way of a ready task, by the function that assigns.

`standing` walks the scheduler's own backlog on its own roster. If the walk comes to the task and finds
it agents, nothing stands in the way. Else the fleet is looked at as the walk left it: with
the slots taken by those who were served first, and with the rule that refused each agent.
So the answer cannot disagree with the scheduler: exactly where fewer agents are without an
obstacle than the task wants, it is not assigned (or a gate is closed for it, or the limit on
running work is reached).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agentorch_cli.core.backlog import Backlog, Ready
from agentorch_cli.core.gates import Gates
from agentorch_cli.core.hints import did_you_mean
from agentorch_cli.core.matching import Member, Roster
from agentorch_cli.core.model import AgentStatus

MOST_NAMED = 3
"""Names of tasks that a sentence shows."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a ready task stands."""

    is_clear: bool
    """The next step of the scheduler assigns it."""
    reasons: Mapping[str, str | None]
    """Agent by agent, what stands in the way; None for those it is given or would take."""
    ahead: int = 0
    """Ready tasks that are served before it."""
    ahead_by_priority: int = 0
    """Of these, tasks of higher priority."""
    is_full: bool = False
    """The limit on running work is reached."""
    gate: tuple[str, str] | None = None
    """A closed gate that it stands at, and why it is closed."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of an agent besides what the scheduler looks at."""

    away_seconds: float | None = None
    busy_with: tuple[tuple[str, float], ...] = ()
    """Tasks that it holds, and for how many seconds."""


@dataclass(slots=True)
class _Walk:
    served: dict[str, list[str]] = field(default_factory=dict)
    """By agent, the tasks that the walk gave it."""


def standing(
    backlog: Backlog,
    roster: Roster,
    task_id: str,
    *,
    room: int,
    known: Mapping[str, Known] | None = None,
    gates: Gates | None = None,
) -> Standing:
    """How this task of the backlog stands. Backlog, roster and gates are used up: give it copies.

    `room`: how many tasks may start. Raises KeyError where the task is not in the backlog.
    """
    task = backlog.tasks[task_id]
    before = [one for one in backlog.tasks.values() if one.order < task.order]
    by_priority = sum(one.priority > task.priority for one in before)
    walk = _Walk()
    for served, seats in backlog.match(roster, max(0, room), gates):
        if served.task_id == task_id:
            given: dict[str, str | None] = dict.fromkeys(seat.member.agent_id for seat in seats)
            others = {one: "was not the best of those free" for one in roster.members if one not in given}
            return Standing(True, {**others, **given}, len(before), by_priority)
        for seat in seats:
            walk.served.setdefault(seat.member.agent_id, []).append(served.task_id)
    reasons = backlog.explain(roster, task)
    told = {
        agent_id: None
        if reason is None
        else in_words(
            roster.members[agent_id], task, reason, (known or {}).get(agent_id), walk.served.get(agent_id)
        )
        for agent_id, reason in reasons.items()
    }
    gate = gates.closed(task, task.want.number) if gates is not None else None
    clear = sum(reason is None for reason in told.values())
    return Standing(
        False, told, len(before), by_priority, is_full=clear >= task.want.number and gate is None, gate=gate
    )


def in_words(
    member: Member, task: Ready, reason: str, known: Known | None, served: list[str] | None = None
) -> str:
    """The scheduler's reason against an agent, with what is known besides."""
    known = known or Known()
    lacking = sorted(task.want.required - member.capabilities)
    if lacking:
        named = [f"`{one}`{did_you_mean(one, member.capabilities)}" for one in lacking]
        return (
            f"lacks the capability {' and '.join(named)}" if len(named) == 1 else f"lacks {', '.join(named)}"
        )
    if member.status is not AgentStatus.ONLINE and reason == f"is {member.status}":
        away = f" for {seconds_in_words(known.away_seconds)}" if known.away_seconds is not None else ""
        return f"is {member.status}{away}"
    if reason == "failed it before":
        return "is excluded after a failure, as long as another could do it"
    if served and len(member.used) >= member.slots:
        names = ", ".join(f"task {one}" for one in served[:MOST_NAMED])
        return f"its free slot goes to {names}, which is ahead"
    if len(member.used) >= member.slots:
        what = "its only slot is" if member.slots == 1 else f"all {member.slots} slots are"
        held = [f"{one} since {seconds_in_words(since)}" for one, since in known.busy_with[:MOST_NAMED]]
        more = f" and {len(known.busy_with) - MOST_NAMED} more" if len(known.busy_with) > MOST_NAMED else ""
        return f"{what} busy with {', '.join(held)}{more}" if held else f"{what} busy"
    return reason


def seconds_in_words(seconds: float) -> str:
    """`12 s`, `3 min`, `2 h`, `4 d`."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size or (unit == "min" and seconds >= 60):
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
