"""What task files and agent files may say: every key, its type, its range, its other spellings.

One place for the names that users see. The same tables read `[task]` and `[[tasks]]` of
TOML, JSON and JSONL files, and tasks that arrive by the wire or the API. Keys are
snake_case; camelCase is taken too. A key that is not here is an error with a suggestion.

The tables are TypedDicts, not model classes: what was read stays a plain dict that holds
only what was given, at a third of the time and memory of an object each. `taskfile` turns
them into the nouns of `core.model`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Final, Literal, get_type_hints

from pydantic import BeforeValidator, ConfigDict, Field, PlainValidator, StringConstraints, TypeAdapter
from typing_extensions import TypedDict  # pydantic takes the standard one only from Python 3.12 on

from agentorch_cli.core.durations import parse_duration
from agentorch_cli.core.model import MAX_NAME, MAX_PANEL, Aggregate, Coverage, OnDependencyFailure
from agentorch_cli.core.tracing import parse_traceparent
from agentorch_cli.core.vote import Rule

MAX_DEPENDENCIES: Final = 100_000
"""Most entries of one `depends_on`."""

MAX_CAPABILITIES: Final = 100
MAX_LABELS: Final = 64
MAX_RETRY_RULES: Final = 64
MAX_SLOTS: Final = 10_000

_STRICT = ConfigDict(extra="forbid", strict=True)
_EARLIEST, _LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def _parse_time(value: object) -> datetime:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        moment = None
    if not isinstance(moment, datetime):
        raise ValueError('must be a time such as "2030-01-31T12:00:00Z"')  # noqa: TRY004  pydantic collects ValueErrors
    if moment.tzinfo is None:
        raise ValueError('needs a time zone, as in "2030-01-31T12:00:00Z" or "+02:00"')
    if not _EARLIEST <= moment <= _LATEST:
        raise ValueError("must be a time between the years 2000 and 2200")
    return moment.astimezone(UTC)


def _parse_deadline(value: object) -> datetime | float:
    """A duration counts from acceptance, a time stands for itself."""
    if isinstance(value, str | datetime):
        try:
            return _parse_time(value)
        except ValueError as error:
            if isinstance(value, datetime) or "-" in value:
                raise error from None
    return _positive(value)


def _positive(value: object) -> float:
    seconds = parse_duration(value)
    if seconds <= 0:
        raise ValueError("must be longer than 0 seconds")
    return seconds


def _check_pointer(value: object) -> object:
    if isinstance(value, str) and value and not value.startswith("/"):
        raise ValueError('must be a JSON pointer such as "/answer"')
    return value


def _split_tolerance(value: object) -> object:
    """A number is an absolute tolerance."""
    return {"abs": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


def _check_schema(value: object) -> object:
    """Its shape only; `schemas.problems_of` says what else is wrong, each with its place."""
    if not isinstance(value, dict | bool):
        raise ValueError("must be a table (a JSON Schema), true or false")  # noqa: TRY004  as above
    return value


def _check_command(value: object) -> object:
    """A list of arguments is quoted into one command line."""
    import shlex

    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return shlex.join(value)
    return value


Text = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_NAME, pattern=r"^[^\p{Cc}]*[^\p{Cc}\s][^\p{Cc}]*$"),
]
"""An id, name, type, capability or key: not blank, no control characters."""

Duration = Annotated[float, BeforeValidator(parse_duration)]
Span = Annotated[float, BeforeValidator(_positive)]
Time = Annotated[datetime, PlainValidator(_parse_time)]
Deadline = Annotated[Any, PlainValidator(_parse_deadline)]
Capabilities = Annotated[list[Text], Field(max_length=MAX_CAPABILITIES)]
Count = Annotated[int, Field(ge=1, le=MAX_PANEL)]
Share = Annotated[float, Field(gt=0, le=1)]


class ToleranceFields(TypedDict, total=False):
    """How far apart two numbers may be and still be one answer."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]

    abs: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    rel: Annotated[float, Field(ge=0, lt=1)]


