"""What stands in the way of a ready task, by the function that assigns.

`standing` walks the scheduler's own backlog on its own roster. If the walk comes to the task and finds
it agents, nothing stands in the way. Else the fleet is looked at as the walk left it: with
the slots taken by those who were served first, and with the rule that refused each agent.
So the answer cannot disagree with the scheduler: exactly where fewer agents are without an
obstacle than the task wants, it is not assigned (or a gate is closed for it, or the limit on
running work is reached).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from agentorch_cli.core.backlog import Backlog, Ready
from agentorch_cli.core.durations import span
from agentorch_cli.core.gates import Gates
from agentorch_cli.core.hints import did_you_mean
from agentorch_cli.core.matching import Member, Roster, Want, lasting_obstacle
from agentorch_cli.core.model import AgentStatus
from agentorch_cli.core.team import can_cover, listed, missing

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
    """Ready tasks that are served before it, of those that somebody who is there could do."""
    ahead_by_priority: int = 0
    """Of these, tasks of higher priority."""
    is_full: bool = False
    """The limit on running work is reached."""
    gate: tuple[str, str] | None = None
    """A closed gate that it stands at, and why it is closed."""
    is_declined_by_all: bool = False
    """Whoever is registered and could do it has declined it."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of an agent besides what the scheduler looks at."""

    away_seconds: float | None = None
    busy_with: tuple[tuple[str, float], ...] = ()
    """Tasks that it holds, and for how many seconds."""
    set_aside: str | None = None
    """Of a paused or draining agent: `is paused since ...`, with the reason."""


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
    before = _rivals((one for one in backlog.tasks.values() if one.order < task.order), roster)
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
    if task.want.is_team:
        told |= _apart(roster, task.want, [agent_id for agent_id, reason in told.items() if reason is None])
    clear = sum(reason is None for reason in told.values())
    return Standing(
        False,
        told,
        len(before),
        by_priority,
        is_full=clear >= task.want.number and gate is None,
        gate=gate,
        is_declined_by_all=_is_declined_by_all(task.want, roster),
    )


def _rivals(tasks: Iterable[Ready], roster: Roster) -> list[Ready]:
    """Those of the tasks that somebody who is there could do: the others take no slot from anybody."""
    known: dict[Want, bool] = {}
    found = []
    for task in tasks:
        if task.want not in known:
            known[task.want] = _is_served(task.want, roster)
        if known[task.want]:
            found.append(task)
    return found


def _is_served(want: Want, roster: Roster) -> bool:
    """Whether agents who are there could do it, busy or not."""
    able = [one.capabilities for one in roster.members.values() if lasting_obstacle(one, want) is None]
    return len(able) >= want.number and (not want.is_team or can_cover(want.required, able, want.most))


def _is_declined_by_all(want: Want, roster: Roster) -> bool:
    if want.is_team or not want.declined_by:
        return False
    able = (
        one
        for one in roster.members.values()
        if one.pool == want.pool
        and want.is_served_by(one.capabilities)
        and one.agent_id not in want.closed_to
    )
    return {one.agent_id for one in able} <= want.declined_by


def _apart(roster: Roster, want: Want, free: list[str]) -> dict[str, str]:
    """Why those who are free do not make the team that is wanted; empty where they do."""
    sets = [roster.members[agent_id].capabilities for agent_id in free]
    lacking = missing(want.required, sets)
    if not lacking and len(free) >= want.number and can_cover(want.required, sets, want.most):
        return {}
    if lacking:
        verb = "is" if len(lacking) == 1 else "are"
        why = "; ".join(f"{_nobody_free(roster, want, one)}" for one in lacking)
        end = f"; {listed(lacking)} {verb} missing: {why}"
    elif len(free) < want.number:
        end = f"; {want.number} are wanted, and {len(free)} are free"
    else:
        end = f"; no team of {want.most} who are free has all"
    return {
        agent_id: f"has {listed(want.required & roster.members[agent_id].capabilities)} only{end}"
        for agent_id in free
    }


def _nobody_free(roster: Roster, want: Want, capability: str) -> str:
    """Why nobody brings this to a team."""
    having = [
        member
        for member in roster.members.values()
        if capability in member.capabilities and member.pool == want.pool
    ]
    if not having:
        return f"nobody has {capability}"
    could = [member.agent_id for member in having if lasting_obstacle(member, want) is None]
    if could:
        return f"whoever has {capability} is busy ({', '.join(sorted(could)[:MOST_NAMED])})"
    if any(member.status is AgentStatus.ONLINE for member in having):
        return f"whoever has {capability} may not take it"
    return f"nobody online has {capability}"


def in_words(
    member: Member, task: Ready, reason: str, known: Known | None, served: list[str] | None = None
) -> str:
    """The scheduler's reason against an agent, with what is known besides."""
    known = known or Known()
    if member.pool != task.want.pool:
        return reason
    lacking = sorted(task.want.required - member.capabilities)
    if lacking and not task.want.is_team:
        named = [f"`{one}`{did_you_mean(one, member.capabilities)}" for one in lacking]
        return (
            f"lacks the capability {' and '.join(named)}" if len(named) == 1 else f"lacks {', '.join(named)}"
        )
    if member.status is not AgentStatus.ONLINE and reason == f"is {member.status}":
        away = f" for {span(known.away_seconds)}" if known.away_seconds is not None else ""
        aside = f", and {known.set_aside.removeprefix('is ')}" if known.set_aside is not None else ""
        if known.set_aside is not None and known.away_seconds is None:
            return known.set_aside
        return f"is {member.status}{away}{aside}"
    if reason == member.excluded:
        return reason
    if reason == "failed it before":
        return "is excluded after a failure, as long as another could do it"
    if served and len(member.used) >= member.slots:
        names = ", ".join(f"task {one}" for one in served[:MOST_NAMED])
        return f"its free slot goes to {names}, which is ahead"
    if len(member.used) >= member.slots:
        what = "its only slot is" if member.slots == 1 else f"all {member.slots} slots are"
        held = [f"{one} for {span(since)}" for one, since in known.busy_with[:MOST_NAMED]]
        more = f" and {len(known.busy_with) - MOST_NAMED} more" if len(known.busy_with) > MOST_NAMED else ""
        return f"{what} busy with {', '.join(held)}{more}" if held else f"{what} busy"
    return reason


def set_aside_in_words(
    status: AgentStatus, since: datetime | None, until: datetime | None, reason: str | None, now: datetime
) -> str:
    """`is paused since 12:00:05 UTC, until 12:10:05 UTC: REASON`."""
    told = f"is {status}"
    if since is not None:
        told += f" since {time_in_words(since, now)}"
    if until is not None:
        told += f", until {time_in_words(until, now)}"
    return f"{told}: {reason}" if reason else told


def excluded_in_words(until: datetime, reason: str | None, now: datetime) -> str:
    """`is excluded until 12:00:05 UTC (for 4.2 s more) after REASON`; afterwards it is probed."""
    after = f" after {reason}" if reason else ""
    left = (until - now).total_seconds()
    if left <= 0:
        return f"is being probed with one task at a time since {time_in_words(until, now)}{after}"
    return f"is excluded until {time_in_words(until, now)} (for {span(left)} more){after}"


def time_in_words(when: datetime, now: datetime) -> str:
    """`12:00:05 UTC`, with the date where it is not today's."""
    when, now = when.astimezone(UTC), now.astimezone(UTC)
    return f"{when:%H:%M:%S} UTC" if when.date() == now.date() else f"{when:%Y-%m-%d %H:%M:%S} UTC"
