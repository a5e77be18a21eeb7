"""The language of --where: what it means, where a mistake is, and a dumb twin that agrees with it."""

from __future__ import annotations

import fnmatch
import json
import random
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from agentorch_cli.config import Settings
from agentorch_cli.core.where import All, AnyOf, Expression, Not, Op, Term, parse_where
from agentorch_cli.errors import UsageError
from agentorch_cli.store.listings import TASKS
from agentorch_cli.wiring import open_client

FIELDS = TASKS.fields

HOUR = 3600.0


def parsed(text: str) -> Expression:
    return parse_where(text, FIELDS)


# --- the grammar ------------------------------------------------------------------------------


def test_the_parts_of_a_condition_are_read_as_they_are_written() -> None:
    assert parsed('status=failed and label.team=ml and age>1h and name~"etl-*"') == All(
        (
            Term("status", Op.IS, ("failed",)),
            Term("label", Op.IS, ("ml",), "team"),
            Term("age", Op.ABOVE, (HOUR,)),
            Term("name", Op.LIKE, ("etl-*",)),
        )
    )


def test_and_binds_more_than_or_and_brackets_more_than_both() -> None:
    a, b, c = (Term("name", Op.IS, (one,)) for one in "abc")

    assert parsed("name=a or name=b and name=c") == AnyOf((a, All((b, c))))
    assert parsed("(name=a OR name=b) AND not name=c") == All((AnyOf((a, b)), Not(c)))


