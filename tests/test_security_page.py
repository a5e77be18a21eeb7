"""docs/security.md names a test for every threat, and tells the scopes as they are."""

from __future__ import annotations

import re
from pathlib import Path

from agentorch_cli.handlers.access import ACCESS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "security.md").read_text()


def test_every_threat_has_a_test_that_is_there() -> None:
    section = PAGE.split("## Threats")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    known = set(
        re.findall(r"def (test_\w+)", "\n".join(p.read_text() for p in (ROOT / "tests").rglob("*.py")))
    )

    assert len(rows) > 20
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row.split("|")[3])
        assert named and set(named) <= known, row


def test_the_scopes_of_the_page_are_those_of_the_table() -> None:
    text = PAGE.split("<!-- scopes: begin")[1].split("<!-- scopes: end")[0]
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    told = {row[1].strip(" `"): set(re.findall(r"`(\w+\.\w+)`", row[2])) for row in rows}

    for scope, methods in told.items():
        assert methods == {name for name, access in ACCESS.items() if access.scope == scope}, scope
