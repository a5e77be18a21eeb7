"""Why a task waits, from the tables alone: with a running engine or without one.

Fleet and ready tasks are read and put into a roster and a backlog like the scheduler's, and
its own rules are asked (`core/why.py`). What a task waits for is followed until something is found that
moves, or that nobody can move.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from shlex import quote
from typing import Any

import asyncpg
import orjson

from agentorch_cli.core.backlog import Backlog, Ready
from agentorch_cli.core.durations import span
from agentorch_cli.core.hints import did_you_mean
from agentorch_cli.core.limits import LimitGates
from agentorch_cli.core.matching import Member, Roster, Want
from agentorch_cli.core.model import DEFAULT_POOL, FINAL, AgentStatus, lease_of
from agentorch_cli.core.purses import OpenPurses
from agentorch_cli.core.scoring import counted_performance
from agentorch_cli.core.team import advice
from agentorch_cli.core.why import (
    Known,
    Standing,
    excluded_in_words,
    set_aside_in_words,
    standing,
)
from agentorch_cli.store.budgets import Ledger, read_labels
from agentorch_cli.store.limits import buckets_of, owners_of
from agentorch_cli.store.names import no_such
from agentorch_cli.store.store import Store

WINDOW = 5_000
"""Ready tasks that are looked at, as many as the scheduler holds."""

DEEPEST = 50
"""Links of a chain that are followed; what lies behind them is said to be there."""

WIDEST = 5
"""Dependencies of one task that are told; the others are counted."""

MOST_EXPLAINED = 10
"""Tasks whose wait is explained at once: each costs a walk over all that is ready."""

NO_SERVE = "no serve is running; start one with: agentorch serve"

IDLE_SECONDS = 5.0
"""Ready work and a free slot may be side by side for so long before it is an alarm."""


@dataclass(slots=True)
class Link:
    """One reason, and how long it has held."""

    task_id: str
    code: str
    """`dependency`, `running`, `queued`, `away`, `sub_task`, `slot`, `delayed`, `no_serve`, `limit`, `key`,
    `rate`, `declined` (by everybody), `coverage` (how to ask), `cut` (the chain goes on, and is not
    followed), …"""
    sentence: str
    seconds: float | None = None
    depth: int = 0
    agents: dict[str, str | None] = field(default_factory=dict)
    """Agent by agent, why not."""


@dataclass(slots=True)
class Why:
    """The chain."""

    task_id: str
    status: str
    is_clear: bool
    """Nothing stands in the way: it runs, it is over, or the next step of the scheduler assigns it."""
    links: list[Link]
    names: dict[str, str] = field(default_factory=dict)
    """What the tasks that were looked at are called, by id; without those that have no name."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The fleet and the ready tasks of one pool, to be put into rosters and backlogs, each used up once."""

    pool: str
    agents: Sequence[asyncpg.Record]
    ready: Sequence[Ready]
    live_nodes: int
    """That serve any pool."""
    live_here: int
    """That serve this one."""
    most_running: int
    running: int
    no_node_s: float | None
    none_here_s: float | None
    rates: Sequence[asyncpg.Record]
    keys: Sequence[asyncpg.Record]
    labels: frozenset[str]
    budgets: Sequence[asyncpg.Record]

    def gates(self) -> LimitGates:
        """The limits that tasks share, as the leader would read them."""
        gates = LimitGates(OpenPurses(self.labels, Ledger(self.budgets)))
        gates.set_rates(buckets_of(self.rates, 0.0))
        gates.keys.replace((), owners_of(self.keys))
        return gates

    def capabilities(self) -> dict[str, frozenset[str]]:
        """What each registered agent of the pool can do."""
        return {
            row["agent_id"]: frozenset(row["capabilities"]) for row in self.agents if row["pool"] == self.pool
        }

    @property
    def room(self) -> int:
        return max(0, self.most_running - self.running) if self.most_running else 10**9

    def roster(self) -> Roster:
        """As the leader would read it."""
        roster = Roster(pool=self.pool)
        rows = self.agents
        for row in rows:
            excluded, probe_slot = _exclusion(row)
            roster.put(
                Member(
                    agent_id=row["agent_id"],
                    type=row["agent_type"],
                    capabilities=frozenset(row["capabilities"]),
                    slots=row["slots"],
                    status=AgentStatus(row["status"]) if row["node_id"] else AgentStatus.OFFLINE,
                    node_id=row["node_id"],
                    pool=row["pool"],
                    performance=counted_performance(row["completed"], row["failed"]),
                    completed=row["completed"],
                    failed=row["failed"],
                    used=set(row["used_slots"]),
                    exclusions={} if excluded is None else {"breaker": excluded},
                    is_probing=row["excluded_until"] is not None and excluded is None,
                    probe_slot=probe_slot,
                )
            )
        self.gates().rates.bound_all(roster)  # or an agent beyond its rate would seem to be free
        return roster

    def backlog(self) -> Backlog:
        backlog, gates = Backlog(), self.gates()
        for task in self.ready:
            gates.place(task)
            backlog.put(task)
        return backlog

    def known(self) -> dict[str, Known]:
        return {
            row["agent_id"]: Known(
                row["away_s"],
                tuple(zip(row["tasks"], row["since"], strict=True))[: row["slots"]],
                _set_aside(row),
            )
            for row in self.agents
        }

    def standing(self, task_id: str) -> Standing:
        return standing(
            self.backlog(),
            self.roster(),
            task_id,
            room=self.room if self.live_here else 0,
            gates=self.gates(),
            known=self.known(),
        )


