"""What results have to look like: which schemas are taken, what they cost, and how a misfit is told."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from agentorch_cli.schemas import ENDLESS, MAX_SCHEMA, Fit, Fits, problems_of, weight_of

REPORT = {
    "type": "object",
    "properties": {
        "verdict": {"enum": ["supported", "contradicted"]},
        "pages": {"type": "array", "items": {"type": "integer", "minimum": 1}},
    },
    "required": ["verdict"],
    "additionalProperties": False,
}


def fault(schema: Any, value: Any) -> str | None:
    found = Fit(schema).fault(value)
    assert (found is None) == Fit(schema).takes(value)
    return None if found is None else str(found)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"verdict": "supported", "pages": [1, 2]}, None),
        ({"verdict": "maybe"}, '/verdict: must be "supported" or "contradicted", not "maybe"'),
        ({}, 'lacks "verdict"'),
        ({"verdict": "supported", "pages": [1, "2"]}, '/pages/1: must be a whole number, not "2"'),
        ({"verdict": "supported", "pages": [0]}, "/pages/0: is less than the minimum of 1 (it is 0)"),
        ({"verdict": "supported", "note": 1}, 'has "note", which is not asked for'),
        ("supported", 'must be an object, not "supported"'),
    ],
)
def test_a_misfit_is_told_with_its_place(value: Any, told: str | None) -> None:
    assert fault(REPORT, value) == told


def test_of_alternatives_each_is_told() -> None:
    either: Any = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    assert fault(either, "x") == 'must be a whole number or null, not "x"'
    schema: Any = {"oneOf": [{"type": "integer"}, {"properties": {"n": {"type": "integer"}}}]}
    assert fault(schema, {"n": "x"}) == (
        "fits none of 2 alternatives: must be a whole number, not an object;"
        ' or /n: must be a whole number, not "x"'
    )


def test_true_takes_everything_and_false_nothing() -> None:
    assert fault(True, {"a": [None]}) is None
    assert fault(False, None) == "must not be there: the schema takes nothing here"


def test_what_an_agent_wrote_is_told_short_and_without_escapes() -> None:
    told = fault({"properties": {"\x1b[2J/~": {"type": "integer"}}}, {"\x1b[2J/~": "\x1b]0;x\x07" * 1000})

    assert told is not None
    assert told.isprintable()
    assert told.startswith("/\\x1b[2J~1~0: must be a whole number, not ")
    assert len(told) < 200


@pytest.mark.parametrize(
    ("schema", "path", "word"),
    [
        ({"type": "strin"}, ("type",), "string"),
        ({"type": ["string", "nul"]}, ("type",), "null"),
        ({"properties": {"n": {"minimum": "3"}}}, ("properties", "n", "minimum"), "must be a number"),
        ({"allOf": [{"required": "a"}]}, ("allOf", 0, "required"), "must be a list"),
        ({"pattern": "("}, ("pattern",), "regular expression"),
        ({"pattern": "(?=x)"}, ("pattern",), "look-around"),
        ({"patternProperties": {"(": True}}, ("patternProperties", "("), "regular expression"),
        ({"$schema": "https://example.com"}, ("$schema",), "no draft"),
        ({"items": {"$ref": "file:///etc/passwd"}}, ("items", "$ref"), "nothing is fetched"),
        ({"items": {"$ref": "#/$defs/a"}}, ("items", "$ref"), "not in the schema"),
        ({"$ref": "#a"}, (), "cannot be resolved"),
        ({"description": "x" * MAX_SCHEMA}, (), "bytes as JSON"),
        ({"allOf": [{"pattern": "a"}] * 201}, (), "201 patterns"),
    ],
)
def test_a_schema_that_cannot_be_used_is_told_with_its_place(
    schema: Any, path: tuple[str | int, ...], word: str
) -> None:
    [(where, told)] = problems_of(schema)

    assert where == path
    assert word in told


def test_a_schema_that_is_too_deep_is_refused() -> None:
    schema: Any = {}
    for _ in range(20):
        schema = {"allOf": [schema]}

    assert problems_of(schema) == [((), "is nested more than 32 levels deep")]


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        REPORT,
        {"$defs": {"n": {"type": "null"}}, "items": {"$ref": "#/$defs/n"}},
        {"const": {"$ref": "https://example.com"}},
        {"properties": {"$ref": {"type": "string"}, "pattern": {"pattern": "^a"}}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {"type": "string"}}},
        {"properties": {"next": {"$ref": "#"}}},
    ],
)
def test_a_schema_that_can_be_used_has_no_problems(schema: Any) -> None:
    assert problems_of(schema) == []
    assert Fit(schema)


def test_an_older_draft_is_checked_by_its_own_rules() -> None:
    tuple_of_two = {"items": [{"type": "integer"}, {"type": "string"}]}
    draft7 = {"$schema": "http://json-schema.org/draft-07/schema#", **tuple_of_two}

    assert fault(draft7, [1, 2]) == "/1: must be text, not 2"
    assert problems_of(tuple_of_two), "the default draft writes this as prefixItems"


def nested(levels: int, *, ways: int = 2) -> dict[str, Any]:
    """A few hundred bytes that ask for ways ** levels things."""
    shelves: dict[str, Any] = {
        f"s{n}": {"anyOf": [{"$ref": f"#/$defs/s{n + 1}"}] * ways} for n in range(levels)
    }
    return {"$defs": {**shelves, f"s{levels}": {"type": "string"}}, "$ref": "#/$defs/s0"}


def test_the_weight_counts_what_references_unfold_to() -> None:
    assert weight_of({"type": "integer"}) == 1
    assert weight_of({"items": {"type": "integer"}, "$defs": {"unused": REPORT}}) == 2
    assert 2**10 <= weight_of(nested(10)) < 2**13
    assert weight_of(nested(60)) == ENDLESS
    assert weight_of({"items": {"$ref": "#"}}) == ENDLESS
    assert weight_of({"items": {"$ref": "#here"}, "$defs": {"a": {"$anchor": "here"}}}) == ENDLESS
    assert weight_of({"pattern": "a"}) > 100, "a pattern may take long"


def test_what_a_schema_could_cost_is_known_before_it_runs() -> None:
    assert not Fit(nested(40)).is_quick(1)
    assert Fit(REPORT).is_quick(50_000)
    assert not Fit({"pattern": "a"}).is_quick(50_000)


@pytest.mark.parametrize(
    ("schema", "value", "is_quick", "is_quickly_told"),
    [
        ({"type": "string"}, "short", True, True),
        ({"pattern": "(?:[a-z]{1,30}){1,30}x"}, "ab" * 1_990, True, False),
        (
            {"anyOf": [{"items": {"type": "object"}}, {"items": {"type": "string"}}]},
            [1] * 30_000,
            True,
            False,
        ),
        ({"allOf": [{"items": {"enum": list(range(100))}}] * 5}, [101] * 1_000, False, False),
        (
            {"patternProperties": {f"^{n}x": True for n in range(100)}},
            {str(n): 0 for n in range(5)},
            False,
            False,
        ),
        ({"uniqueItems": True}, [[n] for n in range(60_000)], True, False),
        (nested(10), 7, True, True),
        (nested(12), 7, True, False),
    ],
)
def test_what_takes_long_is_not_checked_on_the_loop(
    schema: Any, value: Any, is_quick: bool, is_quickly_told: bool
) -> None:
    fit, size = Fit(schema), len(json.dumps(value))

    assert (fit.is_quick(size), fit.is_quickly_told(size)) == (is_quick, is_quickly_told)


def test_compiled_schemas_are_kept_and_the_oldest_forgotten() -> None:
    fits = Fits(most=2)
    first = fits.of('{"type":"integer"}')
    second = fits.of('{"type":"string"}')
    assert fits.of('{"type":"integer"}') is first

    fits.of("true")

    assert len(fits) == 2
    assert fits.of('{"type":"integer"}') is first
    assert fits.of('{"type":"string"}') is not second


def test_a_schema_that_cannot_be_compiled_raises_an_error_that_can_be_told() -> None:
    with pytest.raises(ValueError, match="ype"):
        Fits().of('{"type":"nothing"}')


def test_documents_are_built_when_they_are_first_used() -> None:
    """Building all of them takes longer than most commands need for everything else."""
    code = "from agentorch_cli import views; print(views.StatusView.__pydantic_complete__)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"
