"""The paths of all fields with what they mean, without importing the models: for the completion of shells.

The sources of the models are read and not run, which takes a tenth of the time. A test holds this to
`guide.fields`, which has it from the models themselves.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import resources
from typing import NamedTuple

ROOTS = {"task": "TaskFields", "budget": "BudgetFields", "agent": "AgentFields", "config": "Settings"}
"""The model of each file."""


class _Line(NamedTuple):
    name: str
    models: tuple[str, ...]
    """Models that its type names."""
    has_names: bool
    """A table of tables, by names of the author's own."""
    meaning: str


def outline() -> Iterator[tuple[str, str]]:
    """Path and meaning of every field, each table before what is in it."""
    models: dict[str, list[_Line]] = {}
    for file in ("messages.py", "settings.py"):
        tree = ast.parse(resources.files("agentorch_cli").joinpath(file).read_text("utf-8"))
        models |= {node.name: list(_lines(node)) for node in tree.body if isinstance(node, ast.ClassDef)}
    models["Settings"].append(
        _Line("profiles", ("Profile",), True, "Servers by name, in the user's own file.")
    )
    for root, model in ROOTS.items():
        yield root, ""
        yield from _below(root, model, models)


def _below(path: str, model: str, models: dict[str, list[_Line]]) -> Iterator[tuple[str, str]]:
    for line in models[model]:
        here = f"{path}.{line.name}"
        yield here, line.meaning
        if line.has_names:
            here += ".NAME"
            yield here, ""
        for inner in line.models:
            if inner in models:
                yield from _below(here, inner, models)


def _lines(model: ast.ClassDef) -> Iterator[_Line]:
    for field, said in zip(model.body, [*model.body[1:], ast.Pass()], strict=True):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        name = field.target.id
        if name.startswith("_"):
            continue
        words = tuple(node.id for node in ast.walk(field.annotation) if isinstance(node, ast.Name))
        models = tuple(word for word in words if word.endswith(("Fields", "Settings")))
        meaning = ""
        if isinstance(said, ast.Expr) and isinstance(said.value, ast.Constant):
            meaning = " ".join(str(said.value.value).partition("\n\n")[0].split())
        yield _Line(name, models, bool(models) and "dict" in words, meaning)
