"""What makes two answers the same, and what does not."""

from __future__ import annotations

import json
import random
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentorch_cli.core.canonical import NotCanonical, canonical_json, number_text
from agentorch_cli.core.equivalence import Equivalence, canonical_answer, canonical_options, merged
from agentorch_cli.core.numbers import groups, median, number_answer, parse_number, trimmed_mean
from agentorch_cli.errors import InvalidTask

PLAIN = Equivalence()
FOLDED = Equivalence(normalize=True)
NUMBER = Equivalence(number=True)

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        # RFC 8785, appendix B.
        (0.0, "0"),
        (-0.0, "0"),
        (5e-324, "5e-324"),
        (-5e-324, "-5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (9007199254740992.0, "9007199254740992"),
        (295147905179352830000.0, "295147905179352830000"),
        (9.999999999999997e22, "9.999999999999997e+22"),
        (1e23, "1e+23"),
        (1.0000000000000001e23, "1.0000000000000001e+23"),
        (999999999999999700000.0, "999999999999999700000"),
        (1e21, "1e+21"),
        (9.999999999999997e-7, "9.999999999999997e-7"),
        (0.000001, "0.000001"),
        (333333333.3333332, "333333333.3333332"),
        (333333333.33333343, "333333333.33333343"),
        (-0.0000033333333333333333, "-0.0000033333333333333333"),
        (1424953923781206.2, "1424953923781206.2"),
        (18, "18"),
        (18.0, "18"),
        (10**21, "1e+21"),
        (2**53 + 1, "9007199254740993"),
    ],
)
def test_numbers_are_written_as_ecmascript_writes_them(value: float, text: str) -> None:
    assert number_text(value) == text


def test_the_example_of_rfc_8785() -> None:
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": '€$\u000f\nA\'B"\\\\"/',
        "literals": [None, True, False],
    }

    assert canonical_json(value) == (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )


def test_keys_are_sorted_by_utf_16_units() -> None:
    # The example of RFC 8785 with another last key: its own one changes under NFC.
    value = {"€": 1, "\r": 2, "\uff21": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "ö": 7}

    assert list(json.loads(canonical_json(value))) == ["\r", "1", "\u0080", "ö", "€", "\U0001f600", "\uff21"]


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), "\ud800", {"\ud800": 1}, {"é": 1, "e\u0301": 2}, 10**400, object()]
)
def test_what_has_no_canonical_text_is_an_abstention(value: Any) -> None:
    with pytest.raises(NotCanonical):
        canonical_json(value)
    assert canonical_answer(value, PLAIN) is None


def test_too_deep_is_refused_without_recursion_errors() -> None:
    deep: Any = 1
    for _ in range(5_000):
        deep = [deep]

    assert canonical_answer(deep, PLAIN) is None
    assert canonical_answer("[" * 5_000 + "]" * 5_000, FOLDED) == json.dumps("[" * 5_000 + "]" * 5_000)


@pytest.mark.parametrize("empty", [None, "", "   ", "\n"])
def test_an_empty_answer_is_an_abstention(empty: Any) -> None:
    for how in (PLAIN, FOLDED, NUMBER):
        assert canonical_answer(empty, how) is None


def same(one: Any, other: Any, how: Equivalence) -> bool:
    answer = canonical_answer(one, how)
    return answer is not None and answer == canonical_answer(other, how)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": [1.0, "x"]}, {"b": [1, "x"], "a": 1.0}),
        ("é", "e\u0301"),
    ],
)
def test_json_that_says_the_same_is_the_same(one: Any, other: Any) -> None:
    assert same(one, other, PLAIN)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("18", 18),
        ("a", "A"),
        ("a", " a"),
        (True, "true"),
        (1, True),
        ([1, 2], [2, 1]),
        ({}, []),
        ("18", "18.0"),
    ],
)
def test_without_options_nothing_else_is_merged(one: Any, other: Any) -> None:
    assert not same(one, other, PLAIN)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Paris", "  paris\n"),
        ('"Paris"', "Paris"),
        ("`Paris`", "Paris"),
        ("```\nParis\n```", "Paris"),
        ("```text\nParis\n```", "PARIS"),
        ("New   York", "new york"),
        ("Straße", "STRASSE"),
        ('```json\n{"b": 1, "a": "X"}\n```', {"a": "x", "b": 1.0}),
        ("['a', 'b']", '["a","b"]'),
        ("{'a': None}", '{"a": null}'),
        ("[1,2]", "[1, 2]"),
        ("(1, 2)", "(1,2)"),
    ],
)
def test_normalize_merges_how_the_same_thing_is_written(one: Any, other: Any) -> None:
    assert same(one, other, FOLDED)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("'a' and 'b'", "a' and 'b"),
        ("(1, 2)", "[1, 2]"),
        ("{1: 2}", "{'1': 2}"),
        ("{1, 2}", "[1, 2]"),
        ("18", "18.0"),
        ("a b", "ab"),
        ('""Paris""', "Paris"),
    ],
)
def test_normalize_keeps_apart_what_differs(one: Any, other: Any) -> None:
    assert not same(one, other, FOLDED)