def _exclusion(row: asyncpg.Record) -> tuple[str | None, int | None]:
    """Why the breaker keeps an agent from work, and the slot of the task that it is probed with."""
    until, now = row["excluded_until"], row["now"]
    if until is None:
        return None, None
    if until > now:
        return excluded_in_words(until, row["excluded_reason"], now), None
    probed = (now - until).total_seconds()
    slots = zip(row["used_slots"], row["since"], strict=True)
    return None, min((slot for slot, seconds in slots if seconds <= probed), default=None)


def _set_aside(row: asyncpg.Record) -> str | None:
    """What a person decided about an agent, in words."""
    status = AgentStatus(row["status"])
    if status not in (AgentStatus.PAUSED, AgentStatus.DRAINING):
        return None
    return set_aside_in_words(
        status, row["status_since"], row["status_until"], row["status_reason"], row["now"]
    )


async def read_fleet(store: Store, pool: str, task_ids: Sequence[str] = ()) -> Fleet:
    """The fleet and the ready tasks of a pool, these among them wherever they stand."""
    limits = await store.db.fetch_one("why_limits", pool, lease_of(pool))
    agents = await store.db.fetch("why_agents")
    ready = {task.task_id: task for task in await store.ready_tasks(WINDOW, pool)}
    if further := [task_id for task_id in task_ids if task_id not in ready]:
        ready |= {task.task_id: task for task in await store.ready_tasks_by_id(further, pool)}
    rates = await store.db.fetch("limits")
    keys = await store.db.fetch("key_owners", None)
    labels, _ = await read_labels(store.db)
    on_budgets = [
        one.task_id for one in ready.values() if one.options.keys() & {"budget", "funded_by", "labels"}
    ]
    budgets = await store.db.fetch("budgets_of_tasks", on_budgets) if on_budgets else []
    assert limits is not None
    return Fleet(
        pool,
        agents,
        list(ready.values()),
        limits["live_nodes"],
        limits["live_here"],
        limits["most_running"] or 0,
        limits["running"],
        limits["no_node_s"],
        limits["none_here_s"],
        rates,
        keys,
        labels,
        budgets,
    )


