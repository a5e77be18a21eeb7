"""Migrations only add: a node of the version before goes on beside one of this version."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

import pytest

BREAKING = {
    "takes a table away": r"\bdrop\s+table\b",
    "takes a column away": r"\bdrop\s+(?:column\s+)?"
    r"(?!column|index|function|trigger|view|constraint|not\s+null|default|table)\w+",
    "renames something": r"\brename\b",
    "changes a type": r"\balter\s+(?:column\s+)?\w+\s+(?:set\s+data\s+)?type\b",
    "forbids null where it was allowed": r"\bset\s+not\s+null\b",
    "empties a table": r"\btruncate\b",
    "takes a default away": r"\bdrop\s+default\b",
}
"""What a statement of an older version could not live with; taking an index or a check away is allowed."""

COLUMN = re.compile(
    r"add\s+column\s+(?:if\s+not\s+exists\s+)?(\w+)\s+(.*?)(?=,\s*add\s|;|$)", re.IGNORECASE | re.DOTALL
)


def breaks(statements: str) -> list[str]:
    """What is wrong with the text of a migration; functions are code, which may be replaced."""
    text = re.sub(r"--[^\n]*", "", statements)
    text = re.sub(r"\$(\w*)\$.*?\$\1\$", "", text, flags=re.DOTALL)
    text = re.sub(r"'[^']*'", "''", text).lower()
    found = [what for what, pattern in BREAKING.items() if re.search(pattern, text)]
    for name, definition in COLUMN.findall(text):
        is_filled = "default" in definition or "generated" in definition
        if "not null" in definition and not is_filled:
            found.append(f"adds {name}, which older versions do not fill")
    return found


MIGRATIONS = sorted(
    (one for one in files("agentorch_cli.store.migrations").iterdir() if one.name.endswith(".sql")),
    key=lambda one: one.name,
)


BEFORE_THE_FIRST_RELEASE = {"0019_quick_rules.sql": ["changes a type"]}
"""What no released version can be beside of."""


@pytest.mark.parametrize("migration", MIGRATIONS[1:], ids=lambda one: one.name)
def test_a_migration_takes_nothing_away_from_the_version_before(migration: Any) -> None:
    assert breaks(migration.read_text()) == BEFORE_THE_FIRST_RELEASE.get(migration.name, [])


@pytest.mark.parametrize(
    "statement",
    [
        "alter table tasks drop column pool;",
        "alter table tasks drop pool;",
        "alter table tasks rename column pool to pond;",
        "alter table tasks rename to jobs;",
        "drop table leases;",
        "alter table tasks alter column pool type integer;",
        "alter table tasks alter column pool set not null;",
        "alter table tasks alter pool drop default;",
        "alter table tasks add column pool text not null;",
        "alter table tasks add column one text default '', add column two text not null;",
        "truncate events;",
    ],
)
def test_the_check_sees_what_would_break_an_older_version(statement: str) -> None:
    assert breaks(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "drop index task_ready;",
        "alter table tasks drop constraint too_strict;",
        "alter table tasks alter column pool drop not null;",
        "alter table tasks add column pool text not null default 'default' check (length(pool) > 0);",
        "alter table tasks add column one text, add column two text;",
        "-- drop table tasks\nselect 1;",
    ],
)
def test_the_check_lets_pass_what_an_older_version_does_not_notice(statement: str) -> None:
    assert breaks(statement) == []
