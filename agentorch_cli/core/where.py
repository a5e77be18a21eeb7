"""A small language that says which tasks are meant: `status=failed and label.team=ml and age>1h`.

    expression := all ("or" all)*
    all        := part ("and" part)*
    part       := "not" part | "(" expression ")" | term
    term       := FIELD ("=" | "!=" | "~" | "!~" | "<" | "<=" | ">" | ">=") VALUE
                | FIELD ["not"] "in" "(" VALUE ("," VALUE)* ")"

A value is a word, or text in quotes in which a backslash takes the next letter as it is. `~` compares
with a pattern: `*` is any text, `?` any one letter. Nothing is evaluated here: what comes out is a tree
of terms whose values were checked, and the store makes parameters of them. A mistake is told with its
place in the text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from agentorch_cli.core.durations import parse_duration
from agentorch_cli.core.hints import did_you_mean, shortened
from agentorch_cli.core.moments import parse_moment
from agentorch_cli.errors import UsageError

LONGEST: Final = 10_000
"""Characters of an expression."""

MOST_TERMS: Final = 200
DEEPEST: Final = 50
"""How far brackets and `not` may be nested."""

Value = str | float | datetime


class Op(StrEnum):
    """How a field is compared."""

    IS = "="
    IS_NOT = "!="
    LIKE = "~"
    UNLIKE = "!~"
    BELOW = "<"
    AT_MOST = "<="
    ABOVE = ">"
    AT_LEAST = ">="
    IN = "in"
    NOT_IN = "not in"


class Kind(StrEnum):
    """What a field holds, which says how it may be compared."""

    TEXT = "text"
    STATE = "state"
    """A text of a fixed list."""
    LIST = "list"
    """Several texts: a comparison is true if it is true of one of them."""
    NUMBER = "number"
    DURATION = "duration"
    MOMENT = "moment"


EQUAL: Final = (Op.IS, Op.IS_NOT, Op.IN, Op.NOT_IN)
ORDER: Final = (Op.BELOW, Op.AT_MOST, Op.ABOVE, Op.AT_LEAST)

ALLOWED: Final[Mapping[Kind, tuple[Op, ...]]] = {
    Kind.TEXT: (*EQUAL, Op.LIKE, Op.UNLIKE),
    Kind.STATE: EQUAL,
    Kind.LIST: (*EQUAL, Op.LIKE, Op.UNLIKE),
    Kind.NUMBER: (*EQUAL, *ORDER),
    Kind.DURATION: ORDER,
    Kind.MOMENT: ORDER,
}


@dataclass(frozen=True, slots=True)
class Field:
    """A field that may be named."""

    kind: Kind
    words: Collection[str] = ()
    """Of a state: all that there are."""
    has_key: bool = False
    """It is written `name.key`, such as `label.team`."""


@dataclass(frozen=True, slots=True)
class Term:
    """One comparison. Durations are seconds."""

    field: str
    op: Op
    values: tuple[Value, ...]
    key: str | None = None


@dataclass(frozen=True, slots=True)
class All:
    """True where every part is; with no part, always."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """True where one of the parts is."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """True where the part is not."""

    part: Expression


Expression = Term | All | AnyOf | Not


def parse_where(text: str, fields: Mapping[str, Field], *, name: str = "--where") -> Expression:
    """The expression. Raises UsageError with the place, `name` saying where the text comes from."""
    return _Parser(text, fields, name).whole()


_TOKEN: Final = re.compile(
    r"""(?P<space>\s+)
      | (?P<op>!=|!~|<=|>=|==|=|~|<|>)
      | (?P<mark>[(),])
      | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<word>[^\s!=~<>(),"']+)""",
    re.VERBOSE | re.DOTALL,
)
_KEYWORDS: Final = frozenset({"and", "or", "not", "in"})


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    """`op`, `mark`, `text`, `word` or `end`."""
    text: str
    at: int

    @property
    def keyword(self) -> str | None:
        return self.text.lower() if self.kind == "word" and self.text.lower() in _KEYWORDS else None


