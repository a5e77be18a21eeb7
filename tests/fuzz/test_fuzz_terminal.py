"""Every text that reaches a terminal, a pipe or a log: shown, and obeyed by nobody."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from hostile import is_harmless, stored_texts, stored_values, texts, tried
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agentorch_cli import errors, views
from agentorch_cli.chaos.trial import Plan, Verdict
from agentorch_cli.cli import board, chaos, columns, portrait, story
from agentorch_cli.cli import frame as live
from agentorch_cli.cli.failure import told
from agentorch_cli.cli.look import Look
from agentorch_cli.cli.session import json_text
from agentorch_cli.cli.tables import Page
from agentorch_cli.logs import Json, Plain

NOW = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)
LOOK = Look(is_terminal=True, is_ascii=False, width=80, height=24, now=NOW)


def of(annotation: Any) -> st.SearchStrategy[Any]:
    """Anything that a field of this type may hold."""
    kind, inner = get_origin(annotation), get_args(annotation)
    if annotation is str:
        return stored_texts
    if annotation is Any:
        return stored_values
    if annotation in (int, float):
        return st.integers(0, 999) if annotation is int else st.floats(0, 1e9)
    if annotation is bool:
        return st.booleans()
    if annotation is NoneType:
        return st.none()
    if annotation is datetime:
        return st.integers(-(10**8), 10**8).map(lambda seconds: NOW + timedelta(seconds=seconds))
    if kind is Literal:
        return st.sampled_from(inner)
    if kind in (Union, UnionType):
        return st.one_of([of(one) for one in inner])
    if kind is list:
        is_page = isinstance(inner[0], type) and issubclass(inner[0], BaseModel)
        return st.lists(of(inner[0]), max_size=1 if is_page else 3)
    if kind is dict:
        return st.dictionaries(of(inner[0]), of(inner[1]), max_size=3)
    if kind is tuple:
        return st.tuples(*map(of, inner))
    assert issubclass(annotation, BaseModel), annotation
    return view(annotation)


ballots = st.lists(
    st.fixed_dictionaries(
        {"agent_id": texts, "answer": stored_values},
        optional={
            "status": texts, "weight": st.floats(0, 1), "confidence": st.floats(0, 1), "step": texts,
            "added": st.lists(texts, max_size=2), "capability": texts,
        },
    ),
    max_size=3,
)  # fmt: skip
SHAPED = dict.fromkeys(("votes", "dissent", "late_votes", "escalation"), ballots)
"""Fields whose objects have keys that the engine itself writes."""


def view(model: type[BaseModel]) -> st.SearchStrategy[Any]:
    """A view with anything in its fields."""
    fields = {
        name: SHAPED[name] if name in SHAPED else of(field.annotation)
        for name, field in model.model_fields.items()
    }
    return st.deferred(
        lambda: st.fixed_dictionaries(fields).map(lambda found: model.model_construct(**found))
    )


def frame(page: Page, status: Any) -> None:
    page.console.print(live.frame(status, page.console, page.look))


Draw = Callable[[Page, Any], None]
DRAWS: list[tuple[type[BaseModel], Draw]] = [
    (views.StatusView, board.draw),
    (views.StatusView, frame),
    (views.TaskView, story.draw),
    (views.WhyView, story.draw_why),
    (views.EventView, lambda page, one: story.draw_events(page, [one])),
    (views.DecisionView, story.draw_decision),
    (views.OutcomeView, story.draw_outcome),
    (views.AgentView, portrait.draw),
    (views.AgentView, lambda page, one: page.table(columns.AGENTS, [one, one])),
    (views.TaskView, lambda page, one: page.table(columns.TASKS, [one, one])),
    (views.TaskView, lambda page, one: page.table(columns.RESULTS, [one, one])),
    (views.AttemptView, lambda page, one: page.table(columns.ATTEMPTS, [one, one])),
    (views.DecisionView, lambda page, one: page.table(columns.DECISIONS, [one, one])),
    (views.ReliabilityView, lambda page, one: page.table(columns.RELIABILITIES, [one])),
    (views.LimitView, lambda page, one: page.table(columns.LIMITS, [one])),
]


@pytest.mark.parametrize(("model", "draw"), DRAWS, ids=[model.__name__ for model, _ in DRAWS])
def test_a_page_shows_anything_and_obeys_nothing(model: type[BaseModel], draw: Draw) -> None:
    @tried(8, slow=True)
    @given(view(model), st.booleans(), st.sampled_from([20, 80, 200]))
    def shown(document: Any, is_terminal: bool, width: int) -> None:
        stream = io.StringIO()
        draw(Page(stream, replace(LOOK, is_terminal=is_terminal, width=width)), document)

        assert is_harmless(stream.getvalue())

    shown()


@tried(60)
@given(view(views.TaskView))
def test_json_is_whole_and_hides_nothing(task: Any) -> None:
    text = json_text(task)

    json.loads(text)
    assert is_harmless(text)


ALL_ERRORS = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, Exception)]


@tried(100)
@given(st.sampled_from(ALL_ERRORS), texts, st.none() | texts, st.none() | texts, stored_values)
def test_an_error_is_told_in_lines_that_show(
    kind: Any, message: str, hint: str | None, where: str | None, details: Any
) -> None:
    error = kind(message, hint=hint, where=where, source=message, line=3, column=2, given=details)

    assert is_harmless("\n".join(told(error)))
    assert is_harmless(json_text({"error": error.to_json()}))


@tried(100)
@given(texts, texts, st.booleans())
def test_a_log_line_shows_what_it_holds(message: str, detail: str, has_traceback: bool) -> None:
    try:
        raise ValueError(detail)
    except ValueError as error:
        trace = (type(error), error, error.__traceback__) if has_traceback else None
    record = logging.LogRecord("agentorch.x", logging.ERROR, "x.py", 1, "it said %s", (message,), trace)

    assert is_harmless(Plain().format(record))
    assert is_harmless(Json().format(record))


@tried(20)
@given(st.lists(texts, max_size=7))
def test_the_verdict_of_a_trial_shows_what_it_holds(faults: list[str]) -> None:
    stream = io.StringIO()
    verdict = Verdict(Plan(), faults={"ends": faults}, outcomes={"completed": 1})

    chaos._draw(Page(stream, LOOK), verdict)

    assert is_harmless(stream.getvalue())