async def why(store: Store, task_id: str, *, grace: float) -> Why:
    """The chain of reasons for which a task is not over yet. Raises NotFound.

    `grace`: seconds for which an agent that went away may come back to what it holds.
    """
    teller = _Teller(store, grace)
    links = await teller.follow(task_id)
    row = teller.rows[task_id]
    clear = row["status"] in FINAL or all(link.code in _MOVING for link in links)
    names = {one: told["name"] for one, told in teller.rows.items() if told["name"]}
    return Why(task_id, row["status"], clear, links, names)


_MOVING = frozenset({"over", "running", "queued", "sent", "clear"})


class _Teller:
    """Reads level by level, and tells each task once."""

    def __init__(self, store: Store, grace: float) -> None:
        self.store = store
        self.grace = grace
        self.rows: dict[str, asyncpg.Record] = {}
        self.attempts: dict[str, list[asyncpg.Record]] = {}
        self._fleets: dict[str, Fleet] = {}
        """By pool."""

    async def follow(self, task_id: str) -> list[Link]:
        await self._read([task_id])
        if task_id not in self.rows:
            raise await no_such(self.store.db, "task", task_id)
        links: list[Link] = []
        told: set[str] = set()
        todo = [(task_id, 0)]
        while todo:
            current, depth = todo.pop(0)
            if current in told:
                continue
            told.add(current)
            own, further = await self._tell(current)
            if depth == DEEPEST and (untold := [one for one in further if one not in told]):
                own.append(Link(current, "cut", _cut(task_id, untold[0])))
            if depth == DEEPEST:
                further = []
            for link in own:
                link.depth = depth
            links += own
            todo = [(one, depth + 1) for one in further] + todo
        return links

    async def _read(self, ids: Sequence[str]) -> None:
        unread = [one for one in ids if one not in self.rows]
        if unread:
            for row in await self.store.db.fetch("why_tasks", unread):
                self.rows[row["task_id"]] = row
            for row in await self.store.db.fetch("why_attempts", unread):
                self.attempts.setdefault(row["task_id"], []).append(row)

    async def _tell(self, task_id: str) -> tuple[list[Link], list[str]]:
        row = self.rows[task_id]
        if row["status"] in FINAL:
            reason = (orjson.loads(row["error"]) if row["error"] else {}).get("message")
            sentence = f"is {row['status']}" + (f": {reason}" if reason else "")
            return [Link(task_id, "over", sentence, row["ended_s"])], []
        match row["status"]:
            case "blocked":
                return await self._tell_blocked(row)
            case "running":
                links, further = await self._tell_running(row)
                if row["wanted"] and not row["is_delayed"]:
                    links += await self._tell_ready(row)
                return links, further
            case _:
                return await self._tell_ready(row), []

    async def _tell_blocked(self, row: asyncpg.Record) -> tuple[list[Link], list[str]]:
        needed = list(row["depends_on"])
        await self._read(needed)
        links, further = [], []
        unmet = [
            one
            for one in needed
            if one not in self.rows or self.rows[one]["status"] not in ("completed", "skipped")
        ]
        for one in unmet[:WIDEST]:
            other = self.rows.get(one)
            if other is None:
                links.append(
                    Link(
                        row["task_id"],
                        "missing",
                        f"waits for {one}, which does not exist (yet)",
                        row["age_s"],
                    )
                )
            elif other["status"] in FINAL:
                sentence = f"waits for task {one}, which is {other['status']}"
                links.append(Link(row["task_id"], "dependency", sentence, other["ended_s"]))
            else:
                links.append(
                    Link(row["task_id"], "dependency", f"waits for task {self._called(other)}", row["age_s"])
                )
                further.append(one)
        if len(unmet) > WIDEST:
            links.append(
                Link(row["task_id"], "dependency", f"and for {len(unmet) - WIDEST:,} more", row["age_s"])
            )
        return links, further

    def _called(self, row: asyncpg.Record) -> str:
        """`B (running on agent x for 12s)`."""
        name = row["task_id"]
        live = self.attempts.get(name, [])
        if row["status"] == "running" and live:
            first = live[0]
            if first["away_s"] is not None:
                return f"{name} (given to {first['agent_id']}, which lost its connection)"
            how = "sent to" if first["accepted_s"] is None else "running on"
            how = "queued on" if first["behind"] else how
            on = ", ".join(
                f"{one['agent_id']} for {span(one['accepted_s'] or one['sent_s'])}" for one in live[:3]
            )
            return f"{name} ({how} {on})"
        return f"{name} ({row['status']})"

    async def _tell_running(self, row: asyncpg.Record) -> tuple[list[Link], list[str]]:
        links, further = [], []
        for one in self.attempts.get(row["task_id"], []):
            agent = one["agent_id"]
            if one["awaits"]:
                children = list(one["awaits"])
                await self._read(children)
                shown = ", ".join(children[:3]) + (
                    f" and {len(children) - 3} more" if len(children) > 3 else ""
                )
                slot = (
                    f"goes on beyond the slots of {agent}"
                    if one["is_lent"]
                    else f"gave its slot of {agent} back"
                    if one["is_parked"]
                    else f"holds a slot of {agent}"
                )
                links.append(
                    Link(
                        row["task_id"],
                        "sub_task",
                        f"waits for its sub-task {shown}, and {slot}",
                        one["waits_s"],
                    )
                )
                further += [child for child in children if child in self.rows]
            if one["away_s"] is not None:
                links.append(Link(row["task_id"], "away", self._away(one), one["away_s"]))
            elif one["awaits"]:
                continue
            elif one["wants_slot_s"] is not None:
                links.append(
                    Link(row["task_id"], "slot", f"waits for a slot of {agent} to go on", one["wants_slot_s"])
                )
            elif one["behind"]:
                shown = ", ".join(f"task {other}" for other in one["behind"][:3])
                more = f" and {len(one['behind']) - 3} more" if len(one["behind"]) > 3 else ""
                sentence = f"is queued behind {shown}{more} on agent {agent}"
                links.append(Link(row["task_id"], "queued", sentence, one["sent_s"]))
            elif one["status"] == "sent":
                links.append(
                    Link(
                        row["task_id"],
                        "sent",
                        f"was sent to {agent}, which has not taken it yet",
                        one["sent_s"],
                    )
                )
            else:
                progress = f", {one['progress']:.0%} done" if one["progress"] is not None else ""
                links.append(
                    Link(row["task_id"], "running", f"runs on agent {agent}{progress}", one["accepted_s"])
                )
        if links and self.attempts[row["task_id"]][0]["served_s"] is None:
            links.append(Link(row["task_id"], "no_serve", NO_SERVE))
        return links, further

    def _away(self, one: asyncpg.Record) -> str:
        """The grace begins anew with a `serve` that was not there when the connection was lost."""
        what = f"was given to agent {one['agent_id']}, which lost its connection"
        if one["served_s"] is None:
            return what
        left = self.grace - min(one["away_s"], one["served_s"])
        if one["left_s"] is not None:
            left = min(left, one["left_s"])
        when = f"in {span(left)} unless it returns" if left > 0 else "about now"
        return f"{what}: taken back from it {when}"

    async def _tell_ready(self, row: asyncpg.Record) -> list[Link]:
        task_id, due = row["task_id"], row["due_in_s"]
        if row["is_delayed"] and due is not None and due > 0:
            again = row["failures"] or row["restarts"]
            what = f"retry {row['failures'] or row['restarts']} is due" if again else "is to start"
            return [Link(task_id, "delayed", f"{what} in {span(due)}", None)]
        fleet = self._fleets.get(row["pool"])
        if fleet is None or not any(one.task_id == task_id for one in fleet.ready):
            fleet = self._fleets[row["pool"]] = await read_fleet(self.store, row["pool"], [task_id])
        waited = max(0.0, -(due or 0.0))
        links: list[Link] = []
        if not fleet.live_nodes:
            links.append(Link(task_id, "no_serve", NO_SERVE, fleet.no_node_s))
        elif not fleet.live_here:
            links.append(Link(task_id, "no_serve", nobody_schedules(fleet.pool), fleet.none_here_s))
        if not any(one.task_id == task_id for one in fleet.ready):
            return links or [Link(task_id, "clear", "has just moved on; ask again", None)]
        return links + _told(task_id, fleet, waited)


