"""Lists: the same options everywhere, filters in the database, and pages that leave nothing out."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from agentorch_cli.cli.app import build
from agentorch_cli.config import Settings
from agentorch_cli.errors import Conflict, NotFound, UsageError
from agentorch_cli.store.listing import Listing
from agentorch_cli.store.listings import AGENTS, DEADLOCKS, DECISIONS, SCHEDULES, TASKS
from agentorch_cli.wiring import open_client
from tests.databases import execute

NUMBER = 23

LISTS: dict[str, tuple[Listing, str]] = {
    "task": (TASKS, "task_id"),
    "agent": (AGENTS, "agent_id"),
    "consensus": (DECISIONS, "decision_id"),
    "deadlock": (DEADLOCKS, "deadlock_id"),
    "schedule": (SCHEDULES, "name"),
}


async def test_pages_by_cursor_are_the_whole_list_in_every_order(full: str, settings: Settings) -> None:
    async with open_client(settings) as client:
        for noun, (listing, key) in LISTS.items():
            for order in (order for name in listing.sorts for order in (name, f"-{name}")):
                whole = [
                    getattr(one, key) for one in await client.call(f"{noun}.list", sort=order, limit=100)
                ]
                paged: list[str] = []
                cursor: dict[str, Any] = {"sort": order}
                while page := await client.call(f"{noun}.list", limit=4, **cursor):
                    paged += [getattr(one, key) for one in page]
                    cursor = {"cursor": page[-1].cursor}

                assert len(whole) == NUMBER, (noun, order)
                assert paged == whole, (noun, order)
            usual = listing.usual.lstrip("-")
            one_way = await client.call(f"{noun}.list", sort=usual, limit=100)
            other_way = await client.call(f"{noun}.list", sort=f"-{usual}", limit=100)
            assert [getattr(one, key) for one in one_way] == [getattr(one, key) for one in other_way][::-1]


async def test_a_page_goes_on_where_it_was_whatever_has_come_or_gone(full: str, settings: Settings) -> None:
    async with open_client(settings) as client:
        first = await client.call("task.list", limit=5)
        connection = await asyncpg.connect(full)
        try:
            await connection.execute("delete from task_distributions where task_id = $1", first[-1].task_id)
            await connection.execute(
                "insert into task_distributions (task_id, task_type, status, submission_id)"
                " values ('newest', 't', 'pending', gen_random_uuid())"
            )
        finally:
            await connection.close()
        rest = await client.call("task.list", limit=100, cursor=first[-1].cursor)

    numbers = [int(one.task_id.split()[1]) for one in (*first, *rest)]
    assert numbers == list(range(NUMBER, 0, -1))


async def test_orders_are_what_they_say(full: str, settings: Settings) -> None:
    async with open_client(settings) as client:
        tasks = await client.call("task.list", sort="-priority", limit=100)
        agents = await client.call("agent.list", sort="seen")
        deadlocks = await client.call("deadlock.list", sort="-waited", limit=100)

    assert all(one.priority >= two.priority for one, two in pairwise(tasks))
    seen = [one.last_heartbeat.timestamp() if one.last_heartbeat else 0 for one in agents]
    assert seen == sorted(seen)
    assert all(one.waited_s >= two.waited_s for one, two in pairwise(deadlocks))


@pytest.mark.parametrize(
    ("method", "asked", "holds"),
    [
        ("task.list", {"status": ["failed", "pending"]}, lambda one: one.status in ("failed", "pending")),
        ("task.list", {"label": {"team": "ml"}}, lambda one: one.labels["team"] == "ml"),
        ("task.list", {"label": {"n": "*"}}, lambda one: "n" in one.labels),
        ("task.list", {"capability": ["a", "b"]}, lambda one: one.required_capabilities == ["a", "b"]),
        ("task.list", {"agent": "anna"}, lambda one: one.assigned_agents == ["anna"]),
        ("task.list", {"since": "5h30m"}, lambda one: int(one.task_id.split()[1]) <= 5),
        ("task.list", {"until": "5h30m"}, lambda one: int(one.task_id.split()[1]) > 5),
        ("agent.list", {"status": "paused"}, lambda one: one.status == "paused"),
        ("agent.list", {"capability": ["b"], "type": "type 0"}, lambda one: "b" in one.capabilities),
        ("agent.list", {"label": {"room": "1"}}, lambda one: one.metadata["room"] == 1),
        ("agent.list", {"since": "3h30m"}, lambda one: int(one.agent_id.split()[1].split(":")[0]) <= 3),
        ("consensus.list", {"status": ["pending"]}, lambda one: one.status == "pending"),
        ("consensus.list", {"agent": "b1"}, lambda one: True),
        ("consensus.list", {"capability": "check"}, lambda one: one.capability == "check"),
        ("consensus.list", {"label": {"team": "ml"}}, lambda one: one.task_id is not None),
        ("deadlock.list", {"status": "resolved"}, lambda one: one.resolved_at is not None),
        ("deadlock.list", {"kind": ["timeout"]}, lambda one: one.kind == "timeout"),
        ("deadlock.list", {"task_id": "task 7"}, lambda one: "task 7" in one.members),
        ("schedule.list", {"status": ["failing"]}, lambda one: one.state == "failing"),
        ("schedule.list", {"status": ["ended", "active"]}, lambda one: one.state in ("ended", "active")),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict | str) else "",
)
async def test_filters_leave_what_was_asked_for(
    full: str, settings: Settings, method: str, asked: dict[str, Any], holds: Callable[[Any], bool]
) -> None:
    async with open_client(settings) as client:
        found = await client.call(method, **{"limit": 100, **asked})

    assert 0 < len(found) < NUMBER
    assert all(map(holds, found))


async def test_a_cursor_that_is_none_is_refused(full: str, settings: Settings) -> None:
    bad = [
        *("", "x", "a:b:c", "-created:x:1", "-created:1:x", "priority:1e99:1", "-created:1:1:1", "x" * 5_000),
        *("-created:99999999999999999999:1", "completed:tomorrow:1", "name:%00:1", "name:%FF:1"),
    ]
    async with open_client(settings) as client:
        for cursor in bad:
            with pytest.raises(NotFound, match="is no cursor"):
                await client.call("task.list", cursor=cursor)
        with pytest.raises(UsageError, match="another order"):
            await client.call("task.list", sort="priority", cursor="-created:5:5")
        with pytest.raises(UsageError, match='did you mean "priority"'):
            await client.call("task.list", sort="-priorty")


OPTIONS = {"--status", "--since", "--until", "--sort", "--limit", "--cursor"}

EXPECTED = {
    "task": OPTIONS | {"--agent", "--capability", "--label", "--where", "--type", "--pool", "--submission"},
    "agent": OPTIONS | {"--capability", "--label", "--type", "--pool"},
    "consensus": OPTIONS | {"--agent", "--capability", "--label"},
    "deadlock": OPTIONS | {"--task", "--kind", "--open"},
    "schedule": OPTIONS,
    "event": OPTIONS - {"--status", "--sort"} | {"--task", "--agent", "--kind"},
}


@pytest.mark.parametrize("noun", EXPECTED)
def test_lists_name_the_same_things_the_same(noun: str) -> None:
    from agentorch_cli.cli.help import common_options

    root = build()
    ctx = root.make_context("agentorch", [noun], resilient_parsing=True)
    command = root.get_command(ctx, noun).get_command(ctx, "list")
    own = [param for param in command.params if param not in common_options()]

    assert {name for param in own for name in param.opts if name.startswith("--")} == EXPECTED[noun]


def test_the_options_of_the_command_line_reach_the_database(
    full: str, agentorch_at: Callable[..., Any]
) -> None:
    ids = agentorch_at("-q", "task", "list", "--label", "team=ml", "--sort", "-priority", "--limit", "3")
    agents = agentorch_at("agent", "list", "--status", "paused", "-c", "a", "--limit", "2", "--json")
    again = agentorch_at(
        "agent", "list", "--status", "paused", "--cursor", json.loads(agents.out)[-1]["cursor"], "-q"
    )

    assert ids.out.splitlines() == ["task 10", "task 20", "task 8"]
    assert "--cursor -priority:" in agentorch_at("task", "list", "--sort", "-priority", "--limit", "3").err
    assert len(json.loads(agents.out)) == 2
    assert len(again.out.splitlines()) == 5
    for line in ("--since foo", "--until 2030-99-01", "--label team", "--status faild", "--sort name:"):
        refused = agentorch_at("task", "list", *line.split())
        assert (refused.code, refused.out) == (2, ""), line


# --- ids ------------------------------------------------------------------------------------------


async def test_a_part_of_an_id_stands_for_the_only_one_that_begins_or_ends_with_it(
    full: str, settings: Settings
) -> None:
    async with open_client(settings) as client:
        votes = [one.decision_id for one in await client.call("consensus.list", limit=1)]

        async def whole(noun: str, *ids: str) -> list[str]:
            return list((await client.call("id.resolve", noun=noun, ids=ids)).ids.values())

        assert await whole("task", "sk 17", "task 1", "nowhere", "17") == [
            "task 17",
            "task 1",
            "nowhere",
            "17",
        ]
        assert await whole("vote", votes[0][:9], votes[0][-7:]) == votes * 2
        assert await whole("vote", "sk 17") == ["task 17"]
        assert await whole("submission", "00002") == ["00000000-0000-7000-8000-000000000002"]
        with pytest.raises(Conflict) as error:
            await client.call("id.resolve", noun="task", ids=["task 2"[:4]])
    assert "more than 10 ids" in error.value.message and len(error.value.details["candidates"]) == 10


def test_commands_take_parts_of_ids(full: str, agentorch_at: Callable[..., Any]) -> None:
    assert json.loads(agentorch_at("task", "show", "sk 17", "--json").out)["task_id"] == "task 17"
    assert agentorch_at("-q", "task", "cancel", "sk 17").out == "task 17\n"
    assert len(agentorch_at("-q", "task", "list", "--submission", "00002").out.splitlines()) == 8
    ambiguous = agentorch_at("task", "show", "task", "--json")
    assert ambiguous.code == 8
    assert "task 1" in json.loads(ambiguous.err)["error"]["details"]["candidates"]


def test_a_name_stands_for_the_only_task_that_has_it(
    full: str, agentorch_at: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "named.toml"
    file.write_text('[[tasks]]\nid = "t-only"\nname = "ask"\n[[tasks]]\nid = "t-other"\nname = "often"\n')
    agentorch_at("task", "submit", str(file))
    file.write_text('[[tasks]]\nid = "t-newer"\nname = "often"\n[[tasks]]\nid = "ask-me"\nname = "t-only"\n')
    agentorch_at("task", "submit", str(file))

    assert json.loads(agentorch_at("task", "show", "ask", "--json").out)["task_id"] == "t-only"
    assert json.loads(agentorch_at("task", "show", "t-only", "--json").out)["task_id"] == "t-only"
    assert agentorch_at("task", "graph", "ask").code == 0
    assert agentorch_at("-q", "task", "cancel", "ask").out == "t-only\n"
    several = agentorch_at("task", "show", "often")
    assert several.code == 8
    assert "2 tasks have the name 'often': t-newer, t-other" in several.err
    assert "fix: agentorch task list --where 'name = \"often\"'" in several.err
    assert agentorch_at("task", "list", "--where", 'name = "often"', "-q").out == "t-newer\nt-other\n"


def test_a_task_that_is_stored_is_submitted_again_after_its_deadline(
    full: str, agentorch_at: Callable[..., Any], tmp_path: Path
) -> None:
    """Time goes by between the two: the key stands for the task, whatever the clock says."""
    file = tmp_path / "keyed.toml"
    task = '[task]\nid = "{}"\nidempotency_key = "k"\ndeadline = {}T12:00:00Z\n'
    file.write_text(task.format("first", "2100-01-31"))
    agentorch_at("task", "submit", str(file))
    file.write_text(task.format("again", "2020-01-31"))

    assert agentorch_at("-q", "task", "submit", str(file)).out == "first\n"


def test_a_name_is_found_however_many_tasks_came_later(full: str, agentorch_at: Callable[..., Any]) -> None:
    fill = (
        "insert into task_distributions (task_id, name, task_type, status, submission_id)"
        " select 'id of ' || n,"
        " case when n in (3, 2100) then 'twin' when n = 4 then 'early' else 'of many' end,"
        " 't', 'pending', gen_random_uuid()"
        " from generate_series(1, 2100) n order by n"
    )
    asyncio.run(execute(full, fill))

    def show(name: str) -> Any:
        return agentorch_at("task", "show", name, "--json")

    assert json.loads(show("early").out)["task_id"] == "id of 4"
    assert "2 tasks have the name 'twin': id of 2100, id of 3" in show("twin").err
    assert "more than 10 tasks have the name 'of many': id of 2099, id of 2098" in show("of many").err


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (["task", "depend", "task 2", "--on", "nosuch"], "agentorch task list"),
        (["task", "graph", "nosuch"], "agentorch task list"),
        (["schedule", "remove", "nosuch"], "agentorch schedule list"),
        (["agent", "pause", "nosuch"], "agentorch agent list"),
        (["token", "revoke", "nosuch"], "agentorch token list"),
        (["limit", "remove", "type:nosuch"], "agentorch limit list"),
    ],
)
def test_who_names_what_is_not_there_is_sent_to_the_list_of_what_is(
    full: str, agentorch_at: Callable[..., Any], words: list[str], fix: str
) -> None:
    refused = agentorch_at(*words)

    assert refused.code == 7
    assert f"fix: {fix}\n" in refused.err


# --- keys -------------------------------------------------------------------------------------


def test_a_known_key_with_other_content_is_told_and_changes_nothing(
    agentorch_at: Callable[..., Any], tmp_path: Path
) -> None:
    def submitted(**task: Any) -> Any:
        (tmp_path / "t.json").write_text(json.dumps({"idempotency_key": "k", **task}))
        done = agentorch_at("task", "submit", "t.json", "--json")
        return json.loads(done.out), done.err

    first, _ = submitted(data={"a": 1, "b": [1.0, None]}, type="x")
    again, quiet = submitted(data={"b": [1, None], "a": 1}, type="x")
    other, told = submitted(data={"a": 2}, type="y", priority=9, required_capabilities=["c"])

    [task] = first["tasks"]
    assert again["tasks"] == [{**task, "is_new": False}]
    assert "idempotency key" not in quiet
    assert other["tasks"][0]["task_id"] == task["task_id"]
    assert other["tasks"][0]["differs"] == ["type", "required_capabilities", "priority", "data"]
    assert "the idempotency key 'k' is that of task" in told
    assert json.loads(agentorch_at("task", "show", task["task_id"], "--json").out)["data"]["a"] == 1


# --- events -----------------------------------------------------------------------------------


async def test_events_are_found_by_time_and_by_patterns_of_kinds(
    database_url: str, settings: Settings
) -> None:
    """Times that are out of the order of the transactions, as slow ones leave them, lose nothing."""
    draw = random.Random(7)
    connection = await asyncpg.connect(database_url)
    try:
        for number in range(60):
            ago = (60 - number) * 60 + draw.uniform(-300, 300)
            await connection.execute(
                "insert into events (tx, at, kind, task_id)"
                " values ($4::text::xid8, now() - $1 * interval '1 second', $2, $3)",
                ago,
                ("task_failed", "task_completed", "taskXfailed", "deadlock_found")[number % 4],
                str(ago),
                str(70 + number),  # numbers of transactions are no texts: 99 is before 100
            )
    finally:
        await connection.close()

    async with open_client(settings) as client:
        for minutes in (0.5, 5, 20.5, 59, 500):
            found = await client.call("event.list", since=f"{minutes}m", limit=1000)
            everything = await client.call("event.list", limit=1000)
            assert [one.task_id for one in found] == [
                one.task_id for one in everything if float(one.task_id) <= minutes * 60
            ]
        ended = await client.call(
            "event.list", kinds=["task_*", "*_found"], since="2h", until="10m", limit=1000
        )
        newest = await client.call("event.list", kinds=["task_f*"], newest=True, limit=3)
        assert await client.call("event.list", since="2999-01-01") == []
        with pytest.raises(UsageError, match="how long ago"):
            await client.call("event.list", since="yesterday")

    assert {one.kind for one in ended} == {"task_failed", "task_completed", "deadlock_found"}
    assert all(float(one.task_id) > 600 for one in ended)
    assert [one.kind for one in newest] == ["task_failed"] * 3


def test_a_tail_shows_all_since_a_time_and_goes_on_by_cursor(
    full: str, agentorch_at: Callable[..., Any]
) -> None:
    asyncio.run(_events(full, 30))

    cursors = agentorch_at("event", "tail", "-q").out.split()
    everything = agentorch_at("event", "tail", "--since", "1h", "-q").out.split()
    first = agentorch_at("event", "tail", "--since", "1h", "-n", "3", "-q").out.split()
    rest = agentorch_at("event", "tail", "--cursor", cursors[3], "-q").out.split()

    assert (len(cursors), len(everything)) == (10, 30)
    assert cursors == everything[-10:] and first == everything[-3:] and rest == cursors[4:]


async def _events(address: str, number: int) -> None:
    connection = await asyncpg.connect(address)
    try:
        for _ in range(number):
            await connection.execute("insert into events (kind) values ('tick')")
    finally:
        await connection.close()
