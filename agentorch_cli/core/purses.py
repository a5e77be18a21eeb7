"""The budgets of waiting tasks, as gates of the backlog (`core.gates`).

Tasks that draw on the same budgets in the same way wait at the same gate, so that one of them
is tried for all. Which those are is the gate's name: a sub-task may draw on what is reserved for
its parent, and a task with a budget of its own needs what that has left, so these stand alone.

`Purses` is the scheduler's: it knows only what it was refused, since only the assigning transaction
knows what is left, and forgets it when the budget changes. `OpenPurses` knows the accounts, for
whoever explains why a task waits.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from agentorch_cli.core.budget import Grant, Scope, Shortage
from agentorch_cli.core.shortage import sentence

if TYPE_CHECKING:
    from agentorch_cli.core.backlog import Ready
    from agentorch_cli.core.matching import Seat

BUDGET = "budget"

_NAME = re.compile(r"((?:[^=\\]|\\[=\\])+)=", re.DOTALL)
"""A label's name, in which `=` and the backslash are escaped, up to its value."""

ALONE = f"{BUDGET}:"
"""The gate of tasks that draw on nothing but their own budget: what that cannot pay for has ended."""


def label_names(options: Mapping[str, Any]) -> list[str]:
    """The labels of a task as `name=value`: the keys of their budgets. As in SQL, `agentorch_budget_keys`."""
    return [f"{_escaped(name)}={value}" for name, value in (options.get("labels") or {}).items()]


def _escaped(name: str) -> str:
    """Without a bare `=`, so that `a=b: c` and `a: b=c` are two."""
    return name.replace("\\", "\\\\").replace("=", "\\=") if "=" in name or "\\" in name else name


def name_in(key: str) -> str | None:
    """The name of the label in the key of a budget; None where it is no such key."""
    found = _NAME.match(key)
    return re.sub(r"\\(.)", r"\1", found[1]) if found is not None else None


class Purses:
    """What was refused, by gate."""

    def __init__(self, labels: Iterable[str] = ()) -> None:
        self.labels = frozenset(labels)
        """The labels that have a budget."""
        self.shut: dict[str, tuple[Shortage, int]] = {}
        """By gate: what was lacking, and for how many attempts at once."""

    def place(self, task: Ready) -> None:
        """Let the task's want name its gate, if it is on a budget."""
        name = self.name_of(task) if task.options else None
        others = tuple(one for one in task.want.gates if not one.startswith(f"{BUDGET}:"))
        names = others if name is None else (*others, name)
        if names != task.want.gates:
            task.want = replace(task.want, gates=names)

    def name_of(self, task: Ready) -> str | None:
        """The gate at which it waits; None where no budget pays for it."""
        options = task.options
        shared = [one for one in label_names(options) if one in self.labels] if self.labels else []
        if "funded_by" in options:
            shared.append(str(options["funded_by"]))
        own: Mapping[str, Any] = options.get("budget") or {}
        has_own = bool(own.keys() & {"cost_usd", "tokens"})
        if not shared:
            return ALONE if has_own else None
        said = ",".join(f"{key}={own[key]}" for key in sorted(own))
        alone = task.task_id if has_own else options.get("borrows", "")
        return "|".join((ALONE + task.type, said, alone, *sorted(shared)))

    # --- as a gate --------------------------------------------------------------------------

    def closed(self, name: str, task: Ready, number: int) -> str | None:
        """In words, if so many attempts were refused and nothing has changed since."""
        lacking = self.shut.get(name)
        return sentence(lacking[0]) if lacking is not None and number >= lacking[1] else None

    def enter(self, name: str, task: Ready, seats: Sequence[Seat]) -> None:
        """Only the transaction that assigns knows what a start costs."""

    def leave(self, name: str, task: Ready, seats: Sequence[Seat]) -> None:
        """Likewise."""

    # --- what the tables said ---------------------------------------------------------------

    def refuse(self, name: str, lacking: Shortage, number: int) -> None:
        """So many attempts at this gate cannot be paid now."""
        self.shut[name] = (lacking, number)

    def changed(self, budgets: Collection[tuple[str, str]] | None) -> list[str]:
        """These budgets (None: any) may have more now: the gates that may be open again."""
        names = [
            name
            for name, (lacking, _) in self.shut.items()
            if budgets is None or (lacking.scope, lacking.key) in budgets
        ]
        for name in names:
            del self.shut[name]
        return names


class Asks(Protocol):
    """The accounts of tasks: `store.budgets.Ledger`."""

    def ask(self, task_id: str, seats: int, wanted: int | None = None) -> list[list[Grant]] | Shortage: ...

    def book(self, grants: Iterable[Grant]) -> None: ...


class OpenPurses(Purses):
    """A gate that looks into the accounts. It is used up by one walk."""

    def __init__(self, labels: Iterable[str], ledger: Asks) -> None:
        super().__init__(labels)
        self.ledger = ledger

    def closed(self, name: str, task: Ready, number: int) -> str | None:
        """In words, if the accounts cannot pay for so many attempts."""
        found = self.ledger.ask(task.task_id, number)
        return sentence(found) if isinstance(found, Shortage) else None

    def enter(self, name: str, task: Ready, seats: Sequence[Seat]) -> None:
        """It is paid, and those behind it find less."""
        found = self.ledger.ask(task.task_id, len(seats))
        if not isinstance(found, Shortage):
            self.ledger.book(grant for grants in found for grant in grants)


def is_final(lacking: Shortage) -> bool:
    """Whether the task has to fail: the budget is its own, or its submission's, and can never pay."""
    return lacking.is_final and lacking.scope is not Scope.LABEL
