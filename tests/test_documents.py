"""The door for text: what passes, what is refused, and how exactly each place is named."""

from __future__ import annotations

import json
import os
import random
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import tomli_w
from effort import Effort, growth
from hypothesis import given, settings
from hypothesis import strategies as st

from agentorch_cli.documents import MAX_BYTES, Document, Format, load_document
from agentorch_cli.errors import InvalidFile, InvalidMessage
from agentorch_cli.payloads import MAX_DEPTH, check_json, decode, encode, first_fault

REFUSED = [
    (b"[task]\npriority = 3\nx = = 3\n", "3:5", "not valid TOML: invalid value"),
    (b"x = 1\r\ny = 2\r\nz z = 3\r\n", "3:3", "not valid TOML"),
    (b"a = 1\na = 2\n", "2", "not valid TOML: cannot overwrite a value"),
    (b'{"a": 1,\n "b": {"a": 2, "a": 3}}', "2:16", 'the key "a" is there twice'),
    (b'{"a": 1,\n "b": nope}', "2:7", "not valid JSON"),
    (b'{"a": 1}\n{"b": 2,}\n', "2:9", "not valid JSON"),
    (b'{"a": 1}\n\n{"b": 1e999}\n', "3:2", "not a finite number"),
    (b'{"a": [1,\n NaN]}', "2:2", "not a finite number"),
    (b'{"a":\n -Infinity}', "1:2", "not a finite number"),
    (b'{"a": 1e400}', "1:2", "not a finite number"),
    (b"a = 1\nb = nan\n", "2:1", "not a finite number"),
    (b"a = [1,\n  inf]\n", "2:3", "not a finite number"),
    (b'{"a": "\\ud800"}', "1:2", "lone surrogate"),
    (b'{"\\udfff": 1}', "", "lone surrogate"),
    (b'{"a": ["x", "\\u0000"]}', "1:13", "NUL character"),
    (b'a = "\\u0000"', "1:1", "NUL character"),
    (b'a = "\\U00000000"', "1:1", "NUL character"),
    (b'{"a": "x\0"}', "1:9", "NUL character"),
    (b"a = 1\n# \xff\n", "2", "not valid UTF-8 at byte 8: 0xff"),
    ("[task]\n".encode("utf-16"), "1", "looks like UTF-16"),
    (b'{"a": 18446744073709551616}', "1:2", "does not fit 64 bits"),
    (b"a = -9223372036854775809", "1:1", "does not fit 64 bits"),
    (b'{"a":\n ' + b"9" * 5000 + b"}", "2:2", "more than 4,300 digits"),
    (b"b = 1\na = " + b"9" * 5000, "2:5", "more than 4,300 digits"),
    (b'{"a":' * 10_000, "1:321", "nested more than 64 levels"),
    (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "1:321", "nested more than 64 levels"),
    (b"b = 1\na = " + b"[" * 10_000 + b"]" * 10_000, "2:69", "nested more than 64 levels"),
    (b"a = " + b"[" * 65 + b"]" * 65, "1:69", "nested more than 64 levels"),
    (b"a = 1\n" + b".".join([b"a"] * 20_000) + b" = 1", "2:1", "more than 32 dotted parts"),
    (b"[" + b" . ".join([b'"a"'] * 33) + b"]", "1:2", "more than 32 dotted parts"),
    (b"x = { " + b".".join([b"a"] * 33) + b" = 1 }", "1:7", "more than 32 dotted parts"),
]


@pytest.mark.parametrize(("data", "place", "message"), REFUSED, ids=range(len(REFUSED)))
def test_what_may_not_pass_is_named_with_line_and_column(data: bytes, place: str, message: str) -> None:
    with pytest.raises(InvalidFile) as caught, Effort() as effort:
        load_document(data, name="file")

    assert message in caught.value.message
    assert (caught.value.where or "").startswith(f"file:{place}" if place else "file")
    assert effort.lines < 10_000 + 20 * len(data)


