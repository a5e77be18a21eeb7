"""Task files and agent files, from the command line's words to what can be stored.

Several files and directories are one submission. Every error keeps its file, its line, and
the line's text.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from agentorch_cli.core.plan import MOST_ERRORS, Plan, Where, plan
from agentorch_cli.documents import Document, load_document
from agentorch_cli.errors import InvalidFile, InvalidTask, NotFound, UsageError, command
from agentorch_cli.identity import new_id_text
from agentorch_cli.taskfile import (
    TaskFile,
    plain_items,
    read_agents,
    read_tasks,
    read_template,
    task_defaults,
)

if TYPE_CHECKING:
    from agentorch_cli.config import Settings
    from agentorch_cli.core.model import AgentSpec, TaskSpec

Read = TypeVar("Read")
"""What is made of a document."""

SUFFIXES = (".toml", ".json", ".jsonl", ".ndjson")
"""Files of a directory that are read; others may lie beside them."""


def read_submission(
    names: Sequence[str],
    settings: Settings,
    known: Collection[str] | None = None,
    begin: Callable[[str, int | None], None] = lambda title, total: None,
) -> Plan:
    """The tasks of all files as one graph. Raises InvalidFile or InvalidTask, with the mistakes of all
    files; then nothing is submitted.

    `known`: the ids that exist outside of the files, where that is known here. `begin` is told of each
    step, and of how many tasks it is about where that is known.
    """
    defaults = task_defaults(settings)
    begin("Reading", None)
    found = documents(names)
    begin("Checking tasks", None)
    files, faults = _each(found, lambda document: _Tasks.of(_tasks_of(document, defaults)))
    _refuse_all(files, faults)
    begin("Ordering tasks", sum(len(file.tasks) for file in files))
    return _plan_of(files, known)


@contextlib.contextmanager
def collecting_less_often() -> Iterator[None]:
    """Python's collector looks less often for cycles, of which reading and storing make none: of a million
    lists and objects that stay alive it was a fifth of the time."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def read_schedule(names: Sequence[str], settings: Settings) -> list[Any]:
    """The tasks of all files as they were written, which a schedule may submit again and again.

    Raises InvalidFile or InvalidTask.
    """
    defaults = task_defaults(settings)
    files, faults = _each(documents(names), lambda document: _tasks_of(document, defaults, read_template))
    tasks = [_Tasks.of(file) for file in files]
    _refuse_all(tasks, faults)
    _plan_of(tasks)
    return plain_items([item for file in files for item in file.items])


@dataclass(frozen=True)
class _Tasks:
    """The tasks of a file, and how to find them in its text."""

    tasks: list[TaskSpec]
    budget: dict[str, Any] | None
    document: Document
    """Without its value."""
    where: Where

    @classmethod
    def of(cls, file: TaskFile) -> _Tasks:
        return cls(file.tasks, file.budget, replace(file.document, value=None), file.where_later())


def _plan_of(files: Sequence[_Tasks], known: Collection[str] | None = None) -> Plan:
    ends = list(accumulate(len(file.tasks) for file in files))
    places = [file.where for file in files]

    def where(position: int, path: tuple[str | int, ...]) -> Mapping[str, Any]:
        number = bisect_right(ends, position)
        return places[number](position - (ends[number - 1] if number else 0), path)

    tasks = [task for file in files for task in file.tasks]
    budgets = [(file.document.name, file.budget) for file in files if file.budget is not None]
    if len(budgets) > 1:
        named = " and ".join(name for name, _ in budgets)
        raise UsageError(f"a submission has one budget, and {named} each bring one")
    try:
        found = plan(tasks, where=where, known=known)
        return replace(found, budget=budgets[0][1]) if budgets else found
    except InvalidTask as error:
        for file in files:
            add_source(error, file.document)
        raise


def read_agent_file(name: str) -> list[AgentSpec]:
    """The agents of a file, of all files of a directory, or of stdin. Raises InvalidFile or InvalidTask."""
    files, faults = _each(documents([name]), _agents_of)
    if faults:
        raise _together(faults)
    return [agent for file in files for agent in file]


def documents(names: Sequence[str]) -> list[Document | InvalidFile]:
    """The documents of files, directories and stdin, in the order of the command line.

    In the place of one that cannot be read is why: the mistakes of the others are told beside it.
    """
    if list(names).count("-") > 1:
        raise UsageError('stdin ("-") can be read once only')
    sources: list[Path | Literal["-"] | InvalidFile] = []
    for name in names:
        if not name.strip():
            raise UsageError("the name of a file is empty", hint='"." names the directory that you are in')
        path = Path(name)
        sources += ["-"] if name == "-" else _files_of(path) if _is_folder(path) else [path]
    _refuse_twice(sources)
    return [source if isinstance(source, InvalidFile) else _opened(source) for source in sources]


