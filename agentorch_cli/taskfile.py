"""From a document to tasks and agents: shape, keys, types, ranges, and what fits together.

All errors of a file are found before any is told, each with its place, because a person
who mends a file wants one list and not ten rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from typing import Any, Final

import orjson
from pydantic import ValidationError

from agentorch_cli.core import team
from agentorch_cli.core.hints import did_you_mean
from agentorch_cli.core.model import AgentSpec, Aggregate, Coverage, TaskSpec
from agentorch_cli.core.plan import MOST_ERRORS, Plan, Problem, examine, plan, refuse
from agentorch_cli.core.vote import OPTION_RULES, SEQUENTIAL_RULES, Rule
from agentorch_cli.documents import Document, Format, show_path
from agentorch_cli.messages import AGENTS, BUDGETS, FOR_UP, TASKS, Table
from agentorch_cli.payloads import first_fault
from agentorch_cli.schemas import problems_of
from agentorch_cli.sentences import explain, found
from agentorch_cli.settings import Settings

Path = tuple[str | int, ...]

MAX_DATA: Final = 1_000_000
"""Bytes of one task's data as JSON: a frame of 1 MiB has to hold it and its envelope."""

CHECKED_AT_ONCE: Final = 1_000
"""Entries whose checked copies are alive at the same time."""

_RENAMED: Final = {
    "id": "task_id",
    "timeout": "timeout_seconds",
    "estimate": "estimate_seconds",
    "backoff": "backoff_seconds",
    "max_backoff": "max_backoff_seconds",
    "queue_timeout": "queue_timeout_seconds",
}
_APART: Final = frozenset(
    {"consensus", "requires_consensus", "deadline", "delay", "data", "result_schema", "retry"}
)
"""Keys of a task file that are not simply fields of a TaskSpec."""

_TUPLES: Final = frozenset({"required_capabilities", "depends_on"})


@dataclass(frozen=True)
class TaskFile:
    """The tasks of one document. `depends_on` still holds names as they were written: see `plan`."""

    tasks: list[TaskSpec]
    document: Document
    paths: Sequence[Path]
    """Where in the document each task stands."""
    items: Sequence[Any]
    """The tasks as they were written, to be sent on to a server that reads them itself."""
    budget: dict[str, Any] | None = None
    """`[budget]`: what all of them together may use."""

    def where(self, position: int, path: Path) -> dict[str, Any]:
        """The place of a field (of the task itself if the path is empty) for error reports."""
        return _place(self.document, TASKS, self.paths[position], self.items[position], path)

    def where_later(self) -> Callable[[int, Path], dict[str, Any]]:
        """The same without what was read: who asks makes the text be read again."""
        text = replace(self.document, value=None)
        found: list[tuple[Document, Sequence[Path], Sequence[Any]]] = []

        def where(position: int, path: Path) -> dict[str, Any]:
            if not found:
                document = text.read_again()
                found.append((document, *_entries(document, "task")))
            document, paths, items = found[0]
            return _place(document, TASKS, paths[position], items[position], path)

        return where

    def plan(self, known: Any = None) -> Plan:
        """The tasks as a graph that can be stored. Raises InvalidTask, as `core.plan.plan` does."""
        return plan(self.tasks, where=self.where, known=known)


def read_tasks(
    document: Document,
    *,
    new_id: Callable[[], str],
    defaults: Mapping[str, Any] | None = None,
) -> TaskFile:
    """The tasks of a task file, or of a value that came by the wire (`Document(value, name)`).

    `new_id` makes ids for tasks that have none. `defaults` are TaskSpec fields to use where the
    file is silent (`timeout_seconds`, `retries`, `backoff_seconds`, `max_backoff_seconds`). Raises
    InvalidTask with every error.
    """
    paths, items = _entries(document, "task")
    reader = _Reader(document, TASKS, paths, items)
    tasks, positions = [], []
    large = document.format is None or len(document.text) > MAX_DATA
    for position, table in reader.tables():
        wrong = _contradictions(table)
        if "result_schema" in table:
            table["result_schema"] = _dates_as_text(table["result_schema"])
            faults = problems_of(table["result_schema"])
            wrong += [(("result_schema", *path), message) for path, message in faults]
        if large and "data" in table:
            wrong += _oversize(table["data"])
        reader.problems += [Problem(position, path, message) for path, message in wrong]
        if not wrong:
            tasks.append(_task(table, new_id, defaults or {}, document.format is Format.TOML))
            positions.append(position)
    if reader.problems:
        _, _, more = examine(tasks)
        reader.problems += [_moved(problem, positions) for problem in more]
        refuse(reader.problems, reader.where)
    return TaskFile(tasks, document, paths, items, _budget(document))


