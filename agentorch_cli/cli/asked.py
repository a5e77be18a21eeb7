"""What a person is asked, on a page: who wants what until when, and what may be answered.

Everything on it was written by others, so all of it passes through `Look`.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.text import Text

from agentorch_cli.cli.answers import Reply, described, is_numbered, label
from agentorch_cli.cli.look import Look, span
from agentorch_cli.cli.tables import Page
from agentorch_cli.text import one_line, shorten, visible

if TYPE_CHECKING:
    from agentorch_cli.agents.person import Ask

MOST_LINES = 30
"""Of data and of inputs each, before `/show`."""

LONGEST_LINE = 2_000

BESIDE = 13
"""Columns in front of a value: the names of the rows."""

HELP = (
    ("words or JSON", "the answer; Alt-Enter or a paste makes several lines"),
    ("/edit", "write the answer in your editor ($VISUAL or $EDITOR)"),
    ("/show", "all of what is asked"),
    ("/decline [why]", "somebody else shall do it; it does not come back to you"),
    ("/fail why", "it cannot be done like this: a failed attempt"),
    ("/abstain", "in a vote: no opinion"),
    ("/skip", "the next one first, where you have several"),
    ("/quit", "leave; what is not answered goes to others"),
    ("//text", "an answer that begins with /"),
)


def draw(page: Page, ask: Ask, reply: Reply, others: int, *, is_whole: bool = False) -> None:
    """All that is known of an ask; `others` wait behind it."""
    look = page.look
    page.gap()
    _draw_title(page, ask)
    rows: list[tuple[Text | str, Text]] = list(_facts(ask, look, is_whole=is_whole))
    rows += _choices(reply, look)
    if others:
        rows.append(("", look.text(f"{others} more wait{'s' if others == 1 else ''} for you", "dim")))
    page.pairs(rows)


def _draw_title(page: Page, ask: Ask) -> None:
    """A rule with the title on the left and the time on the right."""
    look = page.look
    time = left(ask)
    title = shorten(one_line(ask.title), max(10, look.width - cell_len(time) - 10))
    if not look.is_terminal:
        page.line(title + (f" ({time})" if time else ""))
        return
    dash = "-" if look.is_ascii else "─"
    rule = dash * max(2, look.width - cell_len(title) - cell_len(time) - (8 if time else 5))
    end = f" {time} {dash * 2}" if time else dash
    page.show(Text.assemble((dash * 2, "dim"), " ", (title, "bold"), " ", (rule + end, "dim")))


def left(ask: Ask) -> str:
    """How long an answer is still taken."""
    if ask.deadline is None:
        return ""
    seconds = (ask.deadline - datetime.now(UTC)).total_seconds()
    return f"{span(max(seconds, 0))} left"


def _facts(ask: Ask, look: Look, *, is_whole: bool) -> Iterator[tuple[str, Text]]:
    lines = 10**6 if is_whole else MOST_LINES
    width = look.width - BESIDE if look.is_terminal else 10**6
    if ask.work is not None:
        work = ask.work
        facts = [work.type, f"priority {work.priority}"]
        facts += [f"attempt {work.attempt}"] if work.attempt > 1 else []
        yield "task", look.text(work.task_id, "dim")
        yield "type", look.text(", ".join(facts))
        if ask.is_judge:
            yield "role", look.text("judge: the voters did not agree, and you decide", "yellow")
        elif work.role is not None:
            yield "role", look.text(work.role)
        if work.data not in (None, {}, [], ""):
            yield "data", outline(work.data, lines, width)
        inputs = {key: value for key, value in work.inputs.items() if not (ask.is_judge and key == "answers")}
        if inputs:
            yield "inputs", outline(inputs, lines, width)
        if ask.is_judge:
            yield from _said(work.inputs.get("answers"), look)
    elif ask.question is not None:
        yield "decision", look.text(ask.question.decision_id, "dim")
        if ask.question.question is not None:
            yield "question", outline(ask.question.question, lines, width)


def _said(answers: Any, look: Look) -> Iterator[tuple[str, Text]]:
    """How many voters gave which answer."""
    for number, one in enumerate(answers if isinstance(answers, list) else []):
        if isinstance(one, dict):
            votes = one.get("votes")
            said = look.text(shorten(one_line(label(one.get("answer")), 400), 200))
            note = look.text(f"  {votes} vote{'' if votes == 1 else 's'}", "dim")
            yield "said" if number == 0 else "", said + note


def _choices(reply: Reply, look: Look) -> Iterator[tuple[str, Text]]:
    if reply.fields:
        for number, field in enumerate(reply.fields):
            name = look.text(shorten(one_line(field.name), 30), "bold")
            yield "answer" if number == 0 else "", name + look.text(f": {field.hint}", "dim")
    elif reply.choices:
        yield from choice_rows(reply.choices, reply.noun, look)
    elif reply.schema is not None:
        yield "answer", look.text(described(reply.schema), "dim")
    if isinstance(reply.schema, dict) and isinstance(reply.schema.get("description"), str):
        yield "", look.text(shorten(one_line(reply.schema["description"]), 300), "dim")


def choice_rows(choices: list[Any], noun: str, look: Look) -> Iterator[tuple[str, Text]]:
    """Choices, with the number that stands for each."""
    numbered = is_numbered(choices)
    for number, one in enumerate(choices, start=1):
        mark = f"{number:>{len(str(len(choices)))}}  " if numbered else ""
        yield (
            noun if number == 1 else "",
            Text.assemble((mark, "cyan"), look.text(shorten(one_line(label(one), 400), 200))),
        )


def draw_help(page: Page) -> None:
    """What may be typed."""
    page.pairs([(page.look.text(word, "cyan"), page.look.text(meaning)) for word, meaning in HELP])


def outline(value: Any, most: int, width: int = 10**6) -> Text:
    """A JSON value for reading: a key a line, what is inside further in; at most so many lines."""
    lines: list[str] = []
    total = 0
    for line in _outlined(value, 0):
        total += 1
        if total <= most:
            margin = " " * (len(line) - len(line.lstrip(" ")) + 2)
            room = max(20, width)
            lines += textwrap.wrap(line, room, subsequent_indent=margin, drop_whitespace=False) or [""]
    if total > most:
        lines.append(f"… {total - most:,} more lines; /show shows all")
    return Text("\n".join(lines))


def _outlined(value: Any, depth: int) -> Iterator[str]:
    margin = "  " * min(depth, 10)
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _entry(f"{margin}{shorten(one_line(key, 200), 100)}:", inner, depth)
    elif isinstance(value, list) and value:
        for inner in value:
            yield from _entry(f"{margin}-", inner, depth)
    else:
        for line in _scalar(value):
            yield margin + line


def _entry(head: str, value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, dict | list) and value:
        yield head
        yield from _outlined(value, depth + 1)
        return
    lines = _scalar(value)
    if len(lines) == 1:
        yield f"{head} {lines[0]}"
        return
    yield head
    yield from ("  " * min(depth + 1, 10) + line for line in lines)


def _scalar(value: Any) -> list[str]:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return [shorten(line, LONGEST_LINE) for line in visible(text).split("\n")]