def test_a_syntax_error_shows_its_line() -> None:
    with pytest.raises(InvalidFile) as caught:
        load_document(b"a = 1\nb = = 2\n", name="task.toml")

    assert caught.value.where == "task.toml:2:5"
    assert caught.value.details == {"line": 2, "column": 5, "source": "b = = 2"}


def test_the_source_line_of_an_error_stays_short_and_holds_the_place() -> None:
    with pytest.raises(InvalidFile) as caught:
        load_document(b'{"long": "' + b"x" * 100_000 + b'", oops}')

    assert "oops" in caught.value.details["source"]
    assert len(caught.value.details["source"]) <= 160


PASSES = [
    (b"", Format.TOML, {}),
    (b"\xef\xbb\xbfa = 1\n", Format.TOML, {"a": 1}),
    (b"[task]\r\npriority = 3\r\n", Format.TOML, {"task": {"priority": 3}}),
    (b"# c\n[[tasks]] # first\n", Format.TOML, {"tasks": [{}]}),
    (b'["quoted header"]\n', Format.TOML, {"quoted header": {}}),
    (b'{"a": 18446744073709551615, "b": -9223372036854775808}', Format.JSON, {"a": 2**64 - 1, "b": -(2**63)}),
    (b'\n [{"a": 1}]', Format.JSON, [{"a": 1}]),
    (b"[]", Format.JSON, []),
    (b'[1, "a"]', Format.JSON, [1, "a"]),
    (b'{\n"a": 1}', Format.JSON, {"a": 1}),
    (b'{"a": 1}\n', Format.JSON, {"a": 1}),
    (b'{"a": 1}\n\n{"b": "\xe2\x80\xa8"}\r\n', Format.JSONL, [{"a": 1}, {"b": "\u2028"}]),
    (b'{"a": "\\ud83d\\ude00 \\\\u0000"}', Format.JSON, {"a": "\U0001f600 \\u0000"}),
    (b'x = """\n' + b"a." * 50 + b'"""', Format.TOML, {"x": "a." * 50}),
    (b"x = ['''\n" + b"a." * 50 + b"x = 1\n''',\n\"" + b"a." * 40 + b'"] # ' + b"b." * 40, Format.TOML, None),
    (b"x = " + b"[" * 63 + b"]" * 63, Format.TOML, None),
    (b".".join([b"a"] * 32) + b" = 1", Format.TOML, None),
]


@pytest.mark.parametrize(("data", "format", "value"), PASSES, ids=range(len(PASSES)))
def test_what_is_right_passes_in_the_format_that_it_looks_like(
    data: bytes, format: Format, value: Any
) -> None:
    document = load_document(data)

    assert document.format is format
    assert value is None or document.value == value


def test_the_suffix_names_the_format(tmp_path: Path) -> None:
    for name, format in [
        ("a.toml", Format.TOML),
        ("a.JSON", Format.JSON),
        ("a.jsonl", Format.JSONL),
        ("a.ndjson", Format.JSONL),
    ]:
        (tmp_path / name).write_text('{"a": 1}' if format is not Format.TOML else "a = 1")
        assert load_document(tmp_path / name).format is format

    (tmp_path / "a.yaml").write_text("a: 1")
    with pytest.raises(InvalidFile, match="YAML is not read"):
        load_document(tmp_path / "a.yaml")


def test_a_file_that_cannot_be_read_is_an_invalid_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="does not exist"):
        load_document(tmp_path / "missing.toml")
    with pytest.raises(InvalidFile, match="is a directory"):
        load_document(tmp_path)
    with pytest.raises(InvalidFile, match="cannot be read"):
        load_document(Path("a\0b"))
    (tmp_path / "empty.json").write_text(" \n")
    with pytest.raises(InvalidFile, match="is empty"):
        load_document(tmp_path / "empty.json")


