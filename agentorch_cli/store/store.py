"""The hot half of the store: what the engine does to tasks and attempts, batch by batch.

Each method is one round trip (or one transaction where several tasks must be seen under
lock). All of them are safe to call twice: they are guarded by the state that was seen.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import orjson

from agentorch_cli.core.backlog import FIRST, Order, Ready
from agentorch_cli.core.election import Stage, judge_of
from agentorch_cli.core.limits import KEY, RATE, Scope, key_of
from agentorch_cli.core.matching import Want
from agentorch_cli.core.model import DEFAULT_POOL, Aggregate, AttemptStatus, Coverage, TaskStatus
from agentorch_cli.core.settle import MOST_BACKOFF
from agentorch_cli.core.team import share_of, unfit
from agentorch_cli.store.database import Database, Transaction
from agentorch_cli.store.literals import array_literal, column, plain_column, text_column
from agentorch_cli.store.records import (
    Assignment,
    AttemptRow,
    Claimed,
    Delivery,
    Ended,
    Ending,
    LockedTask,
    Row,
    Unlocked,
)

MOST_HINTED = 7_800
"""A notification carries at most 7,999 bytes; longer lists of ids become `*`: look for yourself."""


DELAYED = "\t"
"""Stands among the ids of a hint for those that are ready later. No id has control characters."""


POOL = "\x1d"
"""Stands before each of the pools that the ids of a hint are of, in its last line. To a node of an older
version that is an id that no task has."""

MOST_POOLS = 10
"""That a hint names."""


WHOLE = "\x1e"
"""Begins the hint of a single task that holds its row, so that whoever assigns it need not read it."""


def whole(row: dict[str, Any]) -> str:
    """The payload that tells listeners of a ready task with its row, as far as the submitter knows it; the
    statement that stores it adds urgency and number. Empty where it is too long."""
    text = f"{WHOLE}{orjson.dumps(row).decode()}\n"
    return text if len(text.encode()) <= MOST_HINTED else ""


def row_in(payload: str) -> dict[str, Any]:
    """The row in such a hint, as `ready_tasks` answers it. Raises ValueError."""
    text, _, place = payload[len(WHOLE) :].rpartition("\n")
    urgency, _, seq = place.partition(" ")
    return {**_NEW, **orjson.loads(text), "urgency": int(urgency), "seq": int(seq)}


_NEW: dict[str, Any] = {
    "status": "pending",
    "attempts_made": 0,
    "failures": 0,
    "losses": 0,
    "tried_agents": [],
    "assigned_agents": [],
    "declined_by": None,
    "deadline": None,
}
"""Of a task that was just submitted."""


def hint(ids: Sequence[str], *, delayed: bool = False, pools: Collection[str] = ()) -> str:
    """The payload that tells listeners which ids are worth a look; `pools`: those that all of them are of."""
    lines = [*ids, DELAYED] if delayed else list(ids)
    if lines and 0 < len(pools) <= MOST_POOLS:
        lines.append(POOL + POOL.join(pools))
    text = "\n".join(lines)
    return text if len(text.encode()) <= MOST_HINTED else "*"


class Hinted(NamedTuple):
    """What such a payload says."""

    ids: list[str]
    delayed: bool
    pools: Collection[str]
    """Those that all of it is of; none where it does not say."""

    def concerns(self, pool: str) -> bool:
        return not self.pools or pool in self.pools


def hinted_in(payload: str) -> Hinted:
    """What a hint of ready tasks says that is not `*`."""
    ids = payload.split("\n")
    pools = ids.pop()[1:].split(POOL) if ids[-1].startswith(POOL) else ()
    delayed = bool(ids) and ids[-1] == DELAYED
    return Hinted(ids[:-1] if delayed else ids, delayed, pools)


def hints(lines: Iterable[str], most_bytes: int = MOST_HINTED) -> Iterator[str]:
    """The lines joined, in as many payloads as they need."""
    piece: list[str] = []
    size = 0
    for line in lines:
        length = len(line.encode()) + 1
        if piece and size + length > most_bytes:
            yield "\n".join(piece)
            piece, size = [], 0
        piece.append(line)
        size += length
    if piece:
        yield "\n".join(piece)


def freed_line(message_id: str, mark: str) -> str:
    """What is told of a slot that comes free: which attempt had it, and what became of that."""
    return f"{message_id} {mark}"


Fleets = dict[str, dict[str, frozenset[str]]]
"""By pool and agent, what agents can do: of agents that can do the same, one."""

FLEETS_TRUE_SECONDS = 1.0
"""For so long what was read of that is taken for true where it says that somebody can do something."""


class Store:
    """The engine's view of the database."""

    def __init__(
        self, database: Database, *, aging_seconds: float = 60.0, half_life_seconds: float = 7 * 86400.0
    ) -> None:
        self.db = database
        self.aging_seconds = aging_seconds
        self.half_life_seconds = half_life_seconds
        """After this what the ledger says of an agent counts half."""
        self.typical: dict[str, tuple[float, float | None]] = {}
        """By type of task, on the loop's clock until when it is taken for true, how many seconds such a task
        takes; None where that is not known."""
        self._fleets: tuple[float, Fleets] = (0.0, {})
        """Until when it is taken for true, on the loop's clock."""
        self.sick: dict[str, str] = {}
        """Ready tasks whose rows do not say what they should, with the reason; the scheduler ends them."""

    @property
    def node_id(self) -> str:
        return self.db.node_id

    async def fleets(self, *, anew: bool = False) -> tuple[Fleets, bool]:
        """What registered agents can do, and whether that was read just now: it may be a second old else."""
        now = asyncio.get_running_loop().time()
        until, fleets = self._fleets
        if now < until and not anew:
            return fleets, False
        fleets = {}
        for row in await self.db.fetch("capability_sets"):
            fleets.setdefault(row["pool"], {})[row["agent_id"]] = frozenset(row["capabilities"])
        self._fleets = now + FLEETS_TRUE_SECONDS, fleets
        return fleets, True

    # --- the scheduler ----------------------------------------------------------------------

    async def ready_tasks(
        self, limit: int, pool: str = DEFAULT_POOL, *, behind: Order = FIRST
    ) -> list[Ready]:
        """The next tasks of a pool that want agents, in the order of service, behind this place in it."""
        urgency, path, seq = behind
        return await self._ready(await self.db.hot("ready_tasks", limit, pool, urgency, -path, seq))

    async def ready_tasks_by_id(self, ids: Sequence[str], pool: str = DEFAULT_POOL) -> list[Ready]:
        """Those of these tasks that are of the pool and want agents."""
        return await self._ready(await self.db.hot("ready_tasks_by_id", list(ids), pool))

    async def ready_among(self, rows: Iterable[Row], pool: str = DEFAULT_POOL) -> list[Ready]:
        """Those of the pool among rows that a statement answered, or a hint held."""
        return await self._ready([row for row in rows if row["pool"] == pool])

    async def ready_tasks_for(
        self, capabilities: Sequence[str], limit: int, shut: Sequence[str] = (), pool: str = DEFAULT_POOL
    ) -> list[Ready]:
        """The next tasks of a pool that an agent with these capabilities could do, but for those behind
        these gates."""
        behind: dict[str, list[str]] = {}
        for name in shut:
            kind, _, rest = name.partition(":")
            if kind == RATE:
                kind, _, rest = rest.partition(":")
            behind.setdefault(kind, []).append(rest)
        rows = await self.db.hot(
            "ready_tasks_for",
            list(capabilities),
            limit,
            behind.get(KEY, []),
            behind.get(Scope.TYPE, []),
            behind.get(Scope.CAPABILITY, []),
            pool,
        )
        return await self._ready(rows)

    async def _ready(self, rows: Sequence[Row]) -> list[Ready]:
        tasks = []
        for row in rows:
            try:
                tasks.append(_ready_of(row))
            except (TypeError, ValueError, AttributeError) as error:
                self.sick[row["task_id"]] = str(error)
        begun = [task for task in tasks if task.want.is_team and task.attempts_made]
        if begun:
            rows = await self.db.fetch("team_members", [task.task_id for task in begun])
            members = {row["task_id"]: row for row in rows}
            for task in begun:
                if task.task_id in members:
                    _complete_team(task, members[task.task_id])
        votes = [task for task in tasks if "consensus" in task.options]
        if votes:
            found = await self.db.fetch("electorates", [task.task_id for task in votes])
            open_votes = {row["task_id"]: row for row in found}
            for task in votes:
                if task.task_id in open_votes:
                    _seat_voters(task, open_votes[task.task_id])
        return tasks

    async def release_delayed(self, pool: str = DEFAULT_POOL) -> tuple[int, float | None]:
        """Make tasks of a pool ready whose time has come; how many, and seconds until the next."""
        row = (await self.db.hot("release_delayed", pool))[0]
        return row["released"], row["next_seconds"]

    async def assign(self, batch: Sequence[Assignment]) -> dict[str, Claimed]:
        """Commit assignments; those of tasks that had moved on are not in the answer.

        Raises asyncpg.UniqueViolationError where another scheduler took a slot: look again.
        """
        return _claimed(await self.db.hot("assign_batch", *_columns(batch)))

    async def movable(
        self, message_ids: Sequence[str], agent_ids: Sequence[str], limit: int, pool: str = DEFAULT_POOL
    ) -> list[tuple[str, str, float, Ready]]:
        """Work of a pool that its agents have not accepted, in the order of service.

        Of each: message id, agent, seconds since it was sent, and its task as if it were ready again.
        """
        rows = await self.db.fetch("movable_attempts", list(message_ids), list(agent_ids), limit, pool)
        found = []
        for row in rows:
            with contextlib.suppress(TypeError, ValueError, AttributeError):
                found.append((str(row["message_id"]), row["agent_id"], row["sent_s"], _ready_of(row)))
        return found

    async def straggling(self, message_ids: Sequence[str]) -> list[tuple[str, float, Ready]]:
        """Of these attempts those that one agent works on without a backup, in the order of service.

        Of each: its agent, for how many seconds, and its task as if it wanted one more.
        """
        found = []
        for row in await self.db.fetch("straggling_attempts", list(message_ids)):
            with contextlib.suppress(TypeError, ValueError, AttributeError):
                found.append((row["agent_id"], row["seconds"], _ready_of(row)))
        return found

    async def assign_within(self, tx: Transaction, batch: Sequence[Assignment]) -> dict[str, Claimed]:
        """The same inside somebody's transaction."""
        return _claimed(await tx.fetch("assign_batch", *_columns(batch)))

    # --- the settler ------------------------------------------------------------------------

    async def settle(self, batch: Sequence[Ending]) -> dict[str, Ended]:
        """Record the ends of simple attempts and move their tasks, by message id.

        Without those that had ended before, or whose tasks had moved on.
        If all of them are stored, whoever leads is told of their slots.
        """
        rows = await self.db.hot("settle_batch", *self._endings(batch))
        return {
            batch[position - 1].message_id: Ended(status, has_dependents)
            for position, status, has_dependents in rows
        }

    async def settle_and_unlock(self, batch: Sequence[Ending]) -> tuple[dict[str, Ended], Unlocked]:
        """The same, and tell the dependents of those that completed, in one commit."""
        rows = await self.db.hot("settle_and_unlock", *self._endings(batch), self.aging_seconds)
        told = Unlocked()
        told.take(row for row in rows if row["position"] is None)
        return {
            batch[row["position"] - 1].message_id: Ended(row["status"], row["has_dependents"])
            for row in rows
            if row["position"] is not None
        }, told

    def _endings(self, batch: Sequence[Ending]) -> list[Any]:
        """Endings as the statements take them."""
        return [
            plain_column([e.message_id for e in batch]),
            array_literal([e.task_id for e in batch]),
            array_literal([e.agent_id for e in batch]),
            plain_column([e.attempt_status for e in batch]),
            plain_column([e.verdict for e in batch]),
            text_column([e.result for e in batch]),
            text_column([e.error for e in batch]),
            column([e.confidence for e in batch]),
            text_column([e.usage for e in batch]),
            plain_column([e.delay_seconds for e in batch]),
            self.node_id,
            hint([e.task_id for e in batch if e.verdict is not TaskStatus.PENDING]),
            array_literal(hints(freed_line(e.message_id, e.mark) for e in batch if e.mark is not None)),
        ]

    async def end_sick(self, task_id: str, error: str) -> asyncpg.Record | None:
        """Fail a task that cannot be handled, whatever its row says; None where it has ended already.

        `error` is JSON text. Answers has_dependents, and the agents and messages of its live attempts.
        """
        return await self.db.fetch_one("end_sick", task_id, error, self.node_id)

    async def unlock(self, ended: Iterable[tuple[str, str]]) -> Unlocked:
        """Tell the dependents of tasks that ended, (task_id, status) each, and theirs in turn."""
        good: list[str] = []
        bad: list[str] = []
        for task_id, status in ended:
            (good if status in ("completed", "skipped") else bad).append(task_id)
        told = Unlocked()
        while good or bad:
            if bad:
                doomed = bad
                while doomed:  # again: somebody may have come to wait for one of them meanwhile
                    doomed = [r[0] for r in await self.db.hot("doom_dependents", doomed, self.node_id)]
                    told.ended += [(task_id, "failed") for task_id in doomed]
                    bad += doomed
                skipped = [r[0] for r in await self.db.hot("skip_dependents", bad, self.node_id)]
                told.ended += [(task_id, "skipped") for task_id in skipped]
                good += skipped + bad  # what is left waits for them and says `run`
                bad = []
            told.take(await self.db.hot("unlock_dependents", good, self.aging_seconds))
            good = []
        if told.ended:
            await self.notify("agentorch_done", hint([task_id for task_id, _ in told.ended]))
        return told

    async def missed_endings(self, limit: int = 1000) -> list[tuple[str, str]]:
        """Ended tasks whose dependents were not told: a node died in between."""
        return [(row[0], row[1]) for row in await self.db.fetch("missed_endings", limit)]

    async def endings_of(self, task_ids: Sequence[str]) -> list[tuple[str, str]]:
        """The same among these tasks: somebody else ended them, and may have died before telling."""
        return [(row[0], row[1]) for row in await self.db.fetch("endings_of", list(task_ids))]

    async def accept(self, message_ids: Sequence[str]) -> None:
        """Agents took the work."""
        await self.db.hot("accept_attempts", plain_column(message_ids), self.node_id)

    async def note_progress(self, notes: dict[str, tuple[float | None, str | None]]) -> None:
        """The last progress of each attempt."""
        await self.db.hot(
            "note_progress",
            plain_column(notes),
            column([note[0] for note in notes.values()]),
            text_column([note[1] for note in notes.values()]),
        )

    # --- the careful path -------------------------------------------------------------------

    async def tasks_of(self, message_ids: Sequence[str]) -> dict[str, asyncpg.Record]:
        """By message id: task_id, agent_id, attempt, status."""
        rows = await self.db.fetch("tasks_of_messages", list(message_ids))
        return {str(row["message_id"]): row for row in rows}

    async def lock_tasks(self, tx: Transaction, ids: Sequence[str]) -> dict[str, LockedTask]:
        """Lock tasks, in the order of their ids."""
        return {
            row["task_id"]: LockedTask(
                task_id=row["task_id"],
                type=row["task_type"],
                status=TaskStatus(row["status"]),
                generation=row["generation"],
                min_agents=row["min_agents"],
                max_agents=row["max_agents"],
                retries=row["retries"],
                failures=row["failures"],
                losses=row["losses"],
                attempts_made=row["attempts_made"],
                tried_agents=row["tried_agents"],
                assigned_agents=row["assigned_agents"],
                has_dependents=row["has_dependents"],
                options=_options(row["options"]),
                required_capabilities=row["required_capabilities"],
                coverage=Coverage(row["coverage"]),
                is_starved=row["is_starved"],
                pool=row["pool"],
            )
            for row in await tx.fetch("lock_tasks", list(ids))
        }

    async def attempts_of(self, tx: Transaction, ids: Sequence[str]) -> dict[str, list[AttemptRow]]:
        """All attempts of tasks, oldest first."""
        found: dict[str, list[AttemptRow]] = {}
        for row in await tx.fetch("attempts_of_tasks", list(ids)):
            found.setdefault(row["task_id"], []).append(
                AttemptRow(
                    message_id=str(row["message_id"]),
                    task_id=row["task_id"],
                    agent_id=row["agent_id"],
                    attempt=row["attempt"],
                    status=AttemptStatus(row["status"]),
                    slot=row["slot"],
                    node_id=row["node_id"],
                    result=row["result"],
                    error=orjson.loads(row["error"]) if row["error"] else None,
                    confidence=row["confidence"],
                    seconds=row["seconds"],
                    role=row["role"],
                )
            )
        return found

    async def notify(self, channel: str, payload: str) -> None:
        """Send a hint."""
        if payload:
            await self.db.fetch("notify", channel, payload)

    # --- work that waits for its sub-tasks --------------------------------------------------

    async def begin_wait(self, message_id: str, task_id: str, *, park: bool) -> tuple[bool, bool] | None:
        """Note that an attempt waits for a task: whether it owns no slot, and whether it never has to again.

        None where it is not live any more.
        """
        row = await self.db.fetch_one("begin_wait", message_id, task_id, park)
        return (row["is_parked"], row["is_lent"]) if row is not None else None

    async def end_wait(self, message_id: str, task_id: str) -> tuple[bool, bool]:
        """Note that the task ended: whether the attempt now wants a slot, and whether it waits for more."""
        row = await self.db.fetch_one("end_wait", message_id, task_id)
        return (row["wants_slot"], row["is_waiting"]) if row is not None else (False, False)

    async def grant_slots(self, slots: dict[str, int]) -> set[str]:
        """Let attempts go on, each in a slot; those that do.

        Raises asyncpg.UniqueViolationError where somebody else took a slot.
        """
        rows = await self.db.fetch("grant_slots", list(slots), list(slots.values()))
        return {str(row["message_id"]) for row in rows}

    # --- held work --------------------------------------------------------------------------

    async def held_work(
        self, agent_ids: Sequence[str] = (), message_ids: Sequence[str] = ()
    ) -> list[Delivery]:
        """The live attempts of agents, or those of these ids, ready to be sent again."""
        rows = await self.db.fetch("held_work", list(agent_ids), list(message_ids))
        return [_delivery_of(row) for row in rows]

    async def adopt(self, message_ids: Sequence[str]) -> None:
        """Held work belongs to this node from now on."""
        await self.db.fetch("adopt_attempts", list(message_ids), self.node_id)


