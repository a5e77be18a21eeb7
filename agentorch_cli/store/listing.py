"""Lists as they are asked for: which rows, in which order, how many, and where a page goes on.

A statement that lists has three places for it, which hold what is so where nothing is asked:
`true /*filter*/`, `null::text /*cursor*/` and `order by ... /*order*/`. What is put there is made of
the fixed pieces of a `Listing` and of numbered parameters: no letter of what somebody typed gets into
the SQL.

A cursor names the order, the place in it, and a last word that no two rows share:
`-created:20260101:20260101`. It stays good whatever becomes of the row that it was taken from, so a
list that is read page by page leaves nothing out and shows nothing twice, except where the very thing
that it is sorted by changes meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote, unquote

from agentorch_cli.core.hints import did_you_mean, shortened
from agentorch_cli.core.where import All, AnyOf, Expression, Field, Kind, Not, Op, Term
from agentorch_cli.errors import NotFound, UsageError
from agentorch_cli.payloads import is_storable

LONGEST_CURSOR: Final = 2_000

_ORDER: Final = {Op.BELOW: "<", Op.AT_MOST: "<=", Op.ABOVE: ">", Op.AT_LEAST: ">="}
_NEGATIVE: Final = {Op.IS_NOT: Op.IS, Op.UNLIKE: Op.LIKE, Op.NOT_IN: Op.IN}
_TURNED: Final = {Op.BELOW: ">", Op.AT_MOST: ">=", Op.ABOVE: "<", Op.AT_LEAST: "<="}
"""Older than an hour is before the moment one hour ago."""


@dataclass(frozen=True, slots=True)
class Column:
    """What a field is in SQL."""

    kind: Kind
    sql: str
    """With `{key}` for the parameter of a field that has parts."""
    words: tuple[str, ...] = ()
    has_key: bool = False
    is_age: bool = False
    """A duration that is counted back from now: `sql` is the moment."""
    few: tuple[str, ...] = ()
    """Words that few rows have, which an index knows by `sql_of_few`."""
    sql_of_few: str = ""

    @property
    def field(self) -> Field:
        return Field(self.kind, self.words, self.has_key)


@dataclass(frozen=True, slots=True)
class Sort:
    """What rows may be sorted by: never null, and of this type."""

    sql: str
    type: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What may be asked of a list of one kind of thing."""

    columns: Mapping[str, Column]
    sorts: Mapping[str, Sort]
    tie: Sort
    """What no two rows share: the end of every order."""
    usual: str
    """The order where none is asked for; a minus in front turns it round."""

    @property
    def fields(self) -> dict[str, Field]:
        """As the parser of expressions wants them."""
        return {name: column.field for name, column in self.columns.items()}