def test_a_file_of_100_megabytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidFile, match=r"has 95.4 MiB; at most 64 MiB are read"):
            load_document(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 1_000_000


def test_an_endless_pipe_is_read_no_further_than_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    written = 0

    def write() -> None:
        nonlocal written
        with open(path, "wb", buffering=0) as pipe:
            try:
                while True:
                    written += pipe.write(b"a" * 65536)
            except BrokenPipeError:
                return

    writer = threading.Thread(target=write)
    writer.start()
    with pytest.raises(InvalidFile, match="at most 1 MiB are read"):
        load_document(path, max_bytes=1 << 20)
    writer.join()

    assert written < 3 << 20


def test_a_limit_may_be_given_and_toml_has_a_lower_one_than_json() -> None:
    assert MAX_BYTES[Format.TOML] < MAX_BYTES[Format.JSON]
    with pytest.raises(InvalidFile, match="at most"):
        load_document(b"a = 1234567", max_bytes=8)


def test_a_place_is_the_nearest_parent_where_the_path_ends_early() -> None:
    document = load_document(b"[[tasks]]\nname = 'a'\n[[tasks]]\nname = 'b'\n", name="t.toml")

    assert document.where(("tasks", 1, "missing")) == "t.toml:3:1: tasks[1].missing"
    assert document.where() == "t.toml"
    assert Document({"a": 1}, "request").where(("a",)) == "request: a"


TRICKY = '''# a comment = 1
title = "[not.a.header]" # [[tasks]]
"quoted key" . 'other' = 1
text = """
[task]
x = 1 \\""" still
"""
raw = \'\'\'
[[tasks]]\'\'\'
list = [ # a comment ]
  1, "]", { deep = [10,
  20] },
]
when = 1979-05-27 07:32:00
[a.b]
c = { d.e = 1, f = [ { g = 2 } ] }
[[tasks]]
name = "one"
[tasks.data]
x = 1
[[tasks.list]]
y = 1
[[tasks.list]]
y = 2
[[tasks]]
[tasks.data]
x.z = 2
[ a . c ]
'''


def test_places_in_toml_survive_everything_that_only_looks_like_structure() -> None:
    document = load_document(TRICKY.encode())

    lines = {
        ("title",): 2,
        ("quoted key",): 3,
        ("quoted key", "other"): 3,
        ("text",): 4,
        ("raw",): 8,
        ("list", 1): 11,
        ("list", 2, "deep", 0): 11,
        ("list", 2, "deep", 1): 12,
        ("when",): 14,
        ("a",): 15,
        ("a", "b"): 15,
        ("a", "b", "c", "d", "e"): 16,
        ("a", "b", "c", "f", 0, "g"): 16,
        ("tasks",): 17,
        ("tasks", 0): 17,
        ("tasks", 0, "name"): 18,
        ("tasks", 0, "data", "x"): 20,
        ("tasks", 0, "list", 0): 21,
        ("tasks", 0, "list", 1, "y"): 24,
        ("tasks", 1): 25,
        ("tasks", 1, "data"): 26,
        ("tasks", 1, "data", "x", "z"): 27,
        ("a", "c"): 28,
    }
    assert {path: document.locate(path).line for path in lines} == lines  # type: ignore[union-attr]


def _marked(draw: Any, depth: int, counter: list[int]) -> Any:
    """A random value whose leaves are numbers that occur nowhere else in the text."""
    kind = draw(st.sampled_from(["leaf", "leaf", "dict", "list"])) if depth else "leaf"
    if kind == "leaf":
        counter[0] += 1
        return 770_000_000 + counter[0]
    if kind == "list":
        return [_marked(draw, depth - 1, counter) for _ in range(draw(st.integers(0, 3)))]
    keys = draw(
        st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=4, unique=True)
    )
    return {key: _marked(draw, depth - 1, counter) for key in keys}