def _cut(task_id: str, following: str) -> str:
    """That a chain is not followed to its end, and what shows the rest."""
    return (
        f"is the last that is told, for a chain is followed for {DEEPEST} links:"
        f" agentorch task why {quote(following)} goes on from there,"
        f" agentorch task graph {quote(task_id)} shows all"
    )


def in_pool(pool: str) -> str:
    """` in pool gpu`; nothing of the pool where everything is that names none."""
    return "" if pool == DEFAULT_POOL else f" in pool {pool}"


def nobody_schedules(pool: str) -> str:
    """That no node serves a pool, and how one would."""
    how = "agentorch serve" if pool == DEFAULT_POOL else f"agentorch serve --pool {quote(pool)}"
    return f"no serve schedules pool {pool}: {how}"


def _told(task_id: str, fleet: Fleet, waited: float) -> list[Link]:
    stands = fleet.standing(task_id)
    if stands.is_clear:
        return [Link(task_id, "clear", "nothing stands in the way: it is about to be assigned", waited)]
    task = next(one for one in fleet.ready if one.task_id == task_id)
    links = []
    if fleet.live_here and fleet.room <= 0:
        links.append(
            Link(
                task_id,
                "limit",
                f"engine.max_concurrent_tasks is reached: {fleet.running} running",
                waited,
            )
        )
    elif stands.is_full and fleet.live_here:
        links.append(Link(task_id, "limit", "those ahead use up engine.max_concurrent_tasks", waited))
    if stands.gate is not None:
        links.append(Link(task_id, stands.gate[0].partition(":")[0], stands.gate[1], waited))
    free = sum(reason is None for reason in stands.reasons.values())
    if free < task.want.number:
        needs = " and ".join(sorted(task.want.required)) or "nothing special"
        who = f"{task.want.number} agents at once" if task.want.number > 1 else "an agent"
        found = f", {free} would be free" if task.want.number > 1 else ""
        if task.want.is_team:
            who, found = _team_in_words(task.want), ""
        if not stands.reasons:
            found = ": there is no agent"
        links.append(
            Link(task_id, "agents", f"wants {who} with {needs}{found}", waited, 0, dict(stands.reasons))
        )
        if stands.is_declined_by_all:
            again = f"agentorch task retry {quote(task_id)} asks them again"
            sentence = f"everybody who could do it has declined it: {again}"
            links.append(Link(task_id, "declined", sentence, waited))
        how = None if task.want.is_team else advice(task.want.required, fleet.capabilities())
        if how is not None:
            links.append(Link(task_id, "coverage", how, waited))
    if stands.ahead:
        higher = (
            f", {stands.ahead_by_priority:,} of them of higher priority" if stands.ahead_by_priority else ""
        )
        links.append(
            Link(
                task_id,
                "ahead",
                f"{stands.ahead:,} ready task{'s are' if stands.ahead > 1 else ' is'} ahead of it{higher}",
                waited,
            )
        )
    return links