def check_budget(budget: Mapping[str, Any], name: str = "budget") -> dict[str, Any]:
    """A budget of a submission that does not come from a file. Raises InvalidTask."""
    found = _budget(Document({"tasks": [], "budget": dict(budget)}, name))
    assert found is not None
    return found


def task_defaults(settings: Settings) -> dict[str, Any]:
    """TaskSpec fields for tasks that are silent about them, and the options of votes likewise."""
    return {
        "timeout_seconds": settings.engine.task_timeout,
        "retries": settings.engine.retries,
        "backoff_seconds": settings.engine.backoff,
        "max_backoff_seconds": settings.engine.max_backoff,
        "consensus": {
            "threshold": settings.consensus.threshold,
            "panel": settings.consensus.panel,
            "cap": settings.consensus.cap,
            "confidence": settings.consensus.confidence,
        },
    }


def read_template(
    document: Document, *, new_id: Callable[[], str], defaults: Mapping[str, Any] | None = None
) -> TaskFile:
    """Tasks that are to be submitted again and again. Raises InvalidTask, also for what can be said
    once only: an id, an idempotency key, and moments in place of durations."""
    file = read_tasks(document, new_id=new_id, defaults=defaults)
    if file.budget is not None:
        text = (
            "is of one submission, and a schedule makes many: give its tasks budgets, or a label that has one"
        )
        refuse([Problem(0, (), text)], lambda *_: _located(document, ("budget",)))
    problems = []
    for position, (task, item) in enumerate(zip(file.tasks, file.items, strict=True)):
        once = {
            "id": "id" in item,
            "idempotency_key": task.idempotency_key is not None,
            "run_at": task.run_at is not None,
            "deadline": task.deadline is not None,
        }
        problems += [Problem(position, (key,), _ONCE[key]) for key, is_there in once.items() if is_there]
    if problems:
        refuse(problems, file.where)
    return file


_ONCE: Final = {
    "id": "stands for one task, and a schedule makes new ones: give it a name",
    "idempotency_key": "is made by the schedule, one for each run",
    "run_at": "is a moment, which comes once: say delay, which counts from each run",
    "deadline": 'is a moment, which comes once: give a duration such as "1h", which counts from each run',
}


def plain_items(items: Sequence[Any]) -> list[Any]:
    """Tasks as they were written, as JSON can hold them."""
    return [_dates_as_text(item) for item in items]


def read_agents(document: Document) -> list[AgentSpec]:
    """The agents of an agents file: `[[agents]]`, `[agent]`, or the same as JSON. Raises InvalidTask."""
    return [agent for agent, _ in read_agent_tables(document)]


def read_agent_tables(document: Document) -> list[tuple[AgentSpec, dict[str, Any]]]:
    """Each agent of an agents file with its table: how `up` runs it is no part of the agent itself.

    Raises InvalidTask with every error.
    """
    paths, items = _entries(document, "agent")
    reader = _Reader(document, AGENTS, paths, items)
    agents: list[tuple[AgentSpec, dict[str, Any]]] = []
    first_at: dict[str, int] = {}
    for position, table in reader.tables():
        if "id" not in table:
            reader.problems.append(Problem(position, (), "an agent needs an id"))
            continue
        agent = _agent(table)
        first = first_at.setdefault(agent.agent_id, position)
        if first != position:
            message = f'the id "{agent.agent_id}" is there twice'
            reader.problems.append(Problem(position, ("id",), message, (first,)))
        reader.problems += [Problem(position, (key,), text) for key, text in _agent_contradictions(table)]
        agents.append((agent, table))
    if reader.problems:
        refuse(reader.problems, reader.where)
    return agents


def _agent_contradictions(table: Mapping[str, Any]) -> list[tuple[str, str]]:
    if "exec" in table and "python" in table:
        return [("python", "and exec are both there: one of them does the work")]
    if "exec" in table or "python" in table:
        return []
    return [(key, "is for agents with exec or python") for key in FOR_UP if key in table]