def test_values_are_words_or_texts_in_quotes() -> None:
    assert parsed(r'name in (a, "b c", "d\"e", and-so)') == Term("name", Op.IN, ("a", "b c", 'd"e', "and-so"))
    assert parsed("""label."my key" not in ('x')""") == Term("label", Op.NOT_IN, ("x",), "my key")
    assert parsed("priority >= 7") == Term("priority", Op.AT_LEAST, (7.0,))


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("", "1:1", "is empty"),
        ("status=faild", "1:8", 'did you mean "failed"'),
        ("stats=failed", "1:1", 'did you mean "status"'),
        ("status=failed and", "1:18", "a condition is missing"),
        ("status=failed name=x", "1:15", "too much"),
        ("(status=failed", "1:15", '")" is missing'),
        ('name="x', "1:6", "never closed"),
        ("name", "1:5", "does not compare"),
        ("name=", "1:6", "a value is missing"),
        ("name=and", "1:6", "a value is missing"),
        ("name in a", "1:9", '"(" is missing'),
        ("name in ()", "1:10", "a value is missing"),
        ("age=1h", "1:4", "age is not compared with ="),
        ("name>x", "1:5", "name is not compared with >"),
        ("age>long", "1:5", "must be a duration"),
        ("priority>high", "1:10", "is no number"),
        ("created>yesterday", "1:9", "how long ago"),
        ("label=ml", "1:1", "label.team"),
        ("name.x=ml", "1:1", "has no parts"),
        ("name=x;", "1:8", ""),
        ("status=failed\nand nme=x", "2:5", "there is no field"),
        ("name=x & name=y", "1:8", "too much"),
        ("not " * 60 + "name=x", "1:201", "nested more than"),
        ("name=x or " * 300 + "name=x", "1:2001", "compares more than"),
        ("n" * 20_000, "1:10001", "is longer than"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_mistake_is_told_with_its_place(text: str, place: str, said: str) -> None:
    if text == "name=x;":
        assert parsed(text) == Term("name", Op.IS, ("x;",))  # a word like any other: nothing ends with it
        return

    with pytest.raises(UsageError) as error:
        parsed(text)

    assert error.value.where == f"--where:{place}"
    assert said in error.value.message


def test_the_command_line_points_at_the_mistake(agentorch: Callable[..., Any], desk: Any) -> None:
    done = agentorch("task", "list", "--where", "status=failed and nme=x")

    assert (done.code, desk.calls) == (2, [])
    first, source, caret = done.err.splitlines()[:3]
    assert first == 'error: --where:1:19: there is no field "nme" (did you mean "name"?)'
    assert source.endswith("status=failed and nme=x")
    assert source[caret.index("^")] == "n" and caret.index("^") == source.index("nme")


# --- in the database --------------------------------------------------------------------------

VALUES: dict[str, list[Any]] = {
    "status": ["pending", "failed", "completed", "cancelled"],
    "name": [None, "etl-one", "etl-two", "a%b", "a_b", "100*", "report"],
    "type": ["count", "x'; drop table events; --", "Count"],
    "pool": ["default", "gpu"],
    "priority": [0, 5, 9],
    "team": [None, "ml", "web", ""],
    "agent": [[], ["anna"], ["anna", "bert"]],
    "capability": [[], ["a"], ["a", "b%"]],
    "age": [10.0, 3 * HOUR, 50 * HOUR],
}


async def stored(database_url: str, tasks: list[dict[str, Any]]) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.executemany(
            "insert into task_distributions (task_id, name, task_type, status, pool, priority,"
            " assigned_agents, required_capabilities, options, submission_id, created_at, completed_at)"
            " values ($1, $2, $3, $4, $5, $6, $7, $8, $9::jsonb, gen_random_uuid(),"
            " now() - $10::float8 * interval '1 second',"
            " case when $4 in ('pending', 'running', 'blocked') then null else now() end)",
            [
                (
                    one["id"], one["name"], one["type"], one["status"], one["pool"], one["priority"],
                    one["agent"], one["capability"],
                    json.dumps({} if one["team"] is None else {"labels": {"team": one["team"]}}), one["age"],
                )
                for one in tasks
            ],
        )  # fmt: skip
    finally:
        await connection.close()


def is_true(wanted: Expression, task: dict[str, Any]) -> bool:
    """The dumb twin."""
    match wanted:
        case All(parts):
            return all(is_true(part, task) for part in parts)
        case AnyOf(parts):
            return any(is_true(part, task) for part in parts)
        case Not(part):
            return not is_true(part, task)
        case Term():
            value = task[wanted.key or wanted.field]
            values = value if isinstance(value, list) else [value]
            positive = {Op.IS_NOT: Op.IS, Op.NOT_IN: Op.IN, Op.UNLIKE: Op.LIKE}
            op = positive.get(wanted.op, wanted.op)
            found = any(_holds(op, one, wanted.values) for one in values if one is not None)
            return found != (wanted.op in positive)


def _holds(op: Op, value: Any, wanted: tuple[Any, ...]) -> bool:
    match op:
        case Op.IS | Op.IN:
            return value in wanted
        case Op.LIKE:
            pattern = wanted[0].replace("[", "[[]")
            return fnmatch.fnmatchcase(value, pattern)
        case Op.BELOW:
            return bool(value < wanted[0])
        case Op.AT_MOST:
            return bool(value <= wanted[0])
        case Op.ABOVE:
            return bool(value > wanted[0])
        case _:
            return bool(value >= wanted[0])


def some_expression(draw: random.Random, depth: int = 0) -> str:
    if depth < 3 and draw.random() < 0.5:
        parts = [some_expression(draw, depth + 1) for _ in range(draw.randint(2, 3))]
        joined = draw.choice((" and ", " or ")).join(parts)
        return f"{draw.choice(('', 'not '))}({joined})"
    name = draw.choice(list(VALUES))
    field = "label.team" if name == "team" else name
    if name == "age":
        return f"age {draw.choice(('<', '>', '<=', '>='))} {draw.choice(('1m', '4h', '2d'))}"
    if name == "priority":
        return f"priority {draw.choice(('<', '>', '<=', '>=', '=', '!='))} {draw.choice((0, 5, 7))}"
    known = [one for value in VALUES[name] for one in (value if isinstance(value, list) else [value]) if one]
    quoted = [json.dumps(one) for one in known]
    if name != "status" and draw.random() < 0.4:
        pattern = draw.choice(("etl-*", "*", "?_b", "a?b", "*%*", "100*", "anna", "*'*", ""))
        return f'{field} {draw.choice(("~", "!~"))} "{pattern}"'
    if draw.random() < 0.4:
        return (
            f"{field} {draw.choice(('in', 'not in'))} ({', '.join(draw.sample(quoted, min(2, len(quoted))))})"
        )
    return f"{field} {draw.choice(('=', '!='))} {draw.choice(quoted)}"


async def test_the_database_finds_what_the_expression_says(database_url: str, settings: Settings) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    draw = random.Random(seed)
    tasks = [
        {"id": f"t{number}", **{name: draw.choice(values) for name, values in VALUES.items()}}
        for number in range(120)
    ]
    await stored(database_url, tasks)

    async with open_client(settings) as client:
        for _ in range(100):
            text = some_expression(draw)
            found = await client.call("task.match", where=text)
            expected = [one["id"] for one in tasks if is_true(parsed(text), one)]
            assert [one.task_id for one in found] == expected, text
        listed = await client.call(
            "task.list",
            where='label.team=ml and name!~"etl-*"',
            label={"team": "*"},
            sort="created",
            limit=200,
        )
    ml = [one for one in tasks if one["team"] == "ml"]
    assert [one.task_id for one in listed] == [
        one["id"] for one in ml if not (one["name"] or "").startswith("etl-")
    ]