def test_a_quoted_nothing_is_an_answer() -> None:
    assert canonical_answer("''", FOLDED) == '""'


@pytest.mark.parametrize(
    "text", ["['\\d']", "(1)(2)", "[0x1for]", "{[1]: 2}", "[1e400]", "[" + "9" * 6_000 + "]"]
)
def test_strange_literals_stay_text_and_say_nothing(text: str) -> None:
    assert canonical_answer(text, FOLDED) is not None


@pytest.mark.parametrize(
    "text",
    [
        "18",
        "18.0",
        "18.",
        "$18",
        "$18.00",
        '"18"',
        "`18`",
        "18 USD",
        "€18",
        "+18",
        "1.8e1",
        "36/2",
        " 18 ",
        18,
        18.0,
    ],
)
def test_a_number_is_a_number_however_it_is_written(text: Any) -> None:
    assert canonical_answer(text, NUMBER) == "18"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,234.50", "1234.5"),
        ("1 234 567", "1234567"),
        ("1'234", "1234"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("\N{MINUS SIGN}5", "-5"),
        ("0.10", "0.1"),
        (".5", "0.5"),
        ("1/3", "1/3"),
        ("-2/6", "-1/3"),
        ("1/8", "0.125"),
        (0.1, "0.1"),
        (1e-7, "0.0000001"),
        ("-0", "0"),
    ],
)
def test_canonical_numbers(text: Any, number: str) -> None:
    assert canonical_answer(text, NUMBER) == number


@pytest.mark.parametrize(
    "text",
    [
        "12 minutes",
        "about 12",
        "3 + 4 = 7",
        "12,34",
        "1,234 567",
        "1/0",
        "--7",
        "-+7",
        "50%",
        "0x10",
        "١٢",
        "1e9999",
        "9" * 1_000,
        "nan",
        True,
        [18],
        {"a": 18},
        10**400,
        float("inf"),
    ],
)
def test_the_whole_answer_must_be_a_number(text: Any) -> None:
    assert canonical_answer(text, NUMBER) is None


@given(st.fractions() | st.integers() | st.floats(allow_nan=False, allow_infinity=False).map(Fraction))
@settings(max_examples=200, deadline=None)
def test_a_canonical_number_reads_back_as_itself(number: Fraction) -> None:
    number = Fraction(number).limit_denominator(10**40)
    read = parse_number(number_answer(Fraction(number)))

    assert read == number or abs(number) > 10**200


@given(JSON_VALUES)
@settings(max_examples=300, deadline=None)
def test_canonical_json_reads_back_and_is_stable(value: Any) -> None:
    try:
        text = canonical_json(value)
    except NotCanonical:
        return

    assert canonical_json(json.loads(text)) == text