async def why_unstarted(store: Store, task_ids: Sequence[str]) -> dict[str, str]:
    """In a sentence, what the first of these ready tasks wait for; the fleet is read once for each pool.

    Each is walked for by itself, so only `MOST_EXPLAINED` are.
    """
    asked = list(task_ids)[:MOST_EXPLAINED]
    if not asked:
        return {}
    pools: dict[str, list[str]] = {}
    for row in await store.db.fetch("why_tasks", asked):
        pools.setdefault(row["pool"], []).append(row["task_id"])
    told = {}
    for pool, task_ids in pools.items():
        fleet = await read_fleet(store, pool, task_ids)
        ready = {task.task_id for task in fleet.ready}
        for task_id in ready.intersection(task_ids):
            links = _told(task_id, fleet, 0.0)
            told[task_id] = "; ".join(link.sentence + _who(link.agents) for link in links)
    return told


def _who(agents: Mapping[str, str | None]) -> str:
    """` (a is offline, b lacks the capability `x`)`, of the first few that cannot."""
    obstacles = [f"{agent} {reason}" for agent, reason in agents.items() if reason]
    more = f", and {len(obstacles) - WIDEST} more" if len(obstacles) > WIDEST else ""
    return f" ({', '.join(obstacles[:WIDEST])}{more})" if obstacles else ""


