"""The rules, and everything that breaks one: read from tables and journals when all is over.

    python -m agentorch_cli.chaos.checker FOLDER     checks a trial that was kept with --keep

No code of the engine is used here. Each rule is a function from the evidence to sentences; a test corrupts
the tables or a journal for each of them and sees it fail.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg

from agentorch_cli.chaos.evidence import Evidence, Row, gather, grouped, options_of, seconds
from agentorch_cli.chaos.moves import ATTEMPTS, FINAL, settled, walk
from agentorch_cli.chaos.recount import COMMON, COUNTED, differences

LIVE = ("sent", "accepted")

KNOWN_REASONS = (
    "told_to_fail",
    "dependency_failed",
    "consensus_not_reached",
    "agents_lost",
    "budget_exhausted",
    "cancelled",
    "subtask_failed",
)
"""Why a task of a trial may end without a result."""

Rule = Callable[[Evidence], Iterator[str]]


def submissions(evidence: Evidence) -> Iterator[str]:
    """Every acknowledged submit exists once, under the id that was told, and is final."""
    by_key: dict[str, list[str]] = defaultdict(list)
    for task_id, task in evidence.tasks.items():
        if task["idempotency_key"] is not None:
            by_key[task["idempotency_key"]].append(task_id)
    for name, ids in by_key.items():
        if len(ids) > 1:
            yield f"{name} exists {len(ids)} times: {ids}"
    for client, entry in evidence.told("submitted"):
        for name, task_id, _ in entry.get("tasks") or [(None, entry.get("task"), True)]:
            stored = evidence.tasks.get(task_id)
            if stored is None:
                yield f"{client} was told that {name or 'a sub-task'} is stored as {task_id}: it is not there"
            elif name is not None and by_key.get(name) != [task_id]:
                yield f"{client} was told that {name} is {task_id}: it is {by_key.get(name)}"
    asked = {name for _, entry in evidence.told("submitting") for name in entry["names"]}
    if not asked:
        return
    for task_id, task in evidence.tasks.items():
        if task["parent_id"] is None and task["idempotency_key"] not in asked:
            yield f"{task_id} is there, but nobody submitted it"


def ends(evidence: Evidence) -> Iterator[str]:
    """Every task is final, and nothing of it is left: no live attempt, no edge, nothing wanted."""
    for task_id, task in evidence.tasks.items():
        if task["status"] not in FINAL:
            yield f"{task_id} is {task['status']}"
        if task["wanted"]:
            yield f"{task_id} is {task['status']} and wants {task['wanted']} agents"
    for attempt in evidence.attempts:
        if attempt["status"] in LIVE:
            yield f"attempt {attempt['message_id']} of {attempt['task_id']} is {attempt['status']}"
    for edge in evidence.edges:
        yield f"{edge['task_id']} still waits for {edge['depends_on']}"
    for decision in evidence.decisions:
        if decision["status"] == "pending":
            yield f"the vote of {decision['task_id']} is open"


def outcomes(evidence: Evidence) -> Iterator[str]:
    """A task has one outcome in each generation; who is done has the result of a journaled attempt."""
    for task_id, task in evidence.tasks.items():
        story = evidence.story_of.get(task_id, [])
        ended = sum(event["kind"].removeprefix("task_") in FINAL for event in story)
        opened = 1 + sum(event["kind"] == "task_retried" for event in story)
        if ended > opened or task["generation"] != opened - 1:
            yield f"{task_id} was opened {opened} times and ended {ended} times"
        elif ended < opened and task["status"] in FINAL:
            yield f"{task_id} is {task['status']}, and its end is not in the log"
        if task["status"] == "completed":
            yield from (f"{task_id}: {fault}" for fault in _result_faults(evidence, task))
        elif task["result"] is not None:
            yield f"{task_id} is {task['status']} and has a result"


def _result_faults(evidence: Evidence, task: Row) -> Iterator[str]:
    own = evidence.attempts_of.get(task["task_id"], [])
    done = [one for one in own if one["status"] == "completed" and one["attempt"] > task["attempts_before"]]
    for attempt in done:
        known = evidence.results.get(attempt["message_id"], [])
        taken = _loaded(attempt["result"])
        if not any("result" in one and one["result"] == taken for one in known):
            yield f"nobody wrote down that attempt {attempt['message_id']} brought {attempt['result']}"
    options = options_of(task)
    is_alone = task["max_agents"] == 1 and "consensus" not in options
    if is_alone and len(done) != 1:
        yield f"{len(done)} of its attempts brought a result that was taken"
    elif len(done) < (1 if "consensus" in options else task["min_agents"]):
        yield f"{len(done)} results are too few"
    else:
        result = _loaded(task["result"])
        brought = {one["agent_id"]: _loaded(one["result"]) for one in done}
        if not _is_made_of(result, brought, options.get("aggregate", "first")):
            yield f"its result is not what its attempts brought: {task['result']}"


def _is_made_of(result: Any, brought: dict[str, Any], aggregate: str) -> bool:
    match aggregate:
        case "all":
            return bool(result == brought)
        case "median":
            return bool(result == statistics.median(brought.values()))
        case _:
            return result in brought.values()


def reasons(evidence: Evidence) -> Iterator[str]:
    """Who has no result says why, and the reason is one that the workload gives."""
    for task_id, task in evidence.tasks.items():
        if task["status"] not in ("failed", "cancelled", "skipped"):
            continue
        code = (_loaded(task["error"]) or {}).get("code")
        if code not in KNOWN_REASONS:
            yield f"{task_id} is {task['status']}: {task['error']}"


def transitions(evidence: Evidence) -> Iterator[str]:
    """The log of each task is a way through the table of docs/lifecycle.md, and ends where the task is."""
    for task_id, task in evidence.tasks.items():
        states = {"blocked", "pending"}
        kinds = [event["kind"] for event in evidence.story_of.get(task_id, [])]
        moves = [kind.removeprefix("task_") for kind in kinds if kind.startswith("task_")]
        if moves[:1] != ["submitted"] or moves.count("submitted") != 1:
            yield f"the log of {task_id} does not begin with its submission: {kinds[:5]}"
            continue
        for number, event in enumerate(moves[1:], start=1):
            following = walk(states, event)
            if not following:
                yield f"{task_id}: {event} while {' or '.join(sorted(states))}, in {moves[: number + 1]}"
                break
            states = following
        else:
            if task["status"] not in settled(states):
                yield f"{task_id} is {task['status']}, by its log {' or '.join(sorted(states))}"


def attempts(evidence: Evidence) -> Iterator[str]:
    """Attempts are numbered without gaps, begin with an assignment, and go their way through the table."""
    for task_id, own in evidence.attempts_of.items():
        made = evidence.tasks[task_id]["attempts_made"] if task_id in evidence.tasks else 0
        if [one["attempt"] for one in own] != list(range(1, made + 1)):
            yield f"{task_id} made {made} attempts, there are {[one['attempt'] for one in own]}"
    states: dict[str, str] = {}
    for event in evidence.events:
        message, kind = event["message_id"], event["kind"]
        if message is None:
            continue
        if kind == "task_assigned":
            if message in states:
                yield f"attempt {message} was assigned twice"
            states[message] = "sent"
        elif message not in states:
            yield f"{kind} of attempt {message}, which was never assigned"
        elif kind == "attempt_accepted":
            following = ATTEMPTS.get((states[message], "accepted"))
            if following is None:
                yield f"attempt {message} was accepted while {states[message]}"
            states[message] = following or states[message]
        elif kind.removeprefix("task_") in (*FINAL, "requeued"):
            status = evidence.attempt[message]["status"] if message in evidence.attempt else "missing"
            if status in LIVE or status == "missing":
                yield f"{kind} by attempt {message}, which is {status}"
            states[message] = "over"
    for message, attempt in evidence.attempt.items():
        if message not in states:
            yield f"attempt {message} of {attempt['task_id']} is there without an assignment in the log"


def order(evidence: Evidence) -> Iterator[str]:
    """No task began before everything that it depends on had ended well enough."""
    ended: dict[str, int] = {}
    for event in evidence.events:
        if event["kind"].removeprefix("task_") in FINAL:
            ended[event["task_id"]] = event["event_id"]
        if event["kind"] != "task_assigned" or event["task_id"] not in evidence.tasks:
            continue
        task = evidence.tasks[event["task_id"]]
        for dependency in task["depends_on"]:
            awaited = evidence.tasks.get(dependency)
            name = f"{task['task_id']} began before {dependency}"
            if awaited is None or ended.get(dependency, event["event_id"]) >= event["event_id"]:
                yield f"{name} had ended"
            elif awaited["status"] in ("failed", "cancelled") and task["on_dependency_failure"] != "run":
                yield f"{name} could succeed: it is {awaited['status']}"
    for attempt in evidence.attempts:
        for dependency in evidence.tasks[attempt["task_id"]]["depends_on"]:
            awaited = evidence.tasks.get(dependency)
            at = awaited["completed_at"] if awaited is not None else None
            if at is not None and attempt["sent_at"] < at:
                yield f"{attempt['task_id']} was sent before {dependency} had ended, on the database's clock"


def slots(evidence: Evidence) -> Iterator[str]:
    """In no prefix of the log did an agent hold more than its slots and what it may hold ahead of them.

    Work with sub-tasks is left out: it gives its slot back while it waits, which is no event.
    """
    held: dict[str, set[str]] = defaultdict(set)
    for message, step, event_id in _occupation(evidence):
        attempt = evidence.attempt[message]
        agent = attempt["agent_id"]
        if step < 0:
            held[agent].discard(message)
            continue
        held[agent].add(message)
        if len(held[agent]) > evidence.agents.get(agent, 0):
            yield f"{agent} held {len(held[agent])} of {evidence.agents.get(agent)} slots at event {event_id}"
    for attempt in evidence.attempts:
        if attempt["slot"] >= evidence.agents.get(attempt["agent_id"], 0):
            yield f"attempt {attempt['message_id']} is in slot {attempt['slot']} of {attempt['agent_id']}"
    alone = [one for one in evidence.attempts if one["task_id"] not in evidence.children_of]
    for agent, own in grouped(alone, "agent_id").items():
        for slot, its in grouped(own, "slot").items():
            for one, other in _overlaps(its):
                yield f"{agent} had {one['message_id']} and {other['message_id']} in slot {slot} at once"


def _occupation(evidence: Evidence) -> list[tuple[str, int, int]]:
    """When attempts took (1) and freed (-1) their slots, in the order of the log.

    An end that the log does not tie to its attempt is placed by the clock: before the first later event.
    """
    begun: dict[str, int] = {}
    over: dict[str, int] = {}
    for event in evidence.events:
        message = event["message_id"]
        if message is None or message not in evidence.attempt:
            continue
        if event["kind"] == "task_assigned":
            begun.setdefault(message, event["event_id"])
        elif event["kind"].removeprefix("task_") in (*FINAL, "requeued"):
            over.setdefault(message, event["event_id"])
    loose = [
        (attempt["finished_at"], message)
        for message, attempt in evidence.attempt.items()
        if message in begun and message not in over and attempt["finished_at"] is not None
    ]
    by_time = iter(sorted((event["at"], event["event_id"]) for event in evidence.events))
    at, event_id = next(by_time, (None, 0))
    for finished_at, message in sorted(loose):
        while at is not None and at <= finished_at:
            at, event_id = next(by_time, (None, event_id + 1))
        over[message] = max(event_id, begun[message] + 1)
    steps = [
        (number, -1, message) for message, number in over.items() if _holds_a_slot(evidence, message)
    ] + [(number, 1, message) for message, number in begun.items() if _holds_a_slot(evidence, message)]
    return [(message, step, number) for number, step, message in sorted(steps)]


def _holds_a_slot(evidence: Evidence, message: str) -> bool:
    return evidence.attempt[message]["task_id"] not in evidence.children_of


def leases(evidence: Evidence) -> Iterator[str]:
    """Leases of one task never overlap on the database's clock: not for one agent, and where a task asks for
    one agent, not at all; and no more agents hold a task at once than it asks for."""
    for attempt in evidence.attempts:
        if attempt["finished_at"] is not None and attempt["finished_at"] < attempt["sent_at"]:
            yield f"attempt {attempt['message_id']} ended before it began"
    for task_id, own in evidence.attempts_of.items():
        task = evidence.tasks.get(task_id)
        if task is None:
            yield f"there are attempts of {task_id}, which is not there"
            continue
        is_alone = task["max_agents"] == 1 and "consensus" not in options_of(task)
        for its in [own] if is_alone else grouped(own, "agent_id").values():
            for one, other in _overlaps(its):
                yield f"{task_id} was with {one['agent_id']} and {other['agent_id']} at once"
        most = _most_at_once(own)
        voters = [len(one["participating_agents"]) for one in evidence.decisions_of.get(task_id, ())]
        seats = max([task["max_agents"], *voters])
        if most > seats:
            yield f"{task_id} was with {most} agents at once and asked for {seats}"


def _overlaps(attempts: list[Row]) -> Iterator[tuple[Row, Row]]:
    """Pairs that held something at the same time, next to each other in time."""
    in_order = sorted(attempts, key=lambda one: (one["sent_at"], one["attempt"]))
    for one, other in itertools.pairwise(in_order):
        if one["finished_at"] is None or other["sent_at"] < one["finished_at"]:
            yield one, other


def _most_at_once(attempts: list[Row]) -> int:
    steps = [(seconds(one["sent_at"]), 1) for one in attempts]
    steps += [(seconds(one["finished_at"]), -1) for one in attempts if one["finished_at"] is not None]
    most = held = 0
    for _, step in sorted(steps):
        held += step
        most = max(most, held)
    return most


def budgets(evidence: Evidence) -> Iterator[str]:
    """Nothing is reserved beyond a limit in any prefix of the log, and what is spent is what was charged.

    Recomputed from the amounts of single attempts. Left out are budgets that begin anew each day, and those
    of which sub-tasks used what was reserved for their parents.
    """
    plain = {
        (one["scope"], one["key"]): one
        for one in evidence.budgets or ()
        if one["period"] is None and not one["is_lent"]
    }
    held: dict[Any, dict[str, Money]] = defaultdict(dict)
    charged: dict[Any, dict[str, Money]] = defaultdict(dict)
    for event in evidence.events:
        if event["kind"] not in ("budget_reserved", "budget_settled", "budget_returned"):
            continue
        data = json.loads(event["data"], parse_float=Decimal)
        budget, message = (data["scope"], data["key"]), event["message_id"]
        amount = (Decimal(data.get("cost_usd", 0)), Decimal(data.get("tokens", 0)))
        if budget not in plain:
            continue
        if event["kind"] != "budget_reserved":
            held[budget].pop(message, None)
            charged[budget][message] = amount
            continue
        held[budget][message] = amount
        for unit, name in enumerate(("usd", "tokens")):
            limit = data.get(f"limit_{name}")
            used = _sum(held[budget], unit) + _sum(charged[budget], unit)
            if limit is not None and used > limit:
                yield f"{budget[1]} had {used} {name} of {limit} promised at event {event['event_id']}"
    for key, row in plain.items():
        for unit, name in enumerate(("usd", "tokens")):
            for word, amounts in (("reserved", held[key]), ("spent", charged[key])):
                stored, by_log = row[f"{word}_{name}"], _sum(amounts, unit)
                if stored != by_log:
                    yield f"{key[1]} has {stored} {name} {word}, by the log {by_log}"


Money = tuple[Decimal, Decimal]
"""Dollars and tokens."""


def _sum(amounts: dict[str, Money], unit: int) -> Decimal:
    return sum((amount[unit] for amount in amounts.values()), Decimal(0))


def votes(evidence: Evidence) -> Iterator[str]:
    """One ballot per voter, each as the attempt of one who may vote brought it; the outcome is the count."""
    ballots = grouped(evidence.ballots, "decision_id")
    for decision in evidence.decisions:
        label = f"the vote of {decision['task_id'] or decision['decision_id']}"
        own = ballots.get(decision["decision_id"], [])
        yield from (f"{label}: {fault}" for fault in _ballot_faults(evidence, decision, own))
        if decision["consensus_reached"] != (decision["status"] == "reached"):
            yield f"{label} is {decision['status']} and says reached {decision['consensus_reached']}"
        if decision["rule"] in COMMON and decision["decided_by"] in COUNTED:
            yield from (f"{label}: {fault}" for fault in differences(decision, own))
        yield from (f"{label}: {fault}" for fault in _task_faults(evidence, decision))


def _ballot_faults(evidence: Evidence, decision: Row, ballots: list[Row]) -> Iterator[str]:
    twice = [agent for agent, number in Counter(one["agent_id"] for one in ballots).items() if number > 1]
    if twice:
        yield f"{twice} voted more than once"
    for ballot in ballots:
        if ballot["agent_id"] not in decision["participating_agents"]:
            yield f"{ballot['agent_id']} has no vote, and voted"
        if ballot["status"] not in ("answered", "abstained") or ballot["message_id"] is None:
            continue
        attempt = evidence.attempt.get(ballot["message_id"])
        if attempt is None or (attempt["agent_id"], attempt["task_id"]) != (
            ballot["agent_id"],
            decision["task_id"],
        ):
            yield f"the ballot of {ballot['agent_id']} is of an attempt that is not its own"
        elif attempt["status"] != "completed" or _loaded(attempt["result"]) != _loaded(ballot["vote"]):
            yield f"the ballot of {ballot['agent_id']} is not what its attempt brought"


def _task_faults(evidence: Evidence, decision: Row) -> Iterator[str]:
    """What the vote says, against what its task has."""
    task = evidence.tasks.get(decision["task_id"])
    if task is None or decision["status"] == "pending":
        return
    has_answer = decision["status"] == "reached" or decision["decided_by"] in ("plurality", "judge")
    if has_answer != (task["status"] == "completed"):
        yield f"it is {decision['status']} by {decision['decided_by']}, and its task {task['status']}"
    elif has_answer and _loaded(decision["final_decision"]) != _loaded(task["result"]):
        yield "its answer is not the result of its task"


def told(evidence: Evidence) -> Iterator[str]:
    """What agents and clients were told is so: work was stored before it was sent, results before the ack."""
    for name, entry in evidence.told("received", "acked", "finished", "cancelled", "failed", "hung"):
        what, message = entry["what"], entry.get("message")
        attempt = evidence.attempt.get(message) if message is not None else None
        if what == "received" and (
            attempt is None
            or (attempt["agent_id"], attempt["task_id"], attempt["attempt"])
            != (name, entry["task"], entry["attempt"])
        ):
            yield f"{name} was given {message}, which is no attempt of it"
        elif what == "received":
            lacking = len(evidence.tasks[entry["task"]]["depends_on"]) - len(entry["inputs"])
            if lacking:
                yield f"{name} was given {entry['task']} without {lacking} of its inputs"
        elif what == "acked" and (attempt is None or attempt["status"] in LIVE):
            yield f"{name} was told that {message} is durable: {attempt and attempt['status']}"
        elif what == "finished" and evidence.tasks[entry["task"]]["status"] != entry["status"]:
            yield f"{name} was told that {entry['task']} is {entry['status']}"
        elif (
            what == "cancelled" and message is None and evidence.tasks[entry["task"]]["status"] != "cancelled"
        ):
            yield f"{name} was told that {entry['task']} is cancelled"
        elif what in ("failed", "hung"):
            yield f"a command of {name} {what}: {entry}"


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        submissions,
        ends,
        outcomes,
        reasons,
        transitions,
        attempts,
        order,
        slots,
        budgets,
        leases,
        votes,
        told,
    )
}


def check(evidence: Evidence, *, only: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """What is wrong, by rule; an empty list where nothing is."""
    return {name: list(rule(evidence)) for name, rule in RULES.items() if not only or name in only}


def _loaded(text: str | None) -> Any:
    return json.loads(text) if text is not None else None


async def check_folder(folder: Path) -> dict[str, list[str]]:
    """A trial that was kept: its data directory, with PostgreSQL running, and its journals."""
    from agentorch_cli.chaos.processes import observed

    connection = await asyncpg.connect(**observed(folder / "data"))
    try:
        return check(await gather(connection, folder / "journals"))
    finally:
        await connection.close()


if __name__ == "__main__":
    found = asyncio.run(check_folder(Path(sys.argv[1])))
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    raise SystemExit(3 if any(found.values()) else 0)
