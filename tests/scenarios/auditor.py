"""Reads tables and journals when all is over, and names everything that is not as promised.

It shares no code with the engine: the rules are written down here once more, from the design.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from cluster import Cluster, Outage

MOVES = {
    ("blocked", "task_unblocked"): "pending",
    ("pending", "task_assigned"): "running",
    ("running", "task_assigned"): "running",
    ("running", "task_requeued"): "pending",
    ("running", "task_completed"): "completed",
    ("pending", "task_completed"): "completed",
}
"""What may happen to a task here, where none fails."""

LONGEST_IDLE = 1.0
"""Seconds that a task may be ready beside a free agent that may take it, outside of outages."""

Span = tuple[float, float]


async def faults(cluster: Cluster, *, may_idle: Collection[str] = ()) -> list[str]:
    """Everything that is wrong, in words; an empty list if nothing is.

    `may_idle` are agents of a node that does not lead: no work reaches them there.
    """
    tasks = {row["task_id"]: dict(row) for row in await cluster.ask("select * from task_distributions")}
    attempts = [
        dict(row) for row in await cluster.ask("select * from task_attempts order by task_id, attempt")
    ]
    events = [dict(row) for row in await cluster.ask("select * from events order by at, event_id")]
    edges = await cluster.ask("select * from task_dependencies")
    found = [f"an edge was left: {dict(edge)}" for edge in edges]
    found += _outcomes(tasks, attempts, events)
    found += _stories(tasks, events)
    found += _order(tasks, attempts)
    slots = {name: agent.slots for name, agent in cluster.agents.items()}
    found += _slots(attempts, slots)
    found += _journals(tasks, attempts, cluster.folder)
    slots = {name: number for name, number in slots.items() if name not in may_idle}
    found += _idle(tasks, attempts, events, slots, cluster.outages)
    return found


def _outcomes(tasks: dict[str, Any], attempts: list[Any], events: list[Any]) -> Iterable[str]:
    """Every task is completed, once, by the attempt whose result it has."""
    by_task = _grouped(attempts, "task_id")
    completions = _grouped((e for e in events if e["kind"] == "task_completed"), "task_id")
    for task_id, task in tasks.items():
        label = f"{task['name']} ({task_id})"
        own = by_task.get(task_id, [])
        if task["status"] != "completed":
            yield f"{label} is {task['status']}: {task['error']}"
            continue
        if len(completions.get(task_id, [])) != 1:
            yield f"{label} has {len(completions.get(task_id, []))} completions in the log"
        numbers = [attempt["attempt"] for attempt in own]
        if numbers != list(range(1, task["attempts_made"] + 1)):
            yield f"{label} made {task['attempts_made']} attempts, there are {numbers}"
        done = [attempt for attempt in own if attempt["status"] == "completed"]
        if len(done) != 1:
            yield f"{label} has {len(done)} completed attempts"
        elif json.loads(task["result"]) != json.loads(done[0]["result"]):
            yield f"{label} does not have the result of its completed attempt"
        elif json.loads(task["result"])["message"] != str(done[0]["message_id"]):
            yield f"{label} has the result of another message"
        elif len(json.loads(task["result"])["inputs"]) != len(task["depends_on"]):
            yield f"{label} was done without all its inputs"
        for attempt in own:
            if attempt["status"] in ("sent", "accepted"):
                yield f"{label} has a live attempt: {attempt['message_id']}"
        if task["wanted"] or task["waiting_on"]:
            yield f"{label} is over and still wants {task['wanted']}, waits for {task['waiting_on']}"


def _stories(tasks: dict[str, Any], events: list[Any]) -> Iterable[str]:
    """The log of each task is a way through the table of moves."""
    for task_id, story in _grouped((e for e in events if e["task_id"] in tasks), "task_id").items():
        status = "blocked" if tasks[task_id]["depends_on"] else "pending"
        for event in sorted(story, key=lambda e: (e["at"], e["event_id"])):
            kind = event["kind"]
            if kind in ("task_submitted", "attempt_accepted", "deadlock_detected", "deadlock_resolved"):
                continue
            if status == "blocked" and kind == "task_assigned":
                status = "pending"  # becoming ready is not an event of its own
            following = MOVES.get((status, kind))
            if following is None:
                kinds = [e["kind"] for e in story]
                yield f"{tasks[task_id]['name']}: {kind} while {status}, in {kinds}"
                break
            status = following


def _order(tasks: dict[str, Any], attempts: list[Any]) -> Iterable[str]:
    for attempt in attempts:
        for dependency in tasks[attempt["task_id"]]["depends_on"]:
            ended = tasks[dependency]["completed_at"]
            if ended is None or attempt["sent_at"] < ended:
                name, awaited = tasks[attempt["task_id"]]["name"], tasks[dependency]["name"]
                yield f"{name} was sent before {awaited} was complete"


def _busy(attempts: list[Any]) -> dict[str, list[Span]]:
    """When each agent's slots were taken."""
    found: dict[str, list[Span]] = defaultdict(list)
    for attempt in attempts:
        if attempt["finished_at"] is not None:
            found[attempt["agent_id"]].append((_s(attempt["sent_at"]), _s(attempt["finished_at"])))
    return found


