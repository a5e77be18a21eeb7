"""Operations as JSON, and back: what `/control` and the remote client say to each other.

The types of parameters and answers are those of the handlers' own signatures. Tasks and agents
are written as in a file, so that the far side reads them with the checks that files get: nobody's
client can put a task into the store that no file could.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import MISSING, fields
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Annotated, Any, NamedTuple, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from agentorch_cli.core.model import AgentSpec, TaskSpec
from agentorch_cli.core.plan import plan
from agentorch_cli.documents import Document
from agentorch_cli.errors import OrchestratorError, UsageError
from agentorch_cli.handlers import HANDLERS, Handler
from agentorch_cli.identity import new_id_text
from agentorch_cli.messages import AGENTS, TASKS
from agentorch_cli.sentences import explain
from agentorch_cli.taskfile import check_budget, read_agents, read_tasks

MOST_LISTED = 100_000
"""Rows that one request may ask for."""

_NAMES = {"task_id": "id", "agent_id": "id"}
_SPECS = {"tasks": TaskSpec, "agents": AgentSpec}
"""Parameters that are written as in a file."""

_LIMIT = Annotated[int, Field(ge=1, le=MOST_LISTED)]

_FINITE = ConfigDict(allow_inf_nan=False)
"""No number of a request is NaN or Infinity, which texts such as "nan" could bring."""


class Operation(NamedTuple):
    """One handler and the types of what goes in and out."""

    handler: Handler
    parameters: Mapping[str, TypeAdapter[Any] | None]
    """None for those that are written as in a file."""
    required: frozenset[str]
    answer: TypeAdapter[Any]


@cache
def operation(method: str) -> Operation | None:
    """The operation of that name, if there is one."""
    handler = HANDLERS.get(method)
    if handler is None:
        return None
    hints = get_type_hints(handler, include_extras=True)
    found: dict[str, TypeAdapter[Any] | None] = {}
    required = set()
    for name, parameter in list(inspect.signature(handler).parameters.items())[1:]:
        kind = _LIMIT if name == "limit" else hints[name]
        found[name] = None if _is_spec(name, kind) else _adapter(kind)
        if parameter.default is inspect.Parameter.empty:
            required.add(name)
    return Operation(handler, found, frozenset(required), TypeAdapter(hints["return"]))


def _adapter(kind: Any) -> TypeAdapter[Any]:
    is_model = isinstance(kind, type) and issubclass(kind, BaseModel)
    return TypeAdapter(kind) if is_model else TypeAdapter(kind, config=_FINITE)


def _is_spec(name: str, kind: Any) -> bool:
    return name in _SPECS and _SPECS[name] in getattr(kind, "__args__", ())


# --- parameters -----------------------------------------------------------------------------


def write_parameters(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as plain JSON; what is None is left out."""
    known = operation(method)
    if known is None:
        raise UsageError(f"there is no operation {method!r}")
    written: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        adapter = known.parameters[name]
        if adapter is not None:
            written[name] = adapter.dump_python(value, mode="json")
        else:
            write = write_task if name == "tasks" else write_agent
            written[name] = [write(one) for one in value]
    return written