@given(JSON_VALUES, st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_the_order_of_keys_is_nothing(value: Any, rng: random.Random) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            items = [(key, shuffled(item)) for key, item in value.items()]
            rng.shuffle(items)
            return dict(items)
        return [shuffled(item) for item in value] if isinstance(value, list) else value

    assert canonical_answer(value, PLAIN) == canonical_answer(shuffled(value), PLAIN)


ANSWERS = [
    "18",
    "18.0",
    "$18",
    18,
    " 18",
    "x",
    "X",
    '"x"',
    "x ",
    None,
    "",
    [1],
    "[1]",
    "[1.0]",
    {"a": 1},
    "{'a': 1}",
]


@pytest.mark.parametrize("how", [PLAIN, FOLDED, NUMBER], ids=["plain", "normalize", "number"])
def test_being_the_same_is_an_equivalence_relation(how: Equivalence) -> None:
    for one in ANSWERS:
        if canonical_answer(one, how) is not None:
            assert same(one, one, how)
        for other in ANSWERS:
            assert same(one, other, how) == same(other, one, how)
            for third in ANSWERS:
                if same(one, other, how) and same(other, third, how):
                    assert same(one, third, how)


RESULT = {"answer": {"value": "18"}, "items": [{"x": 1}, {"x": 2}], "a/b": 3, "m~n": 4, "": 5, "01": 6}


@pytest.mark.parametrize(
    ("pointer", "answer"),
    [
        ("/answer/value", '"18"'),
        ("/items/1/x", "2"),
        ("/a~1b", "3"),
        ("/m~0n", "4"),
        ("/", "5"),
        ("/01", "6"),
        ("/items/01", None),
        ("/items/-", None),
        ("/items/2", None),
        ("/items/x", None),
        ("/nothing", None),
        ("/answer/value/deeper", None),
    ],
)
def test_vote_on_points_into_the_result(pointer: str, answer: str | None) -> None:
    assert canonical_answer(RESULT, Equivalence(vote_on=pointer)) == answer
    assert canonical_answer(json.dumps(RESULT), Equivalence(vote_on=pointer)) == answer


def test_a_pointer_begins_with_a_slash() -> None:
    with pytest.raises(InvalidTask, match="no JSON pointer"):
        Equivalence(vote_on="answer")


def test_options_are_canonical_answers_and_all_different() -> None:
    assert canonical_options(["Yes", "no"], Equivalence("/vote", normalize=True)) == ('"yes"', '"no"')
    with pytest.raises(InvalidTask, match="same answer"):
        canonical_options(["Yes", "yes "], FOLDED)
    with pytest.raises(InvalidTask, match="no answer"):
        canonical_options(["twelve"], NUMBER)


def test_what_a_comparer_says_is_closed_to_classes() -> None:
    found = merged(["d", "c", "b", "a", "e"], [("a", "b"), ("c", "b"), ("d", "unknown")])

    assert found == {"a": "a", "b": "a", "c": "a", "d": "d", "e": "e"}


def as_groups(numbers: list[str], absolute: str, relative: str = "0") -> list[list[str]]:
    ordered = sorted(map(Fraction, numbers))
    found = groups(ordered, Fraction(absolute), Fraction(relative))
    return [[number_answer(number) for number in group] for group in found]


def test_numbers_within_the_tolerance_are_a_group() -> None:
    assert as_groups(["10", "10.4", "12", "9.9", "12"], "0.5") == [["9.9", "10", "10.4"], ["12", "12"]]
    assert as_groups(["100", "109", "200"], "0", "0.1") == [["100", "109"], ["200"]]
    assert as_groups(["1", "1", "2"], "0") == [["1", "1"], ["2"]]
    assert as_groups([], "1") == []


def test_a_chain_is_not_one_group() -> None:
    found = as_groups(["0", "0.9", "1.8", "2.7", "3.6", "4.5"], "1")

    assert found == [["0", "0.9", "1.8"], ["2.7", "3.6", "4.5"]]


def test_no_group_is_wider_than_two_tolerances_and_equals_stay_together() -> None:
    rng = random.Random(11)
    for _ in range(300):
        numbers = sorted(
            Fraction(rng.randint(-40, 40), rng.choice((1, 2, 4))) for _ in range(rng.randint(1, 25))
        )
        absolute = Fraction(rng.randint(0, 8), 2)

        found = groups(numbers, absolute, Fraction(0))

        assert [number for group in found for number in group] == numbers
        assert all(group[-1] - group[0] <= 2 * absolute for group in found)
        assert all(low[-1] < high[0] for low, high in pairwise(found))


def test_median_and_trimmed_mean() -> None:
    numbers = [Fraction(number) for number in (1, 2, 3, 4, 100)]

    assert median(numbers) == 3
    assert median(numbers[:4]) == Fraction(5, 2)
    assert trimmed_mean(numbers, Fraction(1, 5)) == 3
    assert trimmed_mean(numbers, Fraction(0)) == 22