def _entries(document: Document, noun: str) -> tuple[list[Path], list[Any]]:
    """Path and value of each task (or agent), whatever form the document has."""
    value, many = document.value, f"{noun}s"
    problems: list[tuple[Path, str]] = []
    paths: list[Path] = []
    items: list[Any] = []
    if isinstance(value, dict) and isinstance(value.get("$schema"), str):  # for editors
        value = {key: one for key, one in value.items() if key != "$schema"}
    if document.format is None:
        fault = first_fault(value, strings=True, also=_DATES)
        if fault:
            problems.append((fault.path, fault.message))
    if isinstance(value, list):
        paths, items = [(index,) for index in range(len(value))], value
    elif not isinstance(value, dict):
        problems.append(((), f"must be a table of {many}, not {found(value)}"))
    elif noun not in value and many not in value:
        paths, items = ([()], [value]) if value else ([], [])
    else:
        known = [noun, many, *(["budget"] if noun == "task" else [])]
        problems += [((key,), f"unknown key{did_you_mean(key, known)}") for key in value if key not in known]
        if noun in value and isinstance(value[noun], list):
            problems.append(((noun,), f"is a list; several {many} are written [[{many}]]"))
        elif noun in value:
            paths, items = [(noun,)], [value[noun]]
        listed = value.get(many, [])
        if isinstance(listed, list):
            paths += [(many, index) for index in range(len(listed))]
            items = [*items, *listed]
        else:
            problems.append(((many,), f"must be a list, not {found(listed)}; one {noun} is written [{noun}]"))
    if not problems and not items:
        problems.append(((), f"contains no {noun}: write [{noun}] or [[{many}]]"))
    if problems:
        refuse(
            [Problem(number, (), text) for number, (_, text) in enumerate(problems)],
            lambda number, _: _located(document, problems[number][0]),
        )
    return paths, items


def _budget(document: Document) -> dict[str, Any] | None:
    """The budget that stands beside the tasks of a document."""
    value = document.value
    if not isinstance(value, dict) or not value.keys() & {"task", "tasks"} or value.get("budget") is None:
        return None
    reader = _Reader(document, BUDGETS, [("budget",)], [value["budget"]])
    tables = [table for _, table in reader.tables()]
    wrong = [found for table in tables for found in _budget_contradictions(table)]
    wrong += [((), "limits nothing: say cost_usd, tokens, or both") for table in tables if not _limits(table)]
    reader.problems += [Problem(0, path, message) for path, message in wrong]
    if reader.problems:
        refuse(reader.problems, reader.where)
    return tables[0]


def _limits(budget: Mapping[str, Any]) -> bool:
    return bool(budget.keys() & {"cost_usd", "tokens"})