def _columns(batch: Sequence[Assignment]) -> list[Any]:
    """Assignments as the statement takes them."""
    return [
        array_literal([a.task_id for a in batch]),
        plain_column([a.seen_attempts for a in batch]),
        plain_column([a.message_id for a in batch]),
        array_literal([a.agent_id for a in batch]),
        plain_column([a.slot for a in batch]),
        text_column([a.role for a in batch]),
        plain_column([a.attempt for a in batch]),
        array_literal([a.node_id for a in batch]),
        plain_column([a.is_ahead for a in batch]),
        _agents_of_several(batch),
    ]


def _agents_of_several(batch: Sequence[Assignment]) -> str:
    """At the first seat of each task that is given several agents: all of them."""
    if len({a.task_id for a in batch}) == len(batch):
        return "{}"
    agents: dict[str, list[str]] = {}
    for a in batch:
        agents.setdefault(a.task_id, []).append(a.agent_id)
    return array_literal(
        [array_literal(agents.pop(a.task_id)) if a.task_id in agents else None for a in batch]
    )


def _claimed(rows: Sequence[asyncpg.Record]) -> dict[str, Claimed]:
    return {row[0]: Claimed(row[1], row[3], row[2], row[4], row[5], row[6]) for row in rows}


def _seat_voters(task: Ready, vote: asyncpg.Record) -> None:
    """An open vote asks its frozen voters, best first and each as it comes free; then a judge."""
    wanted = task.want.most
    if vote["stage"] == Stage.JUDGE:
        judge = frozenset({judge_of({"judge": vote["judge"]})})
        closed = task.want.closed_to | frozenset(vote["voters"])
        task.want = replace(
            task.want, required=judge, number=1, most=1, closed_to=closed, rather_not=frozenset(), only=None
        )
        task.role, task.brief = "judge", f'{{"answers":{vote["brief"] or "[]"}}}'
    else:
        voters = tuple(vote["voters"])
        task.want = replace(task.want, number=1, most=wanted, rather_not=frozenset(), only=voters)


