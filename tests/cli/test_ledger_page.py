"""What the ledger says of an agent, on a terminal and on a pipe."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import sample_fleet as sample
from rich.cells import cell_len
from test_pages import ESCAPES, PIPE, TERMINAL, drawn

from agentorch_cli.cli import columns, portrait
from agentorch_cli.cli.portrait import sparkline
from agentorch_cli.views import AgentView, LedgerView, TrendView


def measured() -> AgentView:
    """An agent with a ledger."""
    counts = {"completed": 98.6, "failed": 1.0, "lost": 0.4, "trials": 33.0, "updated_at": sample.NOW}
    return sample.agents()[0].model_copy(
        update={
            "success_rate": 0.986,
            "latency_p50_ms": 234.1,
            "latency_p95_ms": 61_200.0,
            "performance_hourly": 91.7,
            "ledger": [
                LedgerView(
                    skill="",
                    task_type="",
                    success_rate=0.986,
                    right=0.9,
                    latency_p50_ms=234.1,
                    latency_p95_ms=61_200.0,
                    cost_usd=12.5,
                    cost_unknown=3.0,
                    tokens_unknown=100.0,
                    **counts,
                ),
                LedgerView(
                    skill="count",
                    task_type="words",
                    right=0.8,
                    cost_unknown=9.0,
                    tokens_unknown=9.0,
                    **counts,
                ),
                LedgerView(
                    skill="any",
                    task_type="x",
                    right=1.0,
                    cost_usd=0.0,
                    cost_unknown=0,
                    tokens_unknown=9.0,
                    **counts,
                ),
            ],
            "trend": [
                TrendView(minutes_ago=60 - 5 * piece, completed=piece, failed=int(piece == 3))
                for piece in range(12)
            ],
        }
    )


@pytest.mark.parametrize("width", [79, 80])
def test_the_list_of_agents_has_capabilities_and_measures_in_eighty_columns(width: int) -> None:
    able = measured().model_copy(update={"agent_id": "translator-10", "capabilities": ["extract", "check"]})

    def draw(page: Any) -> None:
        page.table(columns.AGENTS, [measured(), able])

    lines = ESCAPES.sub("", drawn(replace(TERMINAL, width=width), draw)).splitlines()

    measures = ["SCORE", "SUCCESS", "P50", "P95"]
    assert lines[0].split() == ["AGENT", "STATUS", "CAPABILITIES", "SLOTS", *measures]
    assert lines[1].split()[-6:] == ["3/4", "97", "99%", "234ms", "1m", "1s"]
    assert "translator-10" in lines[2]
    assert "extract, check" in lines[2]
    assert max(map(cell_len, lines)) <= width


def test_long_ids_and_skills_leave_room_for_what_agents_can_do() -> None:
    def draw(page: Any) -> None:
        page.table(columns.AGENTS, [measured(), *sample.agents()[1:]])

    lines = ESCAPES.sub("", drawn(replace(TERMINAL, width=80), draw)).splitlines()

    assert lines[0].split() == ["AGENT", "STATUS", "CAPABILITIES", "SLOTS", "SCORE"]
    assert "summarise, translate" in lines[2]
    assert max(map(cell_len, lines)) <= 80


def test_a_narrower_list_keeps_the_score_and_what_it_can_do_longest() -> None:
    def draw(page: Any) -> None:
        page.table(columns.AGENTS, [measured()])

    kept = [
        ESCAPES.sub("", drawn(replace(TERMINAL, width=width), draw)).splitlines()[0].split()
        for width in (60, 50, 42, 30)
    ]

    assert kept == [
        ["AGENT", "STATUS", "CAPABILITIES", "SLOTS", "SCORE", "SUCCESS"],
        ["AGENT", "STATUS", "CAPABILITIES", "SLOTS", "SCORE"],
        ["AGENT", "STATUS", "CAPABILITIES", "SCORE"],
        ["AGENT", "STATUS", "SCORE"],
    ]


def test_a_cost_that_is_not_known_is_never_shown_as_nothing() -> None:
    page = ESCAPES.sub("", drawn(replace(TERMINAL, width=100), lambda page: portrait.draw(page, measured())))
    pipe = drawn(PIPE, lambda page: portrait.draw(page, measured()))

    rows = [line for line in page.splitlines() if re.match("everything|count|any", line)]
    assert [re.split(r"\s{2,}", row)[-1] for row in rows] == ["at least $12.50", "unknown", "$0.0000"]
    assert "\t$12.50 + 3.0 unknown\n" in pipe
    assert "everything  –" in page


def test_the_last_hour_is_drawn_and_failures_stand_out() -> None:
    text = drawn(TERMINAL, lambda page: portrait.draw(page, measured()))
    plain = ESCAPES.sub("", text)

    assert "▁▃▃▄▄▅▅▆▆▇▇█  66 completed, 1 failed: 91.7 of 100" in plain
    assert "\x1b[31m▄" in text
    assert "1 2 4 4 5" in drawn(PIPE, lambda page: portrait.draw(page, measured()))


def test_a_bar_at_the_bottom_is_nothing_and_one_above_is_something() -> None:
    assert sparkline([0, 1, 1_000], TERMINAL).plain == "▁▂█"
    assert sparkline([0, 0], TERMINAL).plain == "▁▁"
    assert sparkline([0, 1, 1_000], replace(TERMINAL, is_ascii=True)).plain == "_.#"
    assert sparkline([0, 7], PIPE).plain == "0 7"
