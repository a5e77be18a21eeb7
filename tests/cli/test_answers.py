"""What a person typed, and what it means."""

from __future__ import annotations

from typing import Any

import pytest

from agentorch_cli.cli.answers import Misfit, Reply, described

YES_NO = ["yes", "no"]
NAME = {"type": "string", "maxLength": 5}
POLL = {"type": "object", "required": ["verdict"], "properties": {"verdict": {"enum": YES_NO}}}


@pytest.mark.parametrize(
    ("schema", "typed", "value"),
    [
        (None, "plain words", "plain words"),
        (None, "  around  ", "around"),
        (None, '{"a": 1}', {"a": 1}),
        (None, "42", 42),
        (None, "null", None),
        (None, '"42"', "42"),
        (None, "two\nlines", "two\nlines"),
        ({"type": "string"}, "42", "42"),
        ({"type": "string"}, '{"a": 1}', '{"a": 1}'),
        ({"type": "string"}, '"quoted"', "quoted"),
        ({"type": "number"}, "3.5", 3.5),
        ({"type": "boolean"}, "YES", True),
        ({"type": "boolean"}, "false", False),
        ({"type": "boolean"}, "2", False),
        ({"type": ["boolean", "string"]}, "y", True),
        ({"type": ["integer", "null"]}, "null", None),
        ({"enum": YES_NO}, "2", "no"),
        ({"enum": YES_NO}, "No", "no"),
        ({"enum": YES_NO}, "y", "yes"),
        ({"enum": YES_NO}, '"yes"', "yes"),
        ({"enum": [10, 20]}, "20", 20),
        ({"enum": ["1", "2"]}, "2", "2"),
        ({"enum": ["2", "1"]}, "1", "1"),
        ({"const": "done"}, "done", "done"),
        ({"type": "array"}, "[1]", [1]),
        (True, "x", "x"),
        (POLL, '{"verdict": "no"}', {"verdict": "no"}),
    ],
)
def test_typed_words_become_what_the_schema_wants(schema: Any, typed: str, value: Any) -> None:
    is_complete, found = Reply(schema).take(typed)

    assert is_complete
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("schema", "typed", "why"),
    [
        ({"type": "integer"}, "3.5", "that does not fit: it must be a whole number, not 3.5"),
        ({"type": "integer"}, "three", 'that does not fit: it must be a whole number, not "three"'),
        (NAME, "1234567", 'that does not fit: it is longer than 5 characters (it is "1234567")'),
        ({"enum": [10, 20]}, "1", "choose one of 10, 20"),
        ({"enum": ["north", "not at all"]}, "no", "choose one of north, not at all"),
        ({"type": "array", "items": {"type": "null"}}, "[1]", "that does not fit: /0: must be null, not 1"),
        (False, "x", "that does not fit: it must not be there: the schema takes nothing here"),
        (None, " ", "type an answer"),
        (None, "a\0b", "that cannot be sent: contains a NUL character"),
        (None, "x" * 900_001, "that cannot be sent: has 900003 bytes as JSON; at most 900000 are taken"),
        ({"type": "object"}, "words", 'that does not fit: it must be an object, not "words"'),
    ],
)
def test_what_does_not_fit_is_told(schema: Any, typed: str, why: str) -> None:
    with pytest.raises(Misfit) as caught:
        Reply(schema).take(typed)

    assert str(caught.value) == why


def test_a_vote_is_one_of_its_options() -> None:
    vote = Reply(None, ["approve", "reject"], noun="vote")
    assert vote.prompt == "vote> "
    assert vote.take("1") == (True, "approve")
    assert vote.take('"reject"') == (True, "reject")
    with pytest.raises(Misfit, match="choose one of approve, reject"):
        vote.take("maybe")


def test_a_vote_on_a_part_is_put_into_its_place() -> None:
    assert Reply(None, YES_NO, "/verdict/short").take("no") == (True, {"verdict": {"short": "no"}})
    assert Reply(None, YES_NO, "/a~1b").take("1") == (True, {"a/b": "yes"})
    assert Reply(None, YES_NO, "/verdict").take('{"verdict": "no", "note": 1}') == (
        True,
        {"verdict": "no", "note": 1},
    )
    assert Reply(POLL, YES_NO, "/verdict").take("y") == (True, {"verdict": "yes"})


def test_a_judge_may_say_something_that_no_voter_said() -> None:
    judge = Reply(None, ["deep", {"depth": 3}], is_open=True)

    assert judge.take("2") == (True, {"depth": 3})
    assert judge.take("neither") == (True, "neither")


def test_an_object_of_simple_fields_is_asked_for_field_by_field() -> None:
    reply = Reply(
        {
            "type": "object",
            "required": ["who", "sure"],
            "properties": {"who": NAME, "sure": {"type": "boolean"}, "n": {"type": "integer"}},
        }
    )
    assert reply.prompt == "who> "
    with pytest.raises(Misfit, match="who is needed: text of at most 5 characters"):
        reply.take("")
    assert reply.take("anna") == (False, None)
    assert (reply.prompt, reply.field_choices()) == ("sure> ", [True, False])
    assert reply.take("no") == (False, None)
    assert reply.field is not None
    assert reply.field.hint == "a whole number, Enter leaves it out"
    assert reply.take("") == (True, {"who": "anna", "sure": False})


def test_fields_that_do_not_fit_together_are_asked_for_again() -> None:
    reply = Reply(
        {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "minProperties": 1,
        }
    )
    reply.take("")
    with pytest.raises(Misfit, match="less than 1 propert"):
        reply.take("")

    assert reply.prompt == "a> "


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {"a": {"type": "array"}}},
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["b"]},
        {"properties": {"a": {"type": "string"}}},
        {"type": "object", "properties": {f"f{n}": {"type": "null"} for n in range(21)}},
        {"type": "object", "properties": {"a": {}}},
    ],
)
def test_other_objects_are_typed_as_json(schema: Any) -> None:
    assert Reply(schema).fields == []
    assert Reply(schema).prompt == "answer> "


def test_a_schema_that_cannot_be_checked_here_is_left_to_the_engine() -> None:
    endless = {"anyOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]}
    assert Reply(endless).take("words") == (True, "words")
    assert Reply({"type": "nothing"}).take("words") == (True, "words")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (True, "anything"),
        ({"type": "integer", "minimum": 1, "maximum": 5}, "a whole number from 1 to 5"),
        ({"type": ["string", "null"]}, "text or null"),
        ({"enum": YES_NO}, "yes or no"),
        ({"const": 3}, "3"),
        ({}, "JSON"),
    ],
)
def test_a_schema_in_a_few_words(schema: Any, words: str) -> None:
    assert described(schema) == words