def _complete_team(task: Ready, members: asyncpg.Record) -> None:
    """A team that has members wants others for the parts that are nobody's; who has done its part may too."""
    want = task.want
    left = want.required.difference(*map(share_of, members["roles"]))
    task.want = replace(
        want,
        required=left or want.required,  # nothing is left, but it wants to be more
        most=max(want.number, task.max_agents - len(members["busy"])),
        closed_to=frozenset(members["busy"]),
    )


_OF_READY = itemgetter(
    "task_id", "seq", "urgency", "remaining_path", "task_type", "priority", "min_agents", "max_agents",
    "attempts_made", "timeout_seconds", "retries", "failures", "losses", "has_dependents", "status",
    "required_capabilities", "deadline",
)  # fmt: skip
"""One call for what a `Ready` takes over as it stands, whether the row is a record or a dict."""

_OF_WANT = itemgetter("options", "pool", "wanted", "coverage", "tried_agents", "declined_by")


def _ready_of(row: Row) -> Ready:
    (
        task_id, seq, urgency, path, kind, priority, least, most, attempts_made, timeout_seconds, retries,
        failures, losses, has_dependents, status, required, deadline,
    ) = _OF_READY(row)  # fmt: skip
    options_text, pool, wanted, coverage, tried, declined = _OF_WANT(row)
    options = _options(options_text)
    is_vote = "consensus" in options
    is_first = status == "pending"
    is_team = coverage == _TEAM
    if is_team and unfit(required):
        raise ValueError("a capability of its team has a plus that is not at the end")
    if most == 1 and wanted == 1 and is_first and not (is_vote or is_team or tried or declined):
        want = _plain_want(kind, pool, tuple(required), _own_gates(options) if options else ())
    else:
        want = Want(
            required=frozenset(required),
            # A vote opens as soon as there are enough for a floor of voters, then it is frozen.
            number=min(wanted, least) if is_vote else wanted,
            # a task that once had a backup begins anew with one agent
            most=max(wanted, most)
            if (is_first or is_team) and not is_vote and "backed_up" not in options
            else wanted,
            closed_to=frozenset(row["assigned_agents"])
            if (most > 1 or is_vote) and not is_team
            else frozenset(),
            rather_not=frozenset(tried),
            declined_by=frozenset(declined or ()),
            type=kind,
            gates=_own_gates(options),
            is_team=is_team,
            pool=pool,
            may_wait=most == 1 and not is_vote and not is_team,
        )
    return Ready(
        task_id, seq, urgency, path, kind, priority, want, least, most, attempts_made, timeout_seconds,
        retries, failures, losses, has_dependents, options, status, required, deadline,
    )  # fmt: skip