@st.composite
def documents(draw: Any) -> dict[str, Any]:
    counter = [0]
    keys = draw(
        st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=5, unique=True)
    )
    return {key: _marked(draw, 4, counter) for key in keys if "\0" not in key}


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    below = [found for key, child in items for found in _paths(child, (*path, key))]
    return [(path, value), *below] if path else below


def _check_places(document: Document) -> None:
    """The dumb twin: the line of a leaf is the line on which its unique number stands."""
    for path, value in _paths(document.value):
        offset = document._offset(path)
        assert offset is not None, path
        if isinstance(value, int):
            expected = document.text.count("\n", 0, document.text.index(str(value))) + 1
            assert document.locate(path).line == expected, path  # type: ignore[union-attr]


@settings(max_examples=120, deadline=None)
@given(documents(), st.sampled_from([None, 2]), st.booleans())
def test_places_in_json_are_those_of_the_text(value: dict[str, Any], indent: int | None, ascii: bool) -> None:
    if "\\u0000" in json.dumps(value):
        return
    document = load_document(json.dumps(value, indent=indent, ensure_ascii=ascii).encode(), Format.JSON)

    _check_places(document)
    for path, leaf in _paths(value):
        expected = json.dumps(path[-1], ensure_ascii=ascii) if isinstance(path[-1], str) else str(leaf)[:1]
        assert document.text.startswith(expected, document._offset(path))


@settings(max_examples=60, deadline=None)
@given(st.lists(documents(), min_size=1, max_size=4))
def test_places_in_jsonl_are_those_of_the_text(values: list[dict[str, Any]]) -> None:
    text = "\n\n".join(json.dumps(value) for value in values)
    if "\\u0000" in text:
        return
    document = load_document(text.encode(), Format.JSONL)

    for index, value in enumerate(values):
        for path, _ in [((), None), *_paths(value)]:
            assert document.locate((index, *path)).line == 2 * index + 1  # type: ignore[union-attr]


@settings(max_examples=120, deadline=None)
@given(documents())
def test_places_in_toml_are_those_of_the_text(value: dict[str, Any]) -> None:
    text = tomli_w.dumps(value)
    if "\\u0000" in text:
        return
    document = load_document(text.encode(), Format.TOML)

    assert document.value == value
    _check_places(document)


def _written(rng: random.Random) -> tuple[str, dict[tuple[Any, ...], int]]:
    """A TOML text in the styles that people use and writers do not, with the line of every path."""
    lines: list[str] = []
    places: dict[tuple[Any, ...], int] = {}
    counts: dict[str, int] = {}
    table: tuple[Any, ...] = ()
    for number in range(rng.randint(1, 25)):
        line, key = len(lines) + 1, f"k{number}"
        match rng.randint(0, 7):
            case 0:
                lines.append(rng.choice(["", "# [x] = 1", "   ", "#"]))
            case 1:
                header = rng.choice(["tasks", "agents"])
                counts[header] = counts.get(header, -1) + 1
                table = (header, counts[header])
                places[table] = line
                lines.append(f"[[ {header} ]] # {key} = 1")
            case 2:
                table = (f"t{number}", "sub")
                places[table] = places[table[:1]] = line
                lines.append(f'  [t{number}."sub"]')
            case 3:
                places[(*table, key, "a b", "c")] = line
                lines.append(f"{key} . 'a b' .c = true")
            case 4:
                places[(*table, key)] = line
                quote = rng.choice(['"""', "'''"])
                lines += [f"{key} = {quote}", "[[tasks]]", f"k{number} = [", f'" {quote}']
            case 5:
                places[(*table, key, 1, "x")] = line + 2
                lines += [f"{key} = [ '#', # ]", "  # ],", '  { "x" = 1, y = "}" }', "  , ]"]
            case 6:
                places[(*table, key, "z")] = line
                lines.append(f'"{key}" = {{ y = "\\"", z = [ [ ], "]" ] }} # }}')
            case _:
                places[(*table, key)] = line
                lines.append(f"{key}={rng.choice(['1', '1979-05-27', '0x1F', '-1.5e3', 'false'])}#")
    return "\n".join(lines), places


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_places_in_toml_as_people_write_it(newline: str) -> None:
    for seed in range(300):
        text, places = _written(random.Random(seed))
        document = load_document(text.replace("\n", newline).encode(), Format.TOML)
        for path, line in places.items():
            assert document._offset(path) is not None, f"seed {seed}: {path}"
            assert document.locate(path).line == line, f"seed {seed}: {path}"  # type: ignore[union-attr]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet="[]{}\"'=.,:#\\ \n0ab", max_size=80).map(str.encode))
