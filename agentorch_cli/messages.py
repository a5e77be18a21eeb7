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

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    TypeAdapter,
    WithJsonSchema,
)
from typing_extensions import TypedDict  # pydantic takes the standard one only from Python 3.12 on

from agentorch_cli.core.durations import DURATION_SCHEMA, parse_duration
from agentorch_cli.core.model import (
    MAX_NAME,
    MAX_PANEL,
    NAME_PATTERN,
    Aggregate,
    Coverage,
    OnDependencyFailure,
)
from agentorch_cli.core.tracing import parse_traceparent
from agentorch_cli.core.vote import Rule

MAX_DEPENDENCIES: Final = 100_000
"""Most entries of one `depends_on`."""

MAX_CAPABILITIES: Final = 100
MAX_LABELS: Final = 64
MAX_RETRY_RULES: Final = 64
MAX_SLOTS: Final = 10_000
MAX_REPLICAS: Final = 1_000

_COMMAND_SCHEMA: Final = {
    "x-type": "text or list of texts",
    "anyOf": [
        {"type": "string", "minLength": 1, "maxLength": 10_000},
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
    ],
}

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


def _check_function(value: object) -> object:
    if isinstance(value, str):
        module, colon, name = value.partition(":")
        if not (module and colon and name):
            raise ValueError("must name a function as module:function")
    return value


def _check_variable(value: object) -> object:
    if isinstance(value, str) and not (value.replace("_", "x").isalnum() and value.isascii()):
        raise ValueError("must be the name of a variable: letters, digits and underscores")
    return value


Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME, pattern=NAME_PATTERN)]
"""An id, name, type, capability or key: not blank, no control characters."""

_TIME_SCHEMA: Final = {"x-type": "time", "type": "string", "pattern": "^[0-9].*[0-9]", "maxLength": 100}

Duration = Annotated[float, BeforeValidator(parse_duration), WithJsonSchema(DURATION_SCHEMA)]
Span = Annotated[float, BeforeValidator(_positive), WithJsonSchema(DURATION_SCHEMA)]
Time = Annotated[datetime, PlainValidator(_parse_time), WithJsonSchema(_TIME_SCHEMA)]
Deadline = Annotated[
    Any,
    PlainValidator(_parse_deadline),
    WithJsonSchema({"x-type": "duration or time", "anyOf": [*DURATION_SCHEMA["anyOf"], _TIME_SCHEMA]}),
]
Capabilities = Annotated[list[Text], Field(max_length=MAX_CAPABILITIES)]
Count = Annotated[int, Field(ge=1, le=MAX_PANEL)]
Share = Annotated[float, Field(gt=0, le=1)]


