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
from typing import TYPE_CHECKING, Any, Literal

from agentorch_cli.core.plan import Plan, Where, plan
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

SUFFIXES = (".toml", ".json", ".jsonl", ".ndjson")
"""Files of a directory that are read; others may lie beside them."""


def read_submission(
    names: Sequence[str],
    settings: Settings,
    known: Collection[str] | None = None,
    begin: Callable[[str, int | None], None] = lambda title, total: None,
) -> Plan:
    """The tasks of all files as one graph. Raises InvalidFile or InvalidTask; then nothing is submitted.

    `known`: the ids that exist outside of the files, where that is known here. `begin` is told of each
    step, and of how many tasks it is about where that is known.
    """
    defaults = task_defaults(settings)
    begin("Reading", None)
    found = documents(names)
    begin("Checking tasks", None)
    files = []
    while found:  # of each, what was read is let go of when its tasks are made
        files.append(_Tasks.of(_tasks_of(found.pop(0), defaults)))
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
    files = [_tasks_of(document, defaults, read_template) for document in documents(names)]
    _plan_of([_Tasks.of(file) for file in files])
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
    found: list[AgentSpec] = []
    for document in documents([name]):
        try:
            found += read_agents(document)
        except InvalidTask as error:
            add_source(error, document, "agent")
            raise
    return found


def documents(names: Sequence[str]) -> list[Document]:
    """The documents of files, directories and stdin, in the order of the command line."""
    if list(names).count("-") > 1:
        raise UsageError('stdin ("-") can be read once only')
    sources: list[Path | Literal["-"]] = []
    for name in names:
        if not name.strip():
            raise UsageError("the name of a file is empty", hint='"." names the directory that you are in')
        path = Path(name)
        sources += ["-"] if name == "-" else _files_of(path) if _is_folder(path) else [path]
    _refuse_twice(sources)
    return [load_document(source) for source in sources]


def _refuse_twice(sources: Sequence[Path | Literal["-"]]) -> None:
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


def _tasks_of(
    document: Document, defaults: Mapping[str, Any], read: Callable[..., TaskFile] = read_tasks
) -> TaskFile:
    try:
        return read(document, new_id=new_id_text, defaults=defaults)
    except InvalidTask as error:
        add_source(error, document)
        raise


def _files_of(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise InvalidFile("holds no task file (.toml, .json, .jsonl)", where=str(folder))
    return found