def read_parameters(
    method: str, known: Operation, given: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Parameters as the handler takes them. Raises UsageError, InvalidTask.

    `defaults`: fields of tasks that are silent about them, as `read_tasks` takes them.
    """
    missing = sorted(known.required - given.keys())
    if missing:
        raise UsageError(f"{method} wants {missing[0]!r}", hint=f"it takes {', '.join(known.parameters)}")
    read: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known.parameters:
            raise UsageError(
                f"{method} knows no {name[:100]!r}", hint=f"it takes {', '.join(known.parameters)}"
            )
        adapter = known.parameters[name]
        if adapter is not None:
            try:
                read[name] = adapter.validate_python(value)
            except ValidationError as error:
                fault = error.errors(include_url=False)[0]
                place = ".".join([name, *map(str, fault["loc"])])
                raise UsageError(f"{method}: {place} {explain(fault)}") from error
            if method == "task.submit" and name == "budget" and read[name] is not None:
                read[name] = check_budget(read[name])
        else:
            read[name] = _read_specs(name, value, defaults)
    return read


def _read_specs(name: str, value: Any, defaults: Mapping[str, Any]) -> list[Any]:
    if not isinstance(value, list):
        raise UsageError(f"{name} must be a list")
    document = Document({name: value}, "request")
    if name == "agents":
        return list(read_agents(document))
    file = read_tasks(document, new_id=new_id_text, defaults=defaults)
    return list(plan(file.tasks, where=file.where).tasks)


def write_task(task: TaskSpec) -> dict[str, Any]:
    """The task as a task file would say it, with everything that differs from a task that says nothing.

    Time limits and retries are always there: they are the caller's, not the server's.
    """
    table = _written(task, TASKS.keys, {"timeout", "retries", "backoff", "max_backoff"})
    table["min_agents"], table["max_agents"] = task.min_agents, task.max_agents
    if task.depends_on:
        table["depends_on"] = [task.dependency_names.get(one, one) for one in task.depends_on]
    if "retry" in table:
        table["retry"] = {
            code: {name.removesuffix("_seconds"): value for name, value in rule.items()}
            for code, rule in table["retry"].items()
        }
    if task.consensus is not None:
        vote = dict(task.consensus)
        tolerance = {"abs": vote.pop("tolerance", None), "rel": vote.pop("relative_tolerance", None)}
        if given := {key: value for key, value in tolerance.items() if value is not None}:
            vote["tolerance"] = given
        table["consensus"] = vote
    return table


def write_agent(agent: AgentSpec) -> dict[str, Any]:
    """The agent as an agents file would say it."""
    return _written(agent, AGENTS.keys, set())


def _written(spec: TaskSpec | AgentSpec, keys: frozenset[str], always: set[str]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for one in fields(spec):
        key = _NAMES.get(one.name, one.name.removesuffix("_seconds"))
        value = getattr(spec, one.name)
        default = one.default_factory() if one.default_factory is not MISSING else one.default
        if key in keys and value is not None and (value != default or key in always):
            table[key] = _plain(value)
    return table


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else value


# --- answers --------------------------------------------------------------------------------


def write_answer(known: Operation, answer: Any) -> Any:
    """What a handler answered, as plain JSON."""
    return known.answer.dump_python(answer, mode="json")


def read_answer(known: Operation, answer: Any) -> Any:
    """The views that the far side sent. Raises ValidationError."""
    return known.answer.validate_python(answer)


def error_from(document: Any) -> OrchestratorError:
    """The error that the far side told, as the class that it was there.

    Of a class that is not known here (a newer server's) the code and the exit code are kept.
    """
    facts = document if isinstance(document, dict) else {}
    kind = _kinds().get(str(facts.get("code")), OrchestratorError)
    details = facts.get("details")
    told = {key: str(facts[key]) for key in _TOLD if facts.get(key)}
    error = kind(
        str(facts.get("message") or "the server told of an error without saying which"),
        **told,
        **{str(key): value for key, value in details.items() if key not in ("message", *_TOLD)}
        if isinstance(details, dict)
        else {},
    )
    exit_code = facts.get("exit_code")
    if facts.get("code") and facts["code"] != kind.code and type(exit_code) is int and 1 <= exit_code <= 125:
        error.code, error.exit_code = str(facts["code"])[:100], exit_code
    return error


_TOLD = ("where", "why", "fix", "hint")
"""What an error says of itself besides its code and its message."""


@cache
def _kinds() -> dict[str, type[OrchestratorError]]:
    found: dict[str, type[OrchestratorError]] = {}
    left: list[type[OrchestratorError]] = [OrchestratorError]
    while left:
        kind = left.pop()
        found[kind.code] = kind
        left += kind.__subclasses__()
    return found