class ToleranceFields(TypedDict, total=False):
    """How far apart two numbers may be and still be one answer."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]

    abs: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """The largest distance of two numbers that are one answer.

    Default: none
    Example: abs = 0.5
    """
    rel: Annotated[float, Field(ge=0, lt=1)]
    """The same as a share of the number.

    Default: none
    Example: rel = 0.01
    """


class ConsensusFields(TypedDict, total=False):
    """`[task.consensus]`: how the agents agree."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]

    rule: Annotated[Rule, Field(strict=False)]
    """How ballots become one answer.

    Default: `"supermajority"`
    Example: rule = "majority"
    """
    threshold: Share
    """Share of the electorate that a supermajority needs.

    Default: `0.66`
    Example: threshold = 0.75
    """
    quorum: Count
    """Equal answers that rule `quorum` needs; sets the rule if none is named.

    Default: none
    Example: quorum = 3
    """
    min_votes: Count
    """Fewer answers decide nothing.

    Default: `2`
    Example: min_votes = 3
    """
    panel: Count
    """Voters at most; sets `max_agents` where that is not given.

    Default: `5` (setting `consensus.panel`)
    Example: panel = 7
    """
    cap: Count
    """Voters at most of adaptive and weighted votes, and after an escalation.

    Default: `7` (setting `consensus.cap`)
    Example: rule = "adaptive"
        cap = 9
    """
    confidence: Annotated[float, Field(gt=0.5, le=1)]
    """Where adaptive and weighted votes stop.

    Default: `0.95`
    Example: rule = "weighted"
        confidence = 0.9
    """
    adaptive: Annotated[float, Field(gt=0.5, le=1)]
    """Sets rule `adaptive` and its confidence at once.

    Default: none
    Example: adaptive = 0.95
    """
    options: Annotated[list[Any], Field(min_length=1, max_length=1000)]
    """The answers that count; any other is an abstention.

    Default: none
    Example: options = ["yes", "no"]
    """
    vote_on: Annotated[
        str,
        BeforeValidator(_check_pointer),
        StringConstraints(max_length=MAX_NAME),
        WithJsonSchema(
            {"x-type": "JSON pointer", "type": "string", "pattern": "^(/|$)", "maxLength": MAX_NAME}
        ),
    ]
    """The part of the result that is voted on, such as `"/verdict"`.

    Default: the whole result
    Example: vote_on = "/verdict"
    """
    normalize: bool
    """Case, white space, quotes and Markdown fences make no difference.

    Default: `false`
    Example: normalize = true
    """
    number: bool
    """The whole answer is read as a number, so `"1,000"` equals `1e3`; the rules on numbers imply it.

    Default: `false`
    Example: number = true
    """
    tolerance: Annotated[ToleranceFields, BeforeValidator(_split_tolerance)]
    """How far apart two numbers may be and still be one answer: a distance, or `abs` and `rel` (a share of
    the number); implies `number`.

    Default: none
    Example: tolerance = 0.5
    """
    trim: Annotated[float, Field(ge=0, lt=0.5)]
    """Share that rule `trimmed_mean` drops at each end.

    Default: `0.2`
    Example: rule = "trimmed_mean"
        trim = 0.1
    """
    on_no_consensus: Literal["fail", "plurality", "escalate"]
    """The task fails; or completes with the most popular answer, marked as not reached; or more voters are
    asked up to `cap`, then a judge.

    Default: `"fail"`
    Example: on_no_consensus = "escalate"
    """
    judge: Text
    """Capability of whoever decides where an escalated vote did not.

    Default: `"human"`
    Example: on_no_consensus = "escalate"
        judge = "editor"
    """
    comparer: Text
    """Capability of an agent that says whether two answers mean the same.

    Default: none
    Example: comparer = "compare"
    """
    frugal: bool
    """Weighted votes also stop, less sure, once the rest can change nothing.

    Default: `false`
    Example: rule = "weighted"
        frugal = true
    """


Usd = Annotated[float, Field(ge=1e-9, le=1e9, allow_inf_nan=False)]
Tokens = Annotated[int, Field(gt=0, le=10**15)]


class BudgetFields(TypedDict, total=False):
    """`[task.budget]` and `[budget]`: the most that all attempts of a task, or of a submission, may use."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]

    cost_usd: Usd
    """The most in dollars, exact to a billionth.

    Default: none
    Example: cost_usd = 0.50
    """
    tokens: Tokens
    """The most in tokens, read and written together.

    Default: none
    Example: tokens = 200_000
    """
    attempt_usd: Usd
    """What one attempt is expected to use: so much is reserved for it.

    Default: what is known of the type
    Example: cost_usd = 1.00
        attempt_usd = 0.05
    """
    attempt_tokens: Tokens
    """The same in tokens.

    Default: likewise
    Example: tokens = 200_000
        attempt_tokens = 8_000
    """


class RetryFields(TypedDict, total=False):
    """`[task.retry.CODE]`: what holds for errors of one code."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]

    retries: Annotated[int, Field(ge=0, le=1000)]
    """How often an attempt may fail with this code and be tried again.

    Default: the task's `retries`
    Example: retries = 10
    """
    backoff: Duration
    """Wait before the first retry after this code; doubles with each further one.

    Default: the task's `backoff`
    Example: backoff = "30s"
    """
    max_backoff: Span
    """Longest wait before a retry after this code.

    Default: the task's `max_backoff`
    Example: max_backoff = "10m"
    """


def _check_traceparent(value: object) -> object:
    if isinstance(value, str):
        parse_traceparent(value)
    return value