_TEAM = Coverage.TEAM.value


@lru_cache(maxsize=1024)
def _plain_want(type: str, pool: str, required: tuple[str, ...], gates: tuple[str, ...]) -> Want:
    """What a task wants that one agent does at its first attempt: one object for all that want the same."""
    return Want(required=frozenset(required), type=type, gates=gates, pool=pool, may_wait=True)


def _own_gates(options: dict[str, Any]) -> tuple[str, ...]:
    """The gates that a task names itself."""
    if not options:
        return ()
    key, _ = key_of(options)
    return (f"{KEY}:{key}",) if key is not None else ()


def _options(text: str) -> dict[str, Any]:
    """Raises ValueError where they are not what a submission stores."""
    if text == "{}":
        return {}
    options = orjson.loads(text)
    if not isinstance(options, dict) or not isinstance(options.get("consensus", {}), dict):
        raise ValueError("its options are not what a submission stores")  # noqa: TRY004  one kind for all of them
    return options


def is_simple(max_agents: int, options: dict[str, Any]) -> bool:
    """Whether a task is settled by its one attempt alone."""
    return (
        max_agents == 1
        and "consensus" not in options
        and options.get("aggregate", Aggregate.FIRST) == Aggregate.FIRST
        and "verifies" not in options
        and "compares" not in options
    )