class ConsensusFields(TypedDict, total=False):
    """`[task.consensus]`: how the agents agree."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]

    rule: Annotated[Rule, Field(strict=False)]
    threshold: Share
    quorum: Count
    """Equal answers that the rule `quorum` needs; also `k`."""
    min_votes: Count
    panel: Count
    cap: Count
    confidence: Annotated[float, Field(gt=0.5, le=1)]
    """Where adaptive and weighted votes stop; `adaptive = 0.95` sets rule and confidence at once."""
    adaptive: Annotated[float, Field(gt=0.5, le=1)]
    options: Annotated[list[Any], Field(min_length=1, max_length=1000)]
    vote_on: Annotated[str, BeforeValidator(_check_pointer), StringConstraints(max_length=MAX_NAME)]
    normalize: bool
    number: bool
    tolerance: Annotated[ToleranceFields, BeforeValidator(_split_tolerance)]
    trim: Annotated[float, Field(ge=0, lt=0.5)]
    on_no_consensus: Literal["fail", "plurality", "escalate"]
    judge: Text
    comparer: Text
    frugal: bool


Usd = Annotated[float, Field(ge=1e-9, le=1e9, allow_inf_nan=False)]
Tokens = Annotated[int, Field(gt=0, le=10**15)]


class BudgetFields(TypedDict, total=False):
    """`[task.budget]` and `[budget]`: the most that all attempts of a task, or of a submission, may use."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]

    cost_usd: Usd
    tokens: Tokens
    attempt_usd: Usd
    """What one attempt is expected to use: so much is reserved for it."""
    attempt_tokens: Tokens


class RetryFields(TypedDict, total=False):
    """`[task.retry.CODE]`: what holds for errors of one code."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]

    retries: Annotated[int, Field(ge=0, le=1000)]
    backoff: Duration
    max_backoff: Span


def _check_traceparent(value: object) -> object:
    if isinstance(value, str):
        parse_traceparent(value)
    return value


class TaskFields(TypedDict, total=False):
    """One task, as a file, the wire or the API says it. Defaults are not filled in here."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]

    id: Text
    name: Text
    type: Text
    pool: Text
    required_capabilities: Capabilities
    coverage: Annotated[Coverage, Field(strict=False)]
    min_agents: Count
    max_agents: Count
    priority: Annotated[int, Field(ge=0, le=10)]
    depends_on: Annotated[list[Text], Field(max_length=MAX_DEPENDENCIES)]
    on_dependency_failure: Annotated[OnDependencyFailure, Field(strict=False)]
    on_deadlock: Literal["resolve", "report"]
    timeout: Span
    queue_timeout: Span
    deadline: Deadline
    retries: Annotated[int, Field(ge=0, le=1000)]
    backoff: Duration
    max_backoff: Span
    retry: Annotated[dict[Text, RetryFields], Field(max_length=MAX_RETRY_RULES)]
    """By error code."""
    run_at: Time
    delay: Duration
    idempotency_key: Text
    concurrency_key: Text
    """At most `concurrency_limit` tasks with one key run at once."""
    concurrency_limit: Annotated[int, Field(ge=1, le=100_000)]
    aggregate: Annotated[Aggregate, Field(strict=False)]
    requires_consensus: bool
    consensus: ConsensusFields
    verifies: Text
    """The task whose result this one checks; it waits for that one, too."""
    budget: BudgetFields
    result_schema: Annotated[Any, PlainValidator(_check_schema)]
    """What every result has to look like, as JSON Schema."""
    labels: Annotated[dict[Text, Annotated[str, Field(max_length=MAX_NAME)]], Field(max_length=MAX_LABELS)]
    traceparent: Annotated[str, BeforeValidator(_check_traceparent)]
    """The span that it is a part of, as W3C Trace Context writes it."""
    data: Any