class TaskFields(TypedDict, total=False):
    """One task, as a file, the wire or the API says it. Defaults are not filled in here."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]

    id: Text
    """What the task is called for ever; must not exist yet.

    Default: a new UUIDv7
    Example: id = "harbour-report-7"
    """
    name: Text
    """What others of the submission may say in `depends_on`, and the key of its result in their `inputs`.

    Default: none
    Example: name = "fetch"
    """
    type: Text
    """Which handler of an agent does it.

    Default: `"task"`
    Example: type = "count_words"
    """
    pool: Text
    """Only agents of this pool get it, from a `serve` that schedules it.

    Default: `"default"`; for a sub-task its parent's
    Example: pool = "north"
    """
    required_capabilities: Capabilities
    """An agent must have all of these; at most 100.

    Default: `[]`
    Example: required_capabilities = ["fetch", "summarise"]
    """
    coverage: Annotated[Coverage, Field(strict=False)]
    """Every chosen agent has all capabilities, or the agents have them together.

    Default: `"each"`
    Example: coverage = "team"
        required_capabilities = ["fetch", "summarise"]
    """
    min_agents: Count
    """Agents that must be free at once; all or none are taken.

    Default: `1`; for a vote 2
    Example: min_agents = 3
    """
    max_agents: Count
    """Takes up to so many if they are free; at least `min_agents`.

    Default: `1`; for a vote its `panel`, else 3; for a team the number of its capabilities
    Example: max_agents = 5
    """
    priority: Annotated[int, Field(ge=0, le=10)]
    """Higher goes first; a waiting task gains one step a minute (`engine.aging_seconds`).

    Default: `5`
    Example: priority = 8
    """
    depends_on: Annotated[list[Text], Field(max_length=MAX_DEPENDENCIES)]
    """Names or ids in the submission, or ids of stored tasks; at most 100,000.

    Default: `[]`
    Example: depends_on = ["fetch"]
    """
    on_dependency_failure: Annotated[OnDependencyFailure, Field(strict=False)]
    """What becomes of it when a dependency fails or is cancelled.

    Default: `"fail"`
    Example: on_dependency_failure = "skip"
    """
    on_deadlock: Literal["resolve", "report"]
    """A deadlock that it takes part in is resolved by the engine, or only reported and left to a person.

    Default: `"resolve"`
    Example: on_deadlock = "report"
    """
    timeout: Span
    """Longest run of one attempt, from its acceptance (setting `engine.task_timeout`).

    Default: `"5m"`
    Example: timeout = "30s"
    """
    estimate: Span
    """How long an attempt is expected to take. What is ready goes by the longest path of estimates that waits
    for it; where it is missing, by how long tasks of the type have taken.

    Default: that of its type
    Example: estimate = "90s"
    """
    queue_timeout: Span
    """Longest time that it may be ready without being started.

    Default: none
    Example: queue_timeout = "10m"
    """
    deadline: Deadline
    """The task fails if it has no result by then; a duration counts from its acceptance by the database.

    Default: none
    Example: deadline = "2h"
    """
    retries: Annotated[int, Field(ge=0, le=1000)]
    """Further attempts after one that failed or timed out (setting `engine.retries`).

    Default: `2`
    Example: retries = 5
    """
    backoff: Duration
    """Wait before the first retry; doubles each time up to `max_backoff`, the upper half of it random
    (setting `engine.backoff`).

    Default: `"1s"`
    Example: backoff = "500ms"
    """
    max_backoff: Span
    """Longest wait before a retry (setting `engine.max_backoff`).

    Default: `"5m"`
    Example: max_backoff = "1m"
    """
    retry: Annotated[dict[Text, RetryFields], Field(max_length=MAX_RETRY_RULES)]
    """By error code: `retries`, `backoff`, `max_backoff`.

    Default: none
    Example: retry = { rate_limited = { retries = 10, backoff = "30s" } }
    """
    run_at: Time
    """Not before this; not together with `delay`.

    Default: at once
    Example: run_at = "2030-01-31T12:00:00Z"
    """
    delay: Duration
    """The same, counted from submission.

    Default: none
    Example: delay = "15m"
    """
    idempotency_key: Text
    """Submitted again with the same key, the task that has it is named instead of a new one.

    Default: none
    Example: idempotency_key = "harbour-2030-01-31"
    """
    concurrency_key: Text
    """At most `concurrency_limit` tasks with the same key run at once; the others wait their turn.

    Default: none
    Example: concurrency_key = "customer-7"
    """
    concurrency_limit: Annotated[int, Field(ge=1, le=100_000)]
    """How many.

    Default: `1`
    Example: concurrency_key = "customer-7"
        concurrency_limit = 3
    """
    aggregate: Annotated[Aggregate, Field(strict=False)]
    """How the results of several agents become one.

    Default: `"first"`; for a team `"all"`
    Example: aggregate = "median"
    """
    requires_consensus: bool
    """A vote with the defaults; `[task.consensus]` says the same and how.

    Default: `false`
    Example: requires_consensus = true
    """
    consensus: ConsensusFields
    """How the agents agree.

    Default: none
    Example: consensus = { panel = 5, vote_on = "/verdict" }
    """
    verifies: Text
    """The task whose result this one checks (and waits for): `true`, `false`, `{"right": …}` or `{"answer":
    …}`.

    Default: none
    Example: verifies = "claim-7"
    """
    budget: BudgetFields
    """The most that its attempts together may use.

    Default: none
    Example: budget = { cost_usd = 0.50, tokens = 200_000 }
    """
    result_schema: Annotated[
        Any,
        PlainValidator(_check_schema),
        WithJsonSchema({"x-type": "JSON Schema: a table, true or false", "type": ["object", "boolean"]}),
    ]
    """What every result has to look like.

    Default: none
    Example: result_schema = { type = "object", required = ["verdict"] }
    """
    labels: Annotated[dict[Text, Annotated[str, Field(max_length=MAX_NAME)]], Field(max_length=MAX_LABELS)]
    """Kept with the task; at most 64.

    Default: `{}`
    Example: labels = { team = "north" }
    """
    traceparent: Annotated[str, BeforeValidator(_check_traceparent)]
    """The span that it is a part of.

    Default: that of the submission
    Example: traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    """
    data: Any
    """What the agent gets.

    Default: none
    Example: data = { document = "harbour.md" }
    """


class AgentFields(TypedDict, total=False):
    """One agent of an agents file."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]

    id: Text
    """What the agent is called, in the fleet and when it connects.

    Default: none: every agent needs one
    Example: id = "reader-1"
    """
    type: Text
    """What kind of agent it is, for people.

    Default: `"worker"`
    Example: type = "reader"
    """
    capabilities: Capabilities
    """What it can do; tasks ask for these. At most 100.

    Default: `[]`
    Example: capabilities = ["fetch", "summarise"]
    """
    slots: Annotated[int, Field(ge=1, le=MAX_SLOTS)]
    """How many attempts it works on at once.

    Default: `1`
    Example: slots = 4
    """
    pool: Text
    """The pool whose tasks it gets.

    Default: `"default"`
    Example: pool = "north"
    """
    metadata: dict[str, Any]
    """Whatever else is worth knowing of it; `lend = N` lets the engine give it N more in a deadlock.

    Default: `{}`
    Example: metadata = { room = 7, lend = 1 }
    """
    exec: Annotated[
        str,
        BeforeValidator(_check_command),
        StringConstraints(min_length=1, max_length=10_000),
        WithJsonSchema(_COMMAND_SCHEMA),
    ]
    """A command that `serve` or `up` runs for each task, with the work as JSON on its stdin; a list of words
    is quoted into one line.

    Default: none: it connects by itself
    Example: exec = "python3 work.py"
    """
    python: Annotated[
        str, BeforeValidator(_check_function), StringConstraints(min_length=1, max_length=MAX_NAME)
    ]
    """A function that `up` runs for each task, as module:function.

    Default: none
    Example: python = "work:answer"
    """
    replicas: Annotated[int, Field(ge=0, le=MAX_REPLICAS)]
    """How many of it `up` runs.

    Default: `1`
    Example: replicas = 3
    """
    cwd: Annotated[str, StringConstraints(min_length=1, max_length=4_096)]
    """The folder that `up` runs it in; a relative one counts from the folder of the file.

    Default: the folder of the file
    Example: cwd = "agents"
    """
    env: Annotated[list[Annotated[str, BeforeValidator(_check_variable)]], Field(max_length=MAX_CAPABILITIES)]
    """Environment variables that it may see when `up` runs it.

    Default: `[]`
    Example: env = ["OPENAI_API_KEY"]
    """
    restart: Literal["always", "on-failure", "never"]
    """When `up` starts it again after it has ended.

    Default: `"always"`
    Example: restart = "on-failure"
    """


FOR_UP: Final = ("replicas", "cwd", "env", "restart")
"""Keys of an agent that say how `agentorch up` runs it."""


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