def test_no_bytes_bring_anything_but_a_value_or_an_invalid_file(data: bytes) -> None:
    for format in (None, *Format):
        try:
            document = load_document(data, format)
        except InvalidFile as error:
            assert error.message
        else:
            for path, _ in _paths(document.value)[:20]:
                assert document._offset(path) is not None


def test_what_a_long_document_costs_grows_with_its_length() -> None:
    def document(size: int) -> Callable[[], None]:
        text = "".join(f'[[tasks]]\nname = "t{i}"\n[tasks.data]\nx = {i}\n' for i in range(size))

        def read() -> None:
            place = load_document(text.encode()).locate(("tasks", size - 1, "data", "x"))
            assert place is not None and place.line == text.count("\n")

        return read

    document(5_000)()
    assert growth(document, 500) < 2.2


BAD_FRAMES = [
    (b'{"a": ["x", "\\u0000"]}', "/a/1", "NUL"),
    (b'{"a": {"b/~\\u0000": 1}}', "/a", "NUL"),
    (b'{"a": "\\ud800"}', None, "not valid JSON"),
    (b'{"a": NaN}', None, "not valid JSON"),
    (b'{"a": 1e400}', None, "not valid JSON"),
    (b'{"a": "\xff"}', None, "not valid JSON"),
    (b'{"a~b": [18446744073709551616]}', "/a~0b/0", "64 bits"),
    (b'{"a": -9223372036854775809}', "/a", "64 bits"),
    (b'{"a": ' + b"9" * 5000 + b"}", None, "number|JSON"),
    (b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", "/a/0", "nested more than 64"),
    (b"[" * 5000, None, "nested too deep"),
    (b"[" + b"1," * 600_000 + b"1]", None, "at most 1048576 are taken"),
    ('{"a": "\ud800"}', None, "lone surrogate"),
]


@pytest.mark.parametrize(("raw", "where", "message"), BAD_FRAMES, ids=range(len(BAD_FRAMES)))
def test_a_bad_frame_is_refused_with_a_pointer(raw: bytes | str, where: str | None, message: str) -> None:
    with pytest.raises(InvalidMessage, match=message) as caught:
        decode(raw)

    assert where is None or (caught.value.where or "").startswith(where)


BAD_VALUES = [
    ({"a": [1, float("nan")]}, "/a/1", "finite"),
    (float("inf"), "/", "finite"),
    ({"a": "\0"}, "/a", "NUL"),
    ({"a": {"x\0": 1}}, "/a", "NUL"),
    ({"a": "\ud800"}, "/a", "surrogate"),
    ({"a": {1: 2}}, "/a", "key that is not text"),
    ({"a": 2**64}, "/a", "64 bits"),
    ({"a": {1, 2}}, "/a", "not JSON: set"),
    ({"a": b"x"}, "/a", "not JSON: bytes"),
    ({"a": Path("x")}, "/a", "not JSON"),
]


@pytest.mark.parametrize(("value", "where", "message"), BAD_VALUES)
def test_a_bad_value_is_refused_with_a_pointer(value: Any, where: str, message: str) -> None:
    with pytest.raises(InvalidMessage, match=message) as caught:
        encode(value)

    assert caught.value.where == where


def test_a_value_that_holds_itself_is_nested_too_deep() -> None:
    value: list[Any] = []
    value.append(value)

    with pytest.raises(InvalidMessage, match="nested more than 64"):
        encode(value)


def test_a_payload_comes_back_as_it_went() -> None:
    value = {"a": [1, 2.5, None, True, "é\u2028\U0001f600"], "id": "12345678901234567890123", "n": 2**64 - 1}

    assert decode(encode(value)) == value
    assert decode(json.dumps(value)) == value


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
        max_leaves=12,
    )
)
def test_what_is_clean_is_what_a_plain_look_says(value: Any) -> None:
    """The dumb twin: PostgreSQL's and JSON's rules, checked leaf by leaf on the strictest writer there is."""

    def fine(item: Any) -> bool:
        if isinstance(item, dict):
            return all(fine(key) and fine(child) for key, child in item.items())
        if isinstance(item, list):
            return all(fine(child) for child in item)
        if isinstance(item, float):
            return item == item and abs(item) != float("inf")
        if isinstance(item, int):
            return -(2**63) <= item < 2**64
        return not isinstance(item, str) or not ("\0" in item or any("\ud800" <= c <= "\udfff" for c in item))

    assert (first_fault(value, strings=True) is None) == fine(value)
    if fine(value):
        check_json(value)
        assert encode(value) == orjson.dumps(value)
    else:
        with pytest.raises(InvalidMessage):
            encode(value)