class AgentFields(TypedDict, total=False):
    """One agent of an agents file."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]

    id: Text
    type: Text
    capabilities: Capabilities
    slots: Annotated[int, Field(ge=1, le=MAX_SLOTS)]
    pool: Text
    metadata: dict[str, Any]
    exec: Annotated[str, BeforeValidator(_check_command), StringConstraints(min_length=1, max_length=10_000)]


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


class Table:
    """The keys of one kind of table with their other spellings, and the check of many such tables."""

    def __init__(self, fields: type, aliases: Mapping[str, str] | None = None, **nested: Table) -> None:
        self.keys = frozenset(get_type_hints(fields))
        self.aliases = {_camel(key): key for key in self.keys if _camel(key) != key} | dict(aliases or {})
        self.nested = nested
        self.one: TypeAdapter[dict[str, Any]] = TypeAdapter(fields)
        self.many: TypeAdapter[list[dict[str, Any]]] = TypeAdapter(list[fields])  # type: ignore[valid-type]

    def canonical(self, item: Any, report: Callable[[tuple[str, ...], str], None]) -> Any:
        """The item with its keys in snake_case. `report` is told of keys that are there in two spellings."""
        if type(item) is not dict:
            return item
        result = item
        if None in item.values():  # null means: not given
            item = result = {key: value for key, value in item.items() if value is not None or key == "data"}
        if not item.keys() <= self.keys:
            result = {}
            for key, value in item.items():
                name = self.aliases.get(key, key)
                if name in result:
                    report((key,), f'is another spelling of "{name}", which is there too')
                result[name] = value
        for name in self.nested.keys() & result.keys():
            inner = self.nested[name].canonical(result[name], lambda path, text: report((name, *path), text))  # noqa: B023  called at once
            if inner is not result[name]:
                result = {**result, name: inner}
        return result

    def spelled(self, item: Any, path: tuple[str | int, ...]) -> tuple[str | int, ...]:
        """A path in canonical names, in the spelling of the item: the way back for errors."""
        if not path or not isinstance(item, dict):
            return path
        head, rest = path[0], path[1:]
        key = next((key for key in item if self.aliases.get(key, key) == head), head)
        nested = self.nested.get(str(head))
        return (key, *(nested.spelled(item.get(key), rest) if nested else rest))

    def known_at(self, path: tuple[str | int, ...]) -> Iterable[str]:
        """The keys that may stand beside the last step of a canonical path."""
        nested = self.nested.get(str(path[0])) if len(path) > 1 else None
        return nested.known_at(path[1:]) if nested else sorted(self.keys)


class Named(Table):
    """A table whose keys are names of the author's own, and whose values are tables of one kind."""

    def __init__(self, each: Table) -> None:
        self.each = each
        self.keys, self.aliases, self.nested = frozenset(), {}, {}

    def canonical(self, item: Any, report: Callable[[tuple[str, ...], str], None]) -> Any:
        """The item, with its values in snake_case; its keys stay as they are."""
        if type(item) is not dict:
            return item
        return {
            name: self.each.canonical(value, partial(_report_in, report, str(name)))
            for name, value in item.items()
        }

    def spelled(self, item: Any, path: tuple[str | int, ...]) -> tuple[str | int, ...]:
        """As for any table; the first step is a name."""
        if not path or not isinstance(item, dict):
            return path
        return (path[0], *self.each.spelled(item.get(path[0]), path[1:]))

    def known_at(self, path: tuple[str | int, ...]) -> Iterable[str]:
        """As for any table; any name may stand first."""
        return self.each.known_at(path[1:]) if len(path) > 1 else ()


def _report_in(
    report: Callable[[tuple[str, ...], str], None], name: str, path: tuple[str, ...], text: str
) -> None:
    report((name, *path), text)


TASKS: Final = Table(
    TaskFields,
    {"dependencies": "depends_on"},
    consensus=Table(ConsensusFields, {"k": "quorum"}, tolerance=Table(ToleranceFields)),
    budget=Table(BudgetFields),
    retry=Named(Table(RetryFields)),
)
BUDGETS: Final = Table(BudgetFields)
AGENTS: Final = Table(
    AgentFields, {"agentId": "id", "agent_id": "id", "agentType": "type", "agent_type": "type"}
)
