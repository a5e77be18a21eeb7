"""Which way a task and an attempt may go: the two tables of docs/lifecycle.md, word for word.

The page is not part of an installed package, so its rows stand here once more; a test reads the page with
`tables_of` and compares. Nothing is taken from the code that draws the page.
"""

from __future__ import annotations

import re

Moves = dict[tuple[str, str], str]
"""(state, event) to the next state."""

TASK_ROWS = """
| unblocked | blocked | pending |
| failed | blocked, pending, running | failed |
| skipped | blocked | skipped |
| cancelled | blocked, pending, running | cancelled |
| assigned | pending, running | running |
| running | pending | running |
| completed | pending, running | completed |
| requeued | running | pending |
| retried | failed, cancelled, skipped | pending |
| blocked | failed, cancelled, skipped | blocked |
"""

ATTEMPT_ROWS = """
| accepted | sent | accepted |
| completed | sent, accepted, lost, timed_out | completed |
| failed | sent, accepted | failed |
| lost | sent, accepted | lost |
| timed_out | sent, accepted | timed_out |
| cancelled | sent, accepted | cancelled |
| moved | sent | cancelled |
"""

FINAL = ("completed", "failed", "cancelled", "skipped")


def rows_of(text: str) -> Moves:
    """The moves of one table."""
    moves: Moves = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 3:
            moves |= {(old.strip(), cells[0]): cells[2] for old in cells[1].split(",")}
    return moves


def tables_of(page: str) -> list[Moves]:
    """The tables of moves of a page, in their order: of tasks, of attempts."""
    found = re.findall(r"^\| event \| from \| to \|\n\|[-|]+\|\n((?:\|.*\n)+)", page, re.MULTILINE)
    return [rows_of(text) for text in found]


TASKS = rows_of(TASK_ROWS)
ATTEMPTS = rows_of(ATTEMPT_ROWS)


def walk(states: set[str], event: str) -> set[str]:
    """Where a task can be after an event, given where it could be before; empty where that is not allowed.

    Becoming ready is not logged, so who was blocked may be ready; who is opened again may wait again.
    """
    before = settled(states)
    if event == "retried":
        return {
            TASKS[state, name] for state in before for name in (event, "blocked") if (state, name) in TASKS
        }
    return {TASKS[state, event] for state in before if (state, event) in TASKS}


def settled(states: set[str]) -> set[str]:
    """These states, and those that are reached without a word in the log."""
    return states | {TASKS[state, "unblocked"] for state in states if (state, "unblocked") in TASKS}