def _slots(attempts: list[Any], slots: dict[str, int]) -> Iterable[str]:
    """No agent held more than its slots at any time."""
    for agent_id, spans in _busy(attempts).items():
        steps = sorted([(end, -1) for _, end in spans] + [(start, 1) for start, _ in spans])
        held = 0
        for at, step in steps:
            held += step
            if held > slots[agent_id]:
                yield f"{agent_id} held {held} of {slots[agent_id]} slots at {at}"
                break


def _journals(tasks: dict[str, Any], attempts: list[Any], folder: Path) -> Iterable[str]:
    """What agents were told, against what is stored."""
    by_message = {str(attempt["message_id"]): attempt for attempt in attempts}
    results: dict[str, list[Any]] = defaultdict(list)
    for journal in sorted(folder.glob("*.journal")):
        agent_id = journal.stem
        for line in journal.read_text().splitlines():
            word, message_id, *rest = line.split(" ", 3)
            attempt = by_message.get(message_id)
            if attempt is None or attempt["agent_id"] != agent_id:
                yield f"{agent_id} was given {message_id}, which is not its attempt: {attempt}"
            elif word == "ended":
                results[message_id].append(json.loads(rest[1]))
            elif word == "acked" and attempt["status"] in ("sent", "accepted"):
                yield f"{agent_id} was told that {message_id} is durable, but it is {attempt['status']}"
            elif word == "acked" and tasks[attempt["task_id"]]["status"] != "completed":
                yield f"{agent_id} was told that {message_id} is durable, its task is open"
    for task in tasks.values():
        if task["result"] is None:
            continue
        result = json.loads(task["result"])
        if result not in results[result["message"]]:
            yield f"{task['name']} has a result that no journal knows: {result}"


def _idle(
    tasks: dict[str, Any],
    attempts: list[Any],
    events: list[Any],
    slots: dict[str, int],
    outages: Sequence[Outage],
) -> Iterable[str]:
    """Nobody had a free slot for long while a task that it could have taken was ready."""
    busy = _busy(attempts)
    away = [(outage.began, outage.ended) for outage in outages]
    free = {}
    for agent, number in slots.items():
        spans = _without(_without(_online(events).get(agent, []), _full(busy.get(agent, []), number)), away)
        free[agent] = [(start, end) for start, end in spans if end - start > LONGEST_IDLE]
    requeued = _grouped((e for e in events if e["kind"] == "task_requeued"), "task_id")
    for task_id, own in _grouped(attempts, "task_id").items():
        task = tasks[task_id]
        ready = [max([task["created_at"], *(tasks[one]["completed_at"] for one in task["depends_on"])])]
        ready += [event["at"] for event in requeued.get(task_id, [])]
        for attempt in own:
            since = max((at for at in ready if at <= attempt["sent_at"]), default=attempt["sent_at"])
            before = {one["agent_id"] for one in own if one["attempt"] < attempt["attempt"]}
            for agent in slots.keys() - before:
                for start, end in _within(free[agent], (_s(since), _s(attempt["sent_at"]))):
                    if end - start > LONGEST_IDLE:
                        yield f"{task['name']} was ready for {end - start:.2f} s while {agent} was free"


def _full(spans: list[Span], slots: int) -> list[Span]:
    """When all slots were taken."""
    steps = sorted([(end, -1) for _, end in spans] + [(start, 1) for start, _ in spans])
    held, since, found = 0, 0.0, []
    for at, step in steps:
        if held == slots and step < 0:
            found.append((since, at))
        held += step
        if held == slots and step > 0:
            since = at
    return found


def _online(events: list[Any]) -> dict[str, list[Span]]:
    since: dict[str, float] = {}
    found: dict[str, list[Span]] = defaultdict(list)
    for event in events:
        agent = event["agent_id"]
        if event["kind"] in ("agent_online", "agent_offline") and agent in since:
            found[agent].append((since.pop(agent), _s(event["at"])))
        if event["kind"] == "agent_online":
            since[agent] = _s(event["at"])
    for agent, start in since.items():
        found[agent].append((start, float("inf")))
    return found


def _within(spans: list[Span], window: Span) -> list[Span]:
    cut = [(max(start, window[0]), min(end, window[1])) for start, end in spans]
    return [(start, end) for start, end in cut if start < end]


def _without(spans: list[Span], holes: Iterable[Span]) -> list[Span]:
    """What is left of spans in order when holes are cut out of them."""
    found: list[Span] = []
    holes = sorted(holes)
    for start, end in spans:
        for low, high in holes:
            if high <= start or low >= end:
                continue
            if start < low:
                found.append((start, low))
            start = max(start, high)
        if start < end:
            found.append((start, end))
    return found


def _grouped(rows: Iterable[Any], key: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        found[row[key]].append(row)
    return found


def _s(at: datetime) -> float:
    return at.timestamp()