def _team_in_words(want: Want) -> str:
    """`a team of 2 to 3`."""
    if want.number > 1 or want.most < len(want.required):
        size = f"{want.number} to {want.most}" if want.number < want.most else f"{want.most}"
        return f"a team of {size}"
    return "a team"


async def registered(store: Store) -> dict[str, dict[str, frozenset[str]]]:
    """By pool, what each registered agent can do, online or not."""
    fleets: dict[str, dict[str, frozenset[str]]] = {}
    for row in await store.db.fetch("why_agents"):
        fleets.setdefault(row["pool"], {})[row["agent_id"]] = frozenset(row["capabilities"])
    return fleets


def who_could(
    fleet: Mapping[str, frozenset[str]], demands: Sequence[frozenset[str]]
) -> tuple[dict[frozenset[str], list[str]], dict[frozenset[str], str]]:
    """By set of capabilities: the agents of a fleet that have all, and in words what is lacking."""
    known = sorted({one for capabilities in fleet.values() for one in capabilities})
    able: dict[frozenset[str], list[str]] = {}
    lacking: dict[frozenset[str], str] = {}
    for required in set(demands):
        able[required] = sorted(one for one, capabilities in fleet.items() if required <= capabilities)
        unknown = [f"`{one}`{did_you_mean(one, known)}" for one in sorted(required) if one not in known]
        lacking[required] = (
            f"nobody has {' and '.join(unknown)}"
            if unknown
            else "no agent is registered"
            if not fleet
            else f"the others lack {' or '.join(sorted(required))}"
            if required
            else "there are no more"
        )
    return able, lacking


async def idle_beside_work(store: Store) -> list[str]:
    """Sentences about ready work and free slots that were side by side for too long: the engine's fault."""
    waiting = await store.db.fetch("ready_for", IDLE_SECONDS, WINDOW)
    if not waiting:
        return []
    waited: Mapping[str, float] = {row["task_id"]: row["waited_s"] for row in waiting}
    pairs = []
    for pool in sorted({row["pool"] for row in waiting}):
        fleet = await read_fleet(store, pool)
        if fleet.live_here and fleet.room:
            pairs += [
                (task.task_id, [seat.member.agent_id for seat in seats])
                for task, seats in fleet.backlog().match(
                    fleet.roster(), min(fleet.room, WINDOW), fleet.gates()
                )
                if task.task_id in waited
            ]
    if not pairs:
        return []
    agents = sorted({agent for _, chosen in pairs for agent in chosen})
    rows = await store.db.fetch("busy_lately", agents, IDLE_SECONDS)
    busy: set[Any] = {row["agent_id"] for row in rows}
    return [
        f"task {task} has been ready for {span(waited[task])} beside a free slot of"
        f" {', '.join(chosen)}: the engine should have assigned it"
        for task, chosen in pairs
        if not busy.intersection(chosen)
    ][:5]
