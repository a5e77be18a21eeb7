"""When are two answers the same? When their canonical texts are.

The steps, in order: `vote_on` picks the part of the result that is voted on (a JSON pointer,
RFC 6901); `normalize` trims, folds case, collapses white space and takes off one layer of
quotes or of a Markdown fence; `number` reads the whole answer as a number; otherwise the
canonical JSON of `core/canonical.py` is the text. A tolerance between numbers is no relation
between two answers but a grouping of all of them: see `core/numbers.py`.

Merge only what is equal. An empty or unreadable answer is an abstention (None), never a
label: three agents that return nothing do not agree. Equality of texts makes this an
equivalence relation by construction.
"""

from __future__ import annotations

import ast
import json
import re
import unicodedata
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from agentorch_cli.core.canonical import MAX_DEPTH, NotCanonical, canonical_json
from agentorch_cli.core.numbers import number_answer, parse_number
from agentorch_cli.errors import InvalidTask

MAX_JSON = 1_000_000
"""Longest text that is read as JSON, in characters."""

MAX_LITERAL = 10_000
"""Longest text that is read as a Python literal, in characters."""

_FENCE = re.compile(r"```[A-Za-z0-9_+-]*[ \t]*\r?\n(.*?)\r?\n?[ \t]*```", re.DOTALL)
_INLINE_FENCE = re.compile(r"(`+)([^`]+)\1")
_QUOTES = (('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’"), ("«", "»"))
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Equivalence:
    """How the answers of one vote are compared. Raises InvalidTask if `vote_on` is no JSON pointer."""

    vote_on: str = ""
    """JSON pointer to the part that is voted on; "" is the whole result."""
    normalize: bool = False
    number: bool = False

    def __post_init__(self) -> None:
        if self.vote_on and not self.vote_on.startswith("/"):
            raise InvalidTask(
                f"vote_on: {self.vote_on!r} is no JSON pointer",
                hint='a pointer starts with a slash, as in "/answer" or "/items/0"',
            )


def canonical_answer(result: Any, how: Equivalence) -> str | None:
    """The text that stands for an answer, or None for an abstention."""
    value = point(result, how.vote_on) if how.vote_on else result
    if value is _MISSING or value is None or (isinstance(value, str) and not value.strip()):
        return None
    if how.number:
        number = parse_number(_unwrap(value) if isinstance(value, str) else value)
        return None if number is None else number_answer(number)
    if how.normalize:
        value = _normalize(value)
    try:
        return canonical_json(value)
    except NotCanonical:
        return None


def canonical_options(options: Iterable[Any], how: Equivalence) -> tuple[str, ...]:
    """The given options as answers. They are values to vote for, so `vote_on` does not apply to them.

    Raises InvalidTask for an option that is empty or equal to another one.
    """
    plain = Equivalence(normalize=how.normalize, number=how.number)
    found: dict[str, Any] = {}
    for option in options:
        answer = canonical_answer(option, plain)
        if answer is None:
            raise InvalidTask(f"options: {option!r} is no answer that can be voted for")
        if answer in found:
            raise InvalidTask(f"options: {option!r} and {found[answer]!r} are the same answer")
        found[answer] = option
    return tuple(found)


def merged(answers: Iterable[str], same: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Answers to representatives, after a comparer said which pairs mean the same.

    What is said is closed under symmetry and transitivity; the least text represents its class.
    """
    parent = {answer: answer for answer in answers}

    def root(answer: str) -> str:
        while parent[answer] != answer:
            parent[answer] = answer = parent[parent[answer]]
        return answer

    for one, other in same:
        if one in parent and other in parent:
            low, high = sorted((root(one), root(other)))
            parent[high] = low
    return {answer: root(answer) for answer in parent}


def point(document: Any, pointer: str) -> Any:
    """The value that a JSON pointer names, or a private marker if it is not there.

    Agents often print JSON as text; a document that is such text is read first.
    """
    if isinstance(document, str):
        document = _read(_unwrap(document), document)
    for raw in pointer.split("/")[1:]:
        token = raw.replace("~1", "/").replace("~0", "~")
        if isinstance(document, dict):
            document = document.get(token, _MISSING)
        elif isinstance(document, list) and re.fullmatch(r"0|[1-9][0-9]{0,8}", token):
            document = document[int(token)] if int(token) < len(document) else _MISSING
        else:
            return _MISSING
        if document is _MISSING:
            return _MISSING
    return document


def _normalize(value: Any) -> Any:
    """Text folded, at every depth; text that is a whole JSON or Python container becomes that container."""
    match value:
        case str():
            inner = _unwrap(value)
            container = _fold_inside(_read(inner, inner))
            return container if _has_text(container) else _fold(inner)
        case _:
            return _fold_inside(value)


def _has_text(value: Any) -> bool:
    try:
        canonical_json(value)
    except NotCanonical:
        return False
    return True


def _fold_inside(value: Any) -> Any:
    match value:
        case str():
            return _fold(value)
        case list():
            return [_fold_inside(item) for item in value]
        case tuple():
            return tuple(_fold_inside(item) for item in value)
        case set():
            return {_fold_inside(item) for item in value}
        case dict():
            return {key: _fold_inside(item) for key, item in value.items()}
        case _:
            return value


def _fold(text: str) -> str:
    """NFC, case-folded, white space collapsed. Folding can undo NFC and the reverse, hence twice."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return " ".join(unicodedata.normalize("NFC", folded.casefold()).split())


def _unwrap(text: str) -> str:
    """Trimmed, without one layer of a Markdown fence or of quotes."""
    text = text.strip()
    fenced = _FENCE.fullmatch(text)
    if fenced:
        return fenced[1].strip()
    inline = _INLINE_FENCE.fullmatch(text)
    if inline:
        return inline[2].strip()
    for opening, closing in _QUOTES:
        if len(text) >= 2 and text[0] == opening and text[-1] == closing:
            inner = text[1:-1]
            # 'a' and 'b' begins and ends with a quote but is not one quoted text.
            return text if opening in inner or closing in inner else inner
    return text


def _read(text: str, otherwise: Any) -> Any:
    """The JSON or Python container that the whole text writes, if it is one."""
    if not text or text[0] not in "[{(" or text[-1] not in "]})" or len(text) > MAX_JSON:
        return otherwise
    if _depth(text) > MAX_DEPTH:
        return otherwise
    try:
        return json.loads(text, parse_constant=_refuse, object_pairs_hook=_unique)
    except ValueError:
        return _literal(text, otherwise)


def _literal(text: str, otherwise: Any) -> Any:
    if len(text) > MAX_LITERAL:
        return otherwise
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a stray backslash is the agent's affair
            literal = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return otherwise
    return literal if isinstance(literal, dict | list | tuple | set) else otherwise


def _depth(text: str) -> int:
    """An upper bound of the nesting: brackets inside strings count too."""
    depth = deepest = 0
    for character in text:
        if character in "[{(":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]})":
            depth -= 1
    return deepest


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON value")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("two keys are the same")
    return dict(pairs)