class _Parser:
    """By recursive descent, one token ahead."""

    def __init__(self, text: str, fields: Mapping[str, Field], name: str) -> None:
        self._source = text
        self._fields = fields
        self._name = name
        self._terms = 0
        self._depth = 0
        if len(text) > LONGEST:
            raise self._fault(LONGEST, f"is longer than {LONGEST:,} characters")
        self._tokens = self._split()
        self._next = 0

    def whole(self) -> Expression:
        if self._token.kind == "end":
            raise self._fault(0, "is empty", "for instance: status=failed and label.team=ml")
        found = self._any()
        if self._token.kind != "end":
            raise self._fault(self._token.at, f"{self._shown()} is too much here: and, or, or the end")
        return found

    # --- the grammar ------------------------------------------------------------------------

    def _any(self) -> Expression:
        parts = [self._all()]
        while self._took("or"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def _all(self) -> Expression:
        parts = [self._part()]
        while self._took("and"):
            parts.append(self._part())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _part(self) -> Expression:
        self._depth += 1
        try:
            if self._depth > DEEPEST:
                raise self._fault(self._token.at, f"is nested more than {DEEPEST} deep")
            if self._took("not"):
                return Not(self._part())
            if self._took("("):
                inner = self._any()
                self._want(")")
                return inner
            return self._term()
        finally:
            self._depth -= 1

    def _term(self) -> Term:
        name, key, at = self._field()
        field = self._fields[name]
        op, op_at = self._op()
        if op not in ALLOWED[field.kind]:
            ways = ", ".join(ALLOWED[field.kind])
            raise self._fault(op_at, f"{name} is not compared with {op}: it takes {ways}")
        values = self._values() if op in (Op.IN, Op.NOT_IN) else [self._value()]
        self._terms += len(values)
        if self._terms > MOST_TERMS:
            raise self._fault(at, f"compares more than {MOST_TERMS} values")
        return Term(name, op, tuple(self._read(field, token) for token in values), key)

    def _field(self) -> tuple[str, str | None, int]:
        token = self._token
        if token.kind != "word" or token.keyword is not None:
            what = "a condition is missing here" if token.kind == "end" else f"{self._shown()} is no field"
            raise self._fault(token.at, what, self._known())
        self._next += 1
        name, dot, key = token.text.partition(".")
        if name not in self._fields:
            raise self._fault(
                token.at,
                f'there is no field "{shortened(token.text)}"{did_you_mean(name, self._fields)}',
                self._known(),
            )
        if not self._fields[name].has_key:
            if dot:
                raise self._fault(token.at, f'{name} has no parts, and "{shortened(token.text)}" names one')
            return name, None, token.at
        if dot and not key and self._token.kind == "text" and self._token.at == token.at + len(token.text):
            key = _unquoted(self._token.text)
            self._next += 1
        if not key:
            raise self._fault(token.at, f"{name} wants a name behind a dot: {name}.team")
        return name, key, token.at

    def _op(self) -> tuple[Op, int]:
        token = self._token
        if token.kind == "op":
            self._next += 1
            return Op("=" if token.text == "==" else token.text), token.at
        if self._took("in"):
            return Op.IN, token.at
        if self._took("not"):
            self._want("in")
            return Op.NOT_IN, token.at
        raise self._fault(token.at, f"{self._shown()} does not compare: =, !=, ~, !~, <, <=, >, >= or in")

    def _values(self) -> list[_Token]:
        self._want("(")
        values = [self._value()]
        while self._took(","):
            values.append(self._value())
        self._want(")")
        return values

    def _value(self) -> _Token:
        token = self._token
        if token.keyword is not None:
            raise self._fault(token.at, f'a value is missing; to mean the word itself: "{token.text}"')
        if token.kind not in ("word", "text"):
            raise self._fault(token.at, f"a value is missing before {self._shown()}")
        self._next += 1
        return token

    def _read(self, field: Field, token: _Token) -> Value:
        """The value of a token, as the field wants it."""
        text = _unquoted(token.text) if token.kind == "text" else token.text
        try:
            match field.kind:
                case Kind.NUMBER:
                    return _number(text)
                case Kind.DURATION:
                    return parse_duration(text)
                case Kind.MOMENT:
                    return parse_moment(text)
        except ValueError as error:
            raise self._fault(token.at, f'"{shortened(text)}" {error}') from error
        if field.kind is Kind.STATE and text not in field.words:
            hint = f"one of {', '.join(field.words)}"
            raise self._fault(
                token.at, f'"{shortened(text)}" is no state{did_you_mean(text, field.words)}', hint
            )
        if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
            raise self._fault(token.at, "a value holds a letter that cannot be stored")
        return text

    # --- tokens -----------------------------------------------------------------------------

    def _split(self) -> list[_Token]:
        tokens: list[_Token] = []
        at = 0
        while at < len(self._source):
            found = _TOKEN.match(self._source, at)
            if found is None:
                letter = self._source[at]
                what = "this quote is never closed" if letter in "\"'" else f"{letter!r} means nothing here"
                raise self._fault(at, what)
            if found.lastgroup != "space":
                tokens.append(_Token(str(found.lastgroup), found.group(), at))
            at = found.end()
        return [*tokens, _Token("end", "", len(self._source))]

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _took(self, wanted: str) -> bool:
        """Whether the next token is this keyword or mark, which then is behind us."""
        is_next = self._token.keyword == wanted or (self._token.kind == "mark" and self._token.text == wanted)
        self._next += is_next
        return is_next

    def _want(self, wanted: str) -> None:
        if not self._took(wanted):
            raise self._fault(self._token.at, f'"{wanted}" is missing before {self._shown()}')

    def _shown(self) -> str:
        return f'"{shortened(self._token.text)}"' if self._token.kind != "end" else "the end"

    def _known(self) -> str:
        return "fields: " + ", ".join(
            f"{name}.NAME" if f.has_key else name for name, f in self._fields.items()
        )

    def _fault(self, at: int, what: str, hint: str | None = None) -> UsageError:
        line = self._source.count("\n", 0, at) + 1
        begin = self._source.rfind("\n", 0, at) + 1
        source = self._source[begin:].partition("\n")[0]
        return UsageError(
            what,
            where=f"{self._name}:{line}:{at - begin + 1}",
            hint=hint,
            source=(source if at < len(self._source) else source + " ")[:LONGEST],
            line=line,
            column=at - begin + 1,
        )


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)


def _number(text: str) -> float:
    if not re.fullmatch(r"-?\d{1,15}(\.\d{1,9})?", text, re.ASCII):
        raise ValueError("is no number")
    return float(text)
