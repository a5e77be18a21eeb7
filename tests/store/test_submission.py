"""A submission goes in whole or not at all, whatever its ids look like."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from agentorch_cli.core.backlog import Ready
from agentorch_cli.core.model import Aggregate, Coverage, TaskSpec
from agentorch_cli.errors import Conflict
from agentorch_cli.handlers import Context
from agentorch_cli.handlers.tasks import get_task, list_tasks, submit_tasks
from agentorch_cli.store import submission
from agentorch_cli.store.store import WHOLE, Store, hinted_in, row_in

AWKWARD = [
    'a"b\\c,{}',
    "NULL",
    "null",
    "~",
    "*",
    "{}",
    '""',
    " leading and trailing ",
    "ünï—çødé 🦀 \u202e",
    "a)b",
    "it's; drop table task_distributions; --",
    "$1",
    "x" * 200,
]


def spec(task_id: str, *depends_on: str, **fields: Any) -> TaskSpec:
    return TaskSpec(task_id, depends_on=depends_on, required_capabilities=("work",), **fields)


@pytest.mark.parametrize("text", AWKWARD)
async def test_awkward_texts_come_back_as_they_went_in(store: Store, text: str) -> None:
    context = Context(store)
    task = replace(
        spec(text),
        name=text,
        type=text,
        required_capabilities=(text, "b"),
        idempotency_key=text,
        labels={text: text},
        data={text: [text]},
    )
    await submit_tasks(context, [task, spec("next", text, dependency_names={text: text})])

    shown, after = await get_task(context, text), await get_task(context, "next")
    ready = {one.task_id: one for one in await store.ready_tasks(10)}[text]

    assert (shown.name, shown.type, shown.idempotency_key) == (text, text, text)
    assert shown.required_capabilities == [text, "b"]
    assert shown.labels == {text: text} and shown.data == {text: [text]}
    assert after.depends_on == [text]
    assert ready.want.required == {text, "b"}


@pytest.mark.parametrize("text", ["a)b", 'a"b\\c,{}', "task"])
async def test_an_id_that_is_taken_is_named_and_nothing_is_stored(store: Store, text: str) -> None:
    context = Context(store)
    await submit_tasks(context, [spec(text)])

    with pytest.raises(Conflict) as caught:
        await submit_tasks(context, [*(spec(f"new {n}") for n in range(99)), spec(text)])

    assert repr(text) in caught.value.message
    assert [task.task_id for task in await list_tasks(context)] == [text]


async def test_an_id_that_is_taken_undoes_edges_and_events_too(store: Store) -> None:
    context = Context(store)
    await submit_tasks(context, [spec("old")])

    with pytest.raises(Conflict):
        await submit_tasks(context, [spec("a", "old"), spec("b", "a"), spec("old")])

    counts = await store.db.pool.fetchrow(
        "select (select count(*) from task_dependencies), (select count(*) from events)"
    )
    assert tuple(counts) == (0, 1)


async def test_ten_thousand_tasks_go_in_at_once(store: Store) -> None:
    reply = await submit_tasks(Context(store), [spec(f"t{n}") for n in range(10_000)])

    assert len(reply.tasks) == 10_000
    assert await store.db.pool.fetchval("select count(*) from task_distributions") == 10_000
    assert [task.task_id for task in await store.ready_tasks(3)] == ["t0", "t1", "t2"]


@pytest.fixture
def by_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is more than a task goes in as a large submission does: two at a time."""
    monkeypatch.setattr(submission, "LARGE", 1)
    monkeypatch.setattr(submission, "SLICE", 2)
    monkeypatch.setattr(submission, "COPIED_AT_ONCE", 100)


SHOWN = """
select task_id, name, status, required_capabilities, wanted, waiting_on, depends_on, dependency_names,
  has_dependents, remaining_path, options, task_data, is_delayed, seq - min(seq) over () as seq,
  (select array_agg(e.depends_on order by e.depends_on)
   from task_dependencies e where e.task_id = t.task_id) as edges,
  (select array_agg(v.kind) from events v where v.task_id = t.task_id) as events
from task_distributions t order by t.seq
"""