@dataclass(slots=True)
class Clauses:
    """What goes into the places of a statement, and the parameters behind its own."""

    listing: Listing
    wanted: Expression = field(default_factory=lambda: All(()))
    sort: str | None = None
    cursor: str | None = None
    values: list[Any] = field(default_factory=list)
    _first: int = 0

    def put_into(self, sql: str, parameters: int) -> str:
        """The statement, which has so many parameters of its own. Raises UsageError, NotFound."""
        self.values.clear()
        self._first = parameters + 1
        order, place = self._order()
        sort = self.listing.sorts[order.lstrip("-")]
        direction, beyond = ("desc", "<") if order.startswith("-") else ("asc", ">")
        tie = self.listing.tie
        is_tie = sort == tie
        keys = [tie] if is_tie else [sort, tie]
        conditions = [self._condition(self.wanted)]
        if place is not None:
            there = ", ".join(
                f"{self._parameter(one)}::text::{key.type}"
                for one, key in zip(place[-len(keys) :], keys, strict=True)
            )
            conditions.append(f"({', '.join(key.sql for key in keys)}) {beyond} ({there})")
        cursor = (
            f"concat({self._parameter(order)}::text, chr(31), ({sort.sql})::text, chr(31), ({tie.sql})::text)"
        )
        return (
            sql.replace("true /*filter*/", " and ".join(conditions))
            .replace("null::text /*cursor*/", cursor)
            .replace(_usual_order(sql), "order by " + ", ".join(f"{key.sql} {direction}" for key in keys))
        )

    # --- the order ----------------------------------------------------------------------------

    def _order(self) -> tuple[str, tuple[str, str] | None]:
        known = self.listing.sorts
        if self.sort is not None and self.sort.removeprefix("-") not in known:
            name = self.sort.removeprefix("-")
            raise UsageError(
                f'there is no order "{shortened(self.sort)}"{did_you_mean(name, known)}',
                hint=f"--sort {', '.join(known)}; with a minus in front, the other way round",
            )
        if self.cursor is None:
            return self.sort or self.listing.usual, None
        order, value, tie = _read(self.cursor)
        if order.removeprefix("-") not in known:
            raise _no_cursor(self.cursor)
        if self.sort is not None and self.sort != order:
            raise UsageError(
                f"the cursor is of a list in another order: --sort {order}", hint=f"--sort {order}, or none"
            )
        for text, key in ((value, known[order.removeprefix("-")]), (tie, self.listing.tie)):
            if not _is_of(text, key.type):
                raise _no_cursor(self.cursor)
        return order, (value, tie)

    # --- conditions ---------------------------------------------------------------------------

    def _condition(self, wanted: Expression, *, is_denied: bool = False) -> str:
        """`is_denied`: a `not` stands before it, so that null is not as good as false."""
        match wanted:
            case All(parts) | AnyOf(parts):
                word = " and " if isinstance(wanted, All) else " or "
                inner = [self._condition(part, is_denied=is_denied) for part in parts]
                return f"({word.join(inner)})" if inner else "true"
            case Not(part):
                return f"not {self._condition(part, is_denied=True)}"
            case Term(op=op) if op in _NEGATIVE:
                return f"not coalesce({self._term(wanted)}, false)"
            case Term():
                found = self._term(wanted)
                return f"coalesce({found}, false)" if is_denied else found

    def _term(self, term: Term) -> str:
        """One comparison, without its negation."""
        op = _NEGATIVE.get(term.op, term.op)
        column = self.listing.columns[term.field]
        sql = column.sql.format(key=f"{self._parameter(term.key)}::text") if column.has_key else column.sql
        if column.few and op in (Op.IS, Op.IN) and set(term.values) <= set(column.few):
            sql = column.sql_of_few
        many = [one if column.kind is not Kind.LIST else str(one) for one in term.values]
        match column.kind, op:
            case Kind.LIST, Op.LIKE:
                found = (
                    f"exists (select from unnest({sql}) one where one like {self._text(like(str(many[0])))})"
                )
            case Kind.LIST, _:
                found = f"{sql} && {self._parameter(many)}::text[]"
            case _, Op.LIKE:
                found = f"{sql} like {self._text(like(str(many[0])))}"
            case ((Kind.TEXT | Kind.STATE), _):
                found = f"{sql} = any({self._parameter(many)}::text[])"
            case Kind.NUMBER, (Op.IS | Op.IN):
                found = f"{sql} = any({self._parameter(many)}::float8[])"
            case Kind.DURATION, _ if column.is_age:
                ago = f"now() - {self._parameter(many[0])}::float8 * interval '1 second'"
                found = f"{sql} {_TURNED[op]} {ago}"
            case Kind.MOMENT, _:
                found = f"{sql} {_ORDER[op]} {self._moment(term.values[0])}"
            case _:
                found = f"{sql} {_ORDER[op]} {self._parameter(many[0])}::float8"
        return found

    def _moment(self, value: Any) -> str:
        if isinstance(value, datetime):
            return f"{self._parameter(value)}::timestamptz"
        return f"now() - {self._parameter(value)}::float8 * interval '1 second'"

    def _text(self, value: str) -> str:
        return f"{self._parameter(value)}::text"

    def _parameter(self, value: Any) -> str:
        self.values.append(value)
        return f"${self._first + len(self.values) - 1}"


def like(pattern: str) -> str:
    """A pattern with `*` and `?` as LIKE knows it."""
    plain = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return plain.replace("*", "%").replace("?", "_")


def cursor_from(place: str) -> str:
    """The cursor of a row, from what the statement says of its place."""
    return ":".join(quote(part, safe="") for part in place.split("\x1f", 2))


def both(*parts: Expression | None) -> Expression:
    """All of the conditions that are there."""
    return All(tuple(part for part in parts if part is not None))


def among(field_name: str, values: Sequence[str] | str | None) -> Term | None:
    """The field is one of these; nothing where there are none."""
    if not values:
        return None
    return Term(field_name, Op.IN, (values,) if isinstance(values, str) else tuple(values))


def _read(cursor: str) -> tuple[str, str, str]:
    try:
        order, value, tie = (unquote(part, errors="strict") for part in cursor[:LONGEST_CURSOR].split(":"))
    except ValueError:  # not three parts, or no letters
        raise _no_cursor(cursor) from None
    if not is_storable(order + value + tie):
        raise _no_cursor(cursor)
    return order, value, tie


def _is_of(text: str, type: str) -> bool:
    """Whether PostgreSQL reads the text as a value of this type."""
    try:
        match type:
            case "bigint":
                return text.isascii() and abs(int(text)) < 1 << 63
            case "float8":
                return text.isascii() and "_" not in text and float(text) == float(text)
            case "timestamptz":
                return text in ("infinity", "-infinity") or datetime.fromisoformat(text).tzinfo is not None
            case "uuid":
                return len(text) == 36 and all(letter in "0123456789abcdef-" for letter in text)
    except ValueError:
        return False
    return True


def _usual_order(sql: str) -> str:
    end = sql.index("/*order*/")
    return sql[sql.rindex("order by", 0, end) : end]


def _no_cursor(cursor: str) -> NotFound:
    return NotFound(f"{shortened(cursor)!r} is no cursor", hint="use the cursor of something that was listed")