def _opened(source: Path | Literal["-"]) -> Document | InvalidFile:
    try:
        return load_document(source)
    except InvalidFile as error:
        return error


def _each(
    found: list[Document | InvalidFile], read: Callable[[Document], Read]
) -> tuple[list[Read], list[UsageError]]:
    """What each document holds, and the mistakes of those that cannot be taken, in their order.

    It empties the list: of each document, what was read is let go of when its tasks are made.
    """
    files: list[Read] = []
    faults: list[UsageError] = []
    while found:
        one = found.pop(0)
        if isinstance(one, InvalidFile):
            faults.append(one)
            continue
        try:
            files.append(read(one))
        except InvalidTask as error:
            faults.append(error)
    return files, faults


def _refuse_all(files: Sequence[_Tasks], faults: list[UsageError]) -> None:
    """Raises the mistakes of all files, if there are any, with those that the good ones have together.

    What the good ones wait for may be in a file that cannot be taken, so that is not asked here.
    """
    if not faults:
        return
    try:
        _plan_of(files)
    except UsageError as error:
        faults = [*faults, error]
    raise _together(faults)


def _together(faults: Sequence[UsageError]) -> UsageError:
    """The mistakes of several files as one error: a person who mends files wants one list. What it
    says besides (its code, its fix) is about the first."""
    first = faults[0]
    if len(faults) == 1:
        return first
    errors: list[dict[str, Any]] = []
    count = 0
    for fault in faults:
        alone = [{"message": fault.message, "where": fault.where, **fault.details}]
        errors += fault.details.get("errors", alone)
        count += fault.details.get("error_count", 1)
    return type(first)(
        f"{errors[0]['message']} (and {count - 1:,} more)",
        where=first.where,
        why=first.why,
        fix=first.fix,
        hint=first.hint,
        errors=errors[:MOST_ERRORS],
        error_count=count,
    )


def _refuse_twice(sources: Sequence[Path | Literal["-"] | InvalidFile]) -> None:
    """A file that is named twice, itself or by its directory, would bring each of its tasks twice."""
    seen: dict[str, Path] = {}
    for source in sources:
        if isinstance(source, Path) and (first := seen.setdefault(_whole(source), source)) is not source:
            also = f", the other time as {first}" if str(first) != str(source) else ""
            raise UsageError(f"{source} is named twice{also}", hint="name each file once")


def _whole(path: Path) -> str:
    """The path behind all links; of a link that leads to itself, the link."""
    try:
        return os.path.realpath(path)
    except ValueError:  # a name that no file can have; reading it tells
        return str(path)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that no file can have; reading it tells
        return False


def add_source(error: InvalidTask, document: Document, root: str = "task") -> None:
    """Put the text of the lines that it names into an error of this document, and what explains the field."""
    for entry in error.details.get("errors", ()):
        line = entry.get("line")
        if line is not None and str(entry.get("where", "")).startswith(f"{document.name}:{line}"):
            entry["source"] = document.lines.line(line)
    if not error.knows_fix and (entries := error.details.get("errors")):
        error.fix = explaining(entries[0].get("field", ""), root)


def explaining(field: str, root: str) -> str:
    """The command that explains a field of a file, or the nearest table around it that is known."""
    from agentorch_cli.guide.fields import find

    steps = [step for step in re.sub(r"\[[0-9]+\]", "", field).split(".") if step]
    if steps and steps[0] in (root, f"{root}s"):
        steps = steps[1:]
    elif root == "task" and steps[:1] == ["budget"]:
        root, steps = "budget", steps[1:]
    while steps:
        with contextlib.suppress(NotFound):
            return command("explain", find(".".join((root, *steps))).path)
        steps = steps[:-1]
    return command("explain", root)


@contextlib.contextmanager
def sourced(document: Document, root: str = "task") -> Iterator[None]:
    """Inside, what is wrong with this document is told with its lines."""
    try:
        yield
    except InvalidTask as error:
        add_source(error, document, root)
        raise


def _tasks_of(
    document: Document, defaults: Mapping[str, Any], read: Callable[..., TaskFile] = read_tasks
) -> TaskFile:
    with sourced(document):
        return read(document, new_id=new_id_text, defaults=defaults)


def _agents_of(document: Document) -> list[AgentSpec]:
    with sourced(document, "agent"):
        return read_agents(document)


def _files_of(folder: Path) -> Sequence[Path | InvalidFile]:
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    return found or [InvalidFile("holds no task file (.toml, .json, .jsonl)", where=str(folder))]