def _delivery_of(row: asyncpg.Record) -> Delivery:
    try:
        options = _options(row["options"])
    except ValueError:
        options = {"aggregate": None}  # whatever it brings is looked at closely, and the task ended
    return Delivery(
        message_id=str(row["message_id"]),
        task_id=row["task_id"],
        agent_id=row["agent_id"],
        attempt=row["attempt"],
        slot=row["slot"],
        role=row["role"],
        node_id=row["node_id"],
        pool=row["pool"],
        type=row["task_type"],
        priority=row["priority"],
        required_capabilities=row["required_capabilities"],
        timeout_seconds=row["timeout_seconds"],
        retries=row["retries"],
        failures=row["failures"],
        losses=row["losses"],
        backoff_seconds=options.get("backoff_seconds", 1.0),
        max_backoff_seconds=options.get("max_backoff_seconds", MOST_BACKOFF),
        has_retry_rules="retry" in options,
        is_simple=is_simple(row["max_agents"], options) and not row["is_funded"],
        has_dependents=row["has_dependents"],
        budget=orjson.loads(row["budget"]) if row["budget"] is not None else None,
        data=row["task_data"],
        inputs=joined(row["inputs"], row["brief"]),
        name=row["name"],
        result_schema=schema_in(options),
        vote=vote_in(options),
        traceparent=options.get("traceparent"),
        estimate=options.get("estimate_seconds"),
        deadline=earliest(row["sent_at"], row["timeout_seconds"], row["deadline"]),
        is_accepted=row["status"] == AttemptStatus.ACCEPTED,
        is_parked=row["is_parked"],
        is_waiting=row["is_waiting"],
        is_probe=row["is_probe"],
        seconds_since_sent=row["seconds_since_sent"],
        seconds_since_accepted=row["seconds_since_accepted"],
    )


