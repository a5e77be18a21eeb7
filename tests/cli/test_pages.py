"""Pages fit the terminal, are plain on a pipe, and show nasty text without obeying it."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import pytest
import sample_fleet as sample
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from agentorch_cli.cli import board, columns, frame, portrait, story
from agentorch_cli.cli.look import Look, span
from agentorch_cli.cli.tables import GAP, KEPT, NARROWEST, Column, Page, fit

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
TERMINAL = Look(is_terminal=True, is_ascii=False, width=80, height=24, now=sample.NOW)
PIPE = replace(TERMINAL, is_terminal=False)
SIZES = [(20, False), (20, True), (40, False), (80, False), (80, True), (120, False), (200, False)]


def draw_everything(page: Page) -> None:
    board.draw(page, sample.status())
    story.draw(page, sample.story())
    portrait.draw(page, sample.agents()[2])
    story.draw_events(page, sample.story().events)
    page.table(columns.TASKS, sample.tasks())
    page.table(columns.RESULTS, sample.tasks())
    page.table(columns.DECISIONS, [sample.decision()])


def drawn(look: Look, draw: Any = draw_everything) -> str:
    stream = io.StringIO()
    draw(Page(stream, look))
    return stream.getvalue()


@pytest.mark.parametrize(("width", "is_ascii"), SIZES)
def test_no_line_is_wider_than_the_terminal(width: int, is_ascii: bool) -> None:
    text = ESCAPES.sub("", drawn(replace(TERMINAL, width=width, is_ascii=is_ascii)))

    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert text.isascii() or not is_ascii


@pytest.mark.parametrize(("width", "is_ascii"), SIZES)
def test_only_colours_of_our_own_reach_the_terminal(width: int, is_ascii: bool) -> None:
    text = ESCAPES.sub("", drawn(replace(TERMINAL, width=width, is_ascii=is_ascii)))

    assert not re.search(
        r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\U000e0000-\U000e007f]", text
    )
    assert "\\x1b" in text


def test_no_colours_where_they_are_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", drawn(TERMINAL))


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_ids_are_folded_and_never_cut(width: int) -> None:
    def draw(page: Page) -> None:
        page.table(columns.TASKS, sample.tasks()[:1])

    text = ESCAPES.sub("", drawn(replace(TERMINAL, width=width), draw))

    id_width = len(text.splitlines()[0]) - len(text.splitlines()[0].lstrip()) or text.index("STATUS") - GAP
    folded = "".join(line[:id_width].strip() for line in text.splitlines()[1:])
    assert folded == sample.task_id(1)


def test_at_80_columns_the_task_table_is_this() -> None:
    def draw(page: Page) -> None:
        page.table(columns.TASKS, [sample.tasks()[index] for index in (0, 1, 3)])

    lines = [line.rstrip() for line in ESCAPES.sub("", drawn(TERMINAL, draw)).splitlines()]

    assert lines == [
        "TASK                                  STATUS       NAME               AGE",
        "019a8f2e-7b1c-7d10-a3f4-000000000001  ◐ running    summarise the an…  1m 10s ago",
        "019a8f2e-7b1c-7d10-a3f4-000000000002  ● completed  count              5m ago",
        "nightly-report                        ◌ blocked    report             5s ago",
    ]


REPLAYED = {
    "rule": "supermajority",
    "tasks": 1_319,
    "votes_per_task": 4.25,
    "accuracy": 0.97,
    "accuracy_decided": 0.98,
    "calibration_error": 0.05,
    "decided": 1_200,
    "seconds": 1.5,
}


@pytest.mark.parametrize("width", [30, 40, 60, 80, 200])
def test_titles_of_columns_are_folded_and_never_cut(width: int) -> None:
    def draw(page: Page) -> None:
        page.table(columns.REPLAYED, [REPLAYED])

    *titles, _ = ESCAPES.sub("", drawn(replace(TERMINAL, width=width), draw)).splitlines()

    assert "…" not in "".join(titles)
    words = " ".join(titles).split()
    assert {"RULE", "VOTES", "PER", "TASK", "ACCURACY"} <= set(words)
    if width >= 80:
        assert {"TASKS", "DECIDED", "OF", "THE", "CALIBRATION", "ERROR"} <= set(words)


def test_where_a_setting_comes_from_is_told_whole_on_a_narrow_terminal() -> None:
    origin = "file /home/somebody/projects/a-long-name/agentorch.toml:211"
    row = {"name": "database.idle_in_transaction_timeout", "value": 60.0, "origin": origin}

    text = ESCAPES.sub("", drawn(TERMINAL, lambda page: page.table(columns.SETTINGS, [row])))

    title, *lines = text.splitlines()
    told = [line[title.index("FROM") :].strip() for line in lines]
    assert "".join(told).replace(" ", "") == origin.replace(" ", "")


def test_on_a_pipe_values_are_whole_and_separated_by_tabs() -> None:
    def draw(page: Page) -> None:
        page.table(columns.AGENTS, sample.agents())

    lines = drawn(replace(PIPE, width=20), draw).splitlines()

    assert lines[0].split("\t")[:3] == ["AGENT", "STATUS", "TYPE"]
    assert lines[2].split("\t")[:4] == [
        "writer-with-a-rather-long-name-for-an-agent-01",
        "draining",
        "writer",
        "summarise, translate, check_facts, write_reports",
    ]
    assert lines[1].split("\t")[-1] == "2026-05-04T11:59:58.000Z"
    assert all(line.count("\t") == lines[0].count("\t") for line in lines)
    assert "\x1b" not in "".join(lines)


def test_a_story_is_told_in_order_with_offsets() -> None:
    text = ESCAPES.sub("", drawn(replace(TERMINAL, width=200), lambda page: story.draw(page, sample.story())))

    assert re.search(r"\+0\.000s +submitted *\n +\+0\.600s +given to reader-1 +attempt: 1 *\n", text)
    assert "+16m 39s  failed at evil\\x1b" in text


@pytest.mark.parametrize(("retries", "words"), [(0, "no retries"), (1, "1 retry"), (2, "2 retries")])
def test_until_a_task_is_over_its_page_tells_its_limits(retries: int, words: str) -> None:
    task = sample.story().model_copy(
        update={
            "status": "running",
            "timeout_seconds": 300.0,
            "retries": retries,
            "options": {"estimate_seconds": 90.0},
        }
    )

    text = ESCAPES.sub("", drawn(replace(TERMINAL, width=80), lambda page: story.draw(page, task)))

    assert re.search(r"^ *estimate +1m 30s *$", text, re.MULTILINE)
    assert re.search(rf"^ *limits +5m an attempt, {words} *$", text, re.MULTILINE)


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(1, KEPT), st.booleans()), min_size=1, max_size=12),
    st.integers(1, 250),
)
def test_tables_fit_whenever_they_can(shape: list[tuple[int, int, bool]], width: int) -> None:
    names = [Column("X", lambda row, look: look.text(row), weight, is_id=is_id) for _, weight, is_id in shape]

    kept, widths = fit(names, [natural for natural, _, _ in shape], width)

    total = sum(widths) + GAP * (len(kept) - 1)
    could_go = any(names[index].weight < KEPT for index in kept)
    assert total <= width or (
        not could_go and all(one <= NARROWEST or one == n for one, (n, _, _) in _with(kept, widths, shape))
    )
    assert all(one <= natural for one, (natural, _, _) in _with(kept, widths, shape))


def _with(kept: list[int], widths: list[int], shape: list[Any]) -> list[tuple[int, Any]]:
    return [(width, shape[index]) for index, width in zip(kept, widths, strict=True)]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 60), (40, 10), (20, 5), (10, 1)])
@pytest.mark.parametrize("agents", [3, 2_000])
def test_a_frame_is_exactly_as_large_as_the_terminal(width: int, height: int, agents: int) -> None:
    look = replace(TERMINAL, width=width, height=height)
    stream = io.StringIO()
    page = Page(stream, look)

    page.console.print(frame.frame(sample.status(agents), page.console, look), end="")

    lines = ESCAPES.sub("", stream.getvalue()).split("\n")
    assert len(lines) == height
    assert max(map(cell_len, lines)) <= width


def test_a_frame_gives_each_part_its_share() -> None:
    look = replace(TERMINAL, height=40)
    stream = io.StringIO()
    page = Page(stream, look)

    page.console.print(frame.frame(sample.status(500), page.console, look))

    text = ESCAPES.sub("", stream.getvalue())
    assert re.search(r"AGENTS \(\d+ of 500\)", text)
    assert "RUNNING (1)" in text
    assert "VOTES ──" in text


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0s"), (0.4, "400ms"), (3.21, "3.2s"), (59, "59s"), (60, "1m"), (3725, "1h 2m"), (90_000, "1d 1h")],
)
def test_spans_are_short(seconds: float, shown: str) -> None:
    assert span(seconds) == shown