async def _stored_rows(store: Store, tasks: list[TaskSpec]) -> list[tuple[Any, ...]]:
    await submit_tasks(Context(store), tasks)
    rows = await store.db.pool.fetch(SHOWN)
    await store.db.pool.execute("truncate task_dependencies, events; truncate task_distributions cascade")
    return [tuple(row) for row in rows]


async def test_a_large_submission_becomes_the_same_rows_by_slices(
    store: Store, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    names = [*AWKWARD, *(f"t{n}" for n in range(20))]
    tasks = [
        spec(
            name,
            *names[max(0, n - 5) : n : 2],
            *names[:n][:1] * 2,  # one of them twice
            dependency_names={other: f"the {other}"[:200] for other in names[:n]},
            name=f"{n}",
            data={"n": n},
            delay_seconds=60.0 if n == 0 else None,
        )
        for n, name in enumerate(names)
    ]
    whole = await _stored_rows(store, tasks)

    request.getfixturevalue("by_slices")

    assert await _stored_rows(store, tasks) == whole


@pytest.mark.usefixtures("by_slices")
async def test_a_fault_in_the_last_slice_undoes_all_of_them(store: Store) -> None:
    context = Context(store)
    await submit_tasks(context, [spec("old")])

    with pytest.raises(Conflict, match="'old'"):
        await submit_tasks(context, [*(spec(f"new {n}", "old") for n in range(6)), spec("old")])

    counts = await store.db.pool.fetchrow(
        "select (select count(*) from task_distributions), (select count(*) from task_dependencies),"
        " (select count(*) from events)"
    )
    assert tuple(counts) == (1, 0, 1)


@pytest.mark.usefixtures("by_slices")
async def test_a_large_submission_waits_only_for_what_has_not_ended(store: Store) -> None:
    context = Context(store)
    await submit_tasks(context, [spec("done"), spec("open"), spec("broken")])
    await store.db.pool.execute(
        "update task_distributions set status = 'completed', completed_at = now(), wanted = 0,"
        " result = 'null' where task_id = 'done'"
    )
    await store.db.pool.execute(
        "update task_distributions set status = 'cancelled', completed_at = now(), wanted = 0"
        " where task_id = 'broken'"
    )

    reply = await submit_tasks(
        context,
        [spec("a", "done"), spec("b", "done", "open", "a"), spec("c", "broken", "open"), spec("d", "c")],
    )

    assert [(task.task_id, task.status) for task in reply.tasks] == [
        ("a", "pending"),
        ("b", "blocked"),
        ("c", "failed"),
        ("d", "failed"),
    ]
    edges = await store.db.pool.fetch("select depends_on, task_id from task_dependencies order by 1, 2")
    assert [tuple(edge) for edge in edges] == [("a", "b"), ("open", "b")]


# --- idempotency keys -------------------------------------------------------------------------


async def test_a_known_key_is_answered_with_its_task_in_the_place_of_the_new_one(store: Store) -> None:
    context = Context(store)
    first = await submit_tasks(context, [spec("a", idempotency_key="k")])

    again = await submit_tasks(
        context, [spec("b"), spec("c", "b", idempotency_key="k"), spec("d", "c", dependency_names={"c": "C"})]
    )

    assert [(t.task_id, t.is_new) for t in again.tasks] == [("b", True), ("a", False), ("d", True)]
    assert first.tasks[0].is_new
    assert (await get_task(context, "d")).depends_on == ["a"]


async def test_the_same_file_twice_changes_nothing(store: Store) -> None:
    context = Context(store)
    file = [spec("a", idempotency_key="1"), spec("b", "a", idempotency_key="2")]
    again = [spec("c", idempotency_key="1"), spec("d", "c", idempotency_key="2")]

    await submit_tasks(context, file)
    reply = await submit_tasks(context, again)

    assert [(task.task_id, task.is_new) for task in reply.tasks] == [("a", False), ("b", False)]
    assert len(await list_tasks(context)) == 2


async def test_ten_at_once_with_one_key_store_one_task(store: Store) -> None:
    context = Context(store)

    replies = await asyncio.gather(
        *(submit_tasks(context, [spec(f"x{n}"), spec(f"t{n}", idempotency_key="k")]) for n in range(10))
    )

    owners = {reply.tasks[1].task_id for reply in replies}
    assert len(owners) == 1
    assert sum(reply.tasks[1].is_new for reply in replies) == 1
    assert [reply.tasks[0].task_id for reply in replies] == [f"x{n}" for n in range(10)]
    assert await store.db.pool.fetchval("select count(*) from task_distributions") == 11


async def test_keys_that_are_taken_one_after_the_other_are_all_answered(store: Store) -> None:
    context = Context(store)
    keys = [f"k{n}" for n in range(5)]

    replies = await asyncio.gather(
        *(
            submit_tasks(context, [spec(f"{who} {key}", idempotency_key=key) for key in keys])
            for who in range(8)
        )
    )

    for reply in replies:
        assert len(reply.tasks) == 5
    assert len({tuple(task.task_id for task in reply.tasks) for reply in replies}) == 1
    assert await store.db.pool.fetchval("select count(*) from task_distributions") == 5


async def test_one_key_twice_in_a_submission_is_refused(store: Store) -> None:
    context = Context(store)

    with pytest.raises(Conflict, match="'k'"):
        async with asyncio.timeout(5):
            await submit_tasks(
                context, [spec("a", idempotency_key="k"), spec("b", idempotency_key="k"), spec("c")]
            )

    assert await list_tasks(context) == []


@pytest.fixture
async def hints(store: Store) -> AsyncIterator[asyncio.Queue[str]]:
    """What is said of ready tasks."""
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with store.db.pool.acquire() as connection:

        def hear(*said: Any) -> None:
            heard.put_nowait(said[3])

        await connection.add_listener("agentorch_tasks", hear)
        yield heard
        await connection.remove_listener("agentorch_tasks", hear)


LABELS = {"team": "a\nb", "ünï": "\x1e\u2028"}


@pytest.mark.parametrize("text", AWKWARD)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"priority": 9, "retries": 0, "timeout_seconds": 1.5, "remaining_path": 3.0, "labels": LABELS},
        {"coverage": Coverage.TEAM, "min_agents": 2, "max_agents": 3, "aggregate": Aggregate.ALL},
        {"estimate_seconds": 0.1},
    ],
)
async def test_the_hint_of_a_single_task_says_what_its_row_says(
    store: Store, hints: asyncio.Queue[str], text: str, fields: dict[str, Any]
) -> None:
    await submit_tasks(Context(store), [replace(spec(text), type=text, **fields)])

    async with asyncio.timeout(10):
        said = await hints.get()
    assert said.startswith(WHOLE)
    (told,) = await store.ready_among([row_in(said)])
    (read,) = await store.ready_tasks_by_id([text])
    assert {name: getattr(told, name) for name in Ready.__slots__} == {
        name: getattr(read, name) for name in Ready.__slots__
    }
    assert await store.ready_among([row_in(said)], "another pool") == []


@pytest.mark.parametrize(
    "fields",
    [
        {"deadline_seconds": 60.0},
        {"consensus": {"rule": "majority"}, "min_agents": 3, "max_agents": 5},
        {"labels": {str(number): "x" * 200 for number in range(60)}},
    ],
)
async def test_a_task_of_which_more_is_to_be_known_is_hinted_at_by_its_id(
    store: Store, hints: asyncio.Queue[str], fields: dict[str, Any]
) -> None:
    await submit_tasks(Context(store), [replace(spec("one"), **fields)])

    async with asyncio.timeout(10):
        assert hinted_in(await hints.get()) == (["one"], False, ["default"])