_TEXTS = st.text(alphabet='ab"\\[]{}0:,\0', max_size=4) | st.just("1" * 25)
_NUMBERS = st.integers(-(2**66), 2**66) | st.floats(allow_nan=False, allow_infinity=False) | st.just(1e-300)
_TREES = st.recursive(
    _TEXTS | _NUMBERS | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(_TREES, st.integers(0, MAX_DEPTH + 2), st.booleans())
def test_what_a_frame_may_hold_is_found_in_its_text_as_by_walking_through_it(
    value: Any, levels: int, is_dict: bool
) -> None:
    for _ in range(levels):
        value = {"[": value} if is_dict else [value, []]

    text = json.dumps([value] + [[]] * MAX_DEPTH)  # so many brackets that depth has to be looked at
    fault = first_fault(json.loads(text), strings=True)

    if fault is None:
        assert decode(text) == json.loads(text)
    else:
        with pytest.raises(InvalidMessage) as caught:
            decode(text)
        assert (caught.value.where or "").startswith("/") or "digits" in caught.value.message


@pytest.mark.parametrize(
    "text", [r'"\\u0000"', "1" * 25 + "e5", "0." + "1" * 25, "1e-" + "0" * 25 + "1", r'"\""']
)
def test_what_only_looks_like_a_fault_is_taken(text: str) -> None:
    assert decode(f"[{text}]") == json.loads(f"[{text}]")


def test_a_fault_that_a_second_key_hides_is_refused_too() -> None:
    for hidden in ('"\\u0000"', "18446744073709551616", "[" * 70 + "]" * 70):
        with pytest.raises(InvalidMessage):
            decode(f'{{"a": {hidden}, "a": 1}}')


@pytest.mark.parametrize("depth", [1, MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, MAX_DEPTH + 2, 500])
def test_the_depth_limit_is_the_same_on_every_way_in(depth: int) -> None:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    text = "[" * depth + "1" + "]" * depth

    for way, error in [
        (lambda: load_document(text.encode(), Format.JSON), InvalidFile),
        (lambda: decode(text), InvalidMessage),
        (lambda: check_json(value), InvalidMessage),
        (lambda: encode(value), InvalidMessage),
    ]:
        if depth <= MAX_DEPTH:
            way()
        else:
            with pytest.raises(error, match="nested"):
                way()