def schema_in(options: dict[str, Any]) -> str | None:
    """The schema of a task's result, as JSON text."""
    schema = options.get("result_schema")
    return schema if isinstance(schema, str) else None


def vote_in(options: dict[str, Any]) -> dict[str, Any] | None:
    """What an agent is told of the vote that its result counts in; None where there is none."""
    vote = options.get("consensus")
    if vote is None:
        return None
    told = {"options": vote.get("options"), "voteOn": vote.get("vote_on")}
    return {key: value for key, value in told.items() if value is not None}


def joined(inputs: str | None, brief: str | None) -> str | None:
    """The inputs of an attempt with what a judge is told besides, as JSON text."""
    if brief is None:
        return inputs
    return orjson.dumps({**orjson.loads(inputs or "{}"), **orjson.loads(brief)}).decode()


def earliest(sent_at: datetime, timeout_seconds: float, deadline: datetime | None) -> datetime:
    """When an attempt that is sent now ends at the latest."""
    own = sent_at + _lasting(timeout_seconds)
    return own if deadline is None else min(own, deadline)


@lru_cache(maxsize=256)
def _lasting(seconds: float) -> timedelta:
    return timedelta(seconds=min(seconds, 10**8))


def as_uuid(text: object) -> UUID | None:
    """A message id as PostgreSQL keeps it; None where it is no UUID, or not spelt as we spell them."""
    try:
        found = UUID(str(text))
    except ValueError:
        return None
    return found if str(found) == text else None