class _Reader:
    """Checks the shape of every entry and gathers the problems."""

    def __init__(self, document: Document, table: Table, paths: Sequence[Path], items: Sequence[Any]) -> None:
        self.document, self.table, self.paths, self.items = document, table, paths, items
        self.problems: list[Problem] = []

    def where(self, position: int, path: Path) -> dict[str, Any]:
        return _place(self.document, self.table, self.paths[position], self.items[position], path)

    def tables(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The valid entries with their positions; what is wrong with the others is in `problems`."""
        for start in range(0, len(self.items), CHECKED_AT_ONCE):
            items = self.items[start : start + CHECKED_AT_ONCE]
            yield from self._checked(
                start, [self._canonical(start + n, item) for n, item in enumerate(items)]
            )

    def _checked(self, start: int, canonical: Sequence[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
        try:
            tables = self.table.many.validate_python(canonical)
        except ValidationError:
            tables = None  # now one by one: whoever has errors elsewhere should hear of these too
        if tables is not None:
            yield from enumerate(tables, start)
            return
        for position, item in enumerate(canonical, start):
            try:
                table = self.table.one.validate_python(item)
            except ValidationError as error:
                self._note(position, item, error)
            else:
                yield position, table

    def _canonical(self, position: int, item: Any) -> Any:
        return self.table.canonical(
            item, lambda path, text: self.problems.append(Problem(position, path, text))
        )

    def _note(self, position: int, item: Any, error: ValidationError) -> None:
        noun = "task" if self.table is TASKS else "agent"
        for fault in error.errors(include_url=False):
            path = tuple(step for step in fault["loc"] if step != "[key]")
            if len(self.problems) >= MOST_ERRORS:  # counted, never shown: those before it fill the list
                self.problems.append(Problem(position, path, fault["type"]))
                continue
            message = explain(fault)
            if fault["type"] == "extra_forbidden":
                known = list(self.table.known_at(path)) + ([] if self.paths[position] else [noun, f"{noun}s"])
                message = "unknown key" + did_you_mean(str(path[-1]), known)
            self.problems.append(Problem(position, path, message))


def _place(document: Document, table: Table, start: Path, item: Any, path: Path) -> dict[str, Any]:
    return _located(document, (*start, *table.spelled(item, path)))


def _located(document: Document, path: Path) -> dict[str, Any]:
    place = document.locate(path)
    entry: dict[str, Any] = {"where": document.where(path), "field": show_path(path)}
    if place:
        entry |= {"line": place.line, "column": place.column}
    return entry


def _moved(problem: Problem, positions: Sequence[int]) -> Problem:
    others = tuple(positions[other] for other in problem.others)
    return Problem(positions[problem.position], problem.path, problem.message, others, problem.cycle)


def _contradictions(table: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """What is wrong although each key by itself is right."""
    wrong: list[tuple[Path, str]] = []
    least, most = table.get("min_agents"), table.get("max_agents")
    if least is not None and most is not None and least > most:
        wrong.append((("min_agents",), f"is {least}, more than max_agents, which is {most}"))
    if "delay" in table and "run_at" in table:
        wrong.append((("delay",), "and run_at are both there: one of them says when to start"))
    if table.get("coverage") == Coverage.TEAM:
        wrong += _team_contradictions(table)
    if "concurrency_limit" in table and "concurrency_key" not in table:
        wrong.append(
            (("concurrency_limit",), "is there without concurrency_key, which says what it is about")
        )
    if "budget" in table:
        wrong += [(("budget", *path), text) for path, text in _budget_contradictions(table["budget"])]
    options = table.get("consensus")
    if options is None:
        return wrong
    if table.get("requires_consensus") is False:
        wrong.append((("consensus",), "is there although requires_consensus is false"))
    return wrong + [(("consensus", key), message) for key, message in _vote_contradictions(options)]


def _team_contradictions(table: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """What a team cannot be."""
    wrong: list[tuple[Path, str]] = []
    if table.get("requires_consensus") or table.get("consensus") is not None:
        message = (
            "team does not go with a vote: voters answer the same question, the members of a team share"
            " one out; leave one of them out"
        )
        wrong.append((("coverage",), message))
    required = table.get("required_capabilities", ())
    if not required:
        wrong.append((("coverage",), "team needs required_capabilities: there is nothing to share out"))
    odd = set(team.unfit(required))
    wrong += [
        (
            ("required_capabilities", place),
            "has a plus that is not at its end: a plus joins the names in the role of a team's member",
        )
        for place, capability in enumerate(required)
        if capability in odd
    ]
    return wrong


def _budget_contradictions(budget: Mapping[str, Any]) -> list[tuple[Path, str]]:
    return [
        ((one,), f"is {budget[one]:g}, more than {all_}, which is {budget[all_]:g}")
        for one, all_ in (("attempt_usd", "cost_usd"), ("attempt_tokens", "tokens"))
        if one in budget and all_ in budget and budget[one] > budget[all_]
    ]


def _vote_contradictions(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    wrong = []
    rule = options.get("rule")
    if "adaptive" in options and "confidence" in options:
        wrong.append(("adaptive", "and confidence are both there: adaptive sets the confidence"))
    if "adaptive" in options and rule not in (None, Rule.ADAPTIVE):
        wrong.append(("adaptive", f"does not go with rule = {str(rule)!r}: leave one of them out"))
    if rule in OPTION_RULES and len(options.get("options", ())) < 2:
        wrong.append(("rule", f"{rule} needs at least two options"))
    if "quorum" in options and rule not in (None, Rule.QUORUM):
        wrong.append(("quorum", f"does not go with rule = {str(rule)!r}: leave one of them out"))
    if rule is Rule.QUORUM and "quorum" not in options:
        wrong.append(("rule", "quorum needs the number: quorum = 3"))
    panel = options.get("panel")
    for key in ("min_votes", "quorum"):
        if panel is not None and options.get(key, 0) > panel:
            wrong.append((key, f"is {options[key]}, more than the panel of {panel}"))
    return wrong


def _oversize(data: Any) -> list[tuple[Path, str]]:
    size = len(orjson.dumps(data))
    return (
        [(("data",), f"has {size:,} bytes as JSON; at most {MAX_DATA:,} are taken")]
        if size > MAX_DATA
        else []
    )


def _task(
    table: dict[str, Any],
    new_id: Callable[[], str],
    defaults: Mapping[str, Any],
    has_dates: bool,
) -> TaskSpec:
    fields: dict[str, Any] = {key: value for key, value in defaults.items() if key != "consensus"}
    for key, value in table.items():
        if key not in _APART:
            fields[_RENAMED.get(key, key)] = tuple(dict.fromkeys(value)) if key in _TUPLES else value
    if "task_id" not in fields:
        fields["task_id"] = new_id()
    if "data" in table:
        fields["data"] = _dates_as_text(table["data"]) if has_dates else table["data"]
    if "result_schema" in table:
        fields["result_schema"] = table["result_schema"]
    if "deadline" in table:
        deadline = table["deadline"]
        fields["deadline" if isinstance(deadline, datetime) else "deadline_seconds"] = deadline
    if "delay" in table:
        fields["delay_seconds"] = table["delay"]
    if "retry" in table:
        fields["retry"] = {
            code: {_RENAMED.get(key, key): value for key, value in rule.items()}
            for code, rule in table["retry"].items()
        }
    if "verifies" in table:
        waited_for = fields.get("depends_on", ())
        fields["depends_on"] = tuple(dict.fromkeys((*waited_for, table["verifies"])))
    _fill_agents(fields, table, defaults.get("consensus", {}))
    return TaskSpec(**fields)


def _fill_agents(fields: dict[str, Any], table: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """1 and 1; 2 and 3 for a vote, unless a panel or a cap says more; a team may have one per capability,
    and by default its result is what each of them brings."""
    least, most = 1, 1
    options = table.get("consensus")
    if table.get("requires_consensus") or options is not None:
        fields["consensus"] = vote = _vote(options or {}, defaults)
        least, most = 2, vote.get("panel", 3)
        if vote["rule"] in SEQUENTIAL_RULES:
            most = vote.get("cap", most)
        elif options is not None and "panel" in defaults and "max_agents" not in fields:
            most = vote.setdefault("panel", defaults["panel"])
    elif table.get("coverage") == Coverage.TEAM:
        most = max(1, len(fields.get("required_capabilities", ())))
        fields.setdefault("aggregate", Aggregate.ALL)
    if "min_agents" in fields:
        fields.setdefault("max_agents", max(most, fields["min_agents"]))
    else:
        fields["max_agents"] = fields.get("max_agents", most)
        fields["min_agents"] = min(least, fields["max_agents"])


def _vote(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `core.consensus` as plain JSON; the rule is always named.

    `defaults` fill in what the rule uses and the file is silent about.
    """
    options = dict(given)
    rule = options.pop("rule", None)
    if "adaptive" in options:
        rule, options["confidence"] = Rule.ADAPTIVE, options.pop("adaptive")
    if rule is None:
        rule = Rule.QUORUM if "quorum" in options else Rule.SUPERMAJORITY
    tolerance = options.pop("tolerance", {})
    if "abs" in tolerance:
        options["tolerance"] = tolerance["abs"]
    if "rel" in tolerance:
        options["relative_tolerance"] = tolerance["rel"]
    used = ["threshold"] if rule is Rule.SUPERMAJORITY else []
    used += ["confidence"] if rule in SEQUENTIAL_RULES else []
    if rule in SEQUENTIAL_RULES or options.get("on_no_consensus") == "escalate":
        used.append("cap")
    silent = {key: defaults[key] for key in used if key in defaults and key not in options}
    return {"rule": str(rule), **silent, **options}


def _agent(table: dict[str, Any]) -> AgentSpec:
    fields = {key: value for key, value in table.items() if key not in (*FOR_UP, "python", "id")}
    fields["agent_id"] = table["id"]
    if "capabilities" in fields:
        fields["capabilities"] = tuple(dict.fromkeys(fields["capabilities"]))
    if "metadata" in fields:
        fields["metadata"] = _dates_as_text(fields["metadata"])
    return AgentSpec(**fields)


_DATES: Final = frozenset({datetime, date, time})


def _dates_as_text(value: Any) -> Any:
    """TOML has dates and times, JSON has not: they become ISO texts. The depth is limited by the reader."""
    if isinstance(value, dict):
        return {key: _dates_as_text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_dates_as_text(item) for item in value]
    return value.isoformat() if type(value) in _DATES else value
