"""`agentorch task graph` and `task timeline`: how tasks hang together, and when each was worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentorch_cli.cli.session import FORMATS, PICTURES, Part, Session, json_text
from agentorch_cli.errors import UsageError

if TYPE_CHECKING:
    from rich.text import Text

    from agentorch_cli.cli.tables import Page
    from agentorch_cli.pictures.model import Graph
    from agentorch_cli.views import BarView, GraphNodeView, GraphView, TimelineView

ENDINGS = {
    ".svg": "svg", ".html": "html", ".htm": "html", ".mmd": "mermaid", ".mermaid": "mermaid", ".dot": "dot",
    ".gv": "dot", ".csv": "csv", ".json": "json", ".jsonl": "jsonl", ".txt": "table",
}  # fmt: skip
"""What the name of a file says about its form, where -o says nothing."""

ON_PIPE = 160
"""Columns of a picture in letters that is not for a terminal."""

Save = Annotated[
    str | None,
    typer.Option("--save", metavar="FILE", help="Write it there; the form follows the ending (.svg, …)."),
]


def graph(
    ctx: typer.Context,
    task_id: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="Id of a task, or of a submission.", show_default=False),
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Option(
            "--file", metavar="FILE", help='Draw a task file ("-" for stdin); no database is asked.'
        ),
    ] = None,
    save: Save = None,
) -> None:
    """Draw all that a task hangs together with: what it waits for, what waits for it, sub-tasks.

    $ agentorch task graph --file review.toml
    $ agentorch task graph nightly-report
    $ agentorch task graph nightly-report -o svg > graph.svg
    $ agentorch task graph nightly-report --save graph.html

    Each task has the sign of its state. What is too wide for lines becomes a tree, and thousands of
    tasks a line for each layer; svg and html show every task.
    """
    session = Session.of(ctx)
    if (task_id is None) == (not files):
        raise UsageError("give either the id of a task or --file", hint=f"{ctx.command_path} --help")
    found = _planned(session, files) if files else session.ask("task.graph", task_id=Part("family", task_id))

    def drawn(form: str) -> str:
        from agentorch_cli.pictures import dot, mermaid, page, svg
        from agentorch_cli.pictures.model import Graph

        graph = Graph.of(found.model_dump())
        match form:
            case "svg":
                return svg.graph_svg(graph)
            case "html":
                return page.graph_page(
                    graph, f"Graph of {_title(found.nodes, task_id) if task_id else ', '.join(files or ())}"
                )
            case "mermaid":
                _warn_of_edges(session, graph)
                return mermaid.graph_mermaid(graph)
            case _:
                return dot.graph_dot(graph)

    _answer(
        session, found, drawn, partial(_graph_letters, found), [node.task_id for node in found.nodes], save
    )


def timeline(
    ctx: typer.Context,
    task_id: Annotated[
        str, typer.Argument(metavar="ID", help="Id of a task, or of a submission.", show_default=False)
    ],
    save: Save = None,
) -> None:
    """Draw when all that a task hangs together with was worked on, by whom, and when it waited.

    $ agentorch task timeline nightly-report
    $ agentorch task timeline nightly-report -o svg > timeline.svg

    Every attempt is a bar; of a task that several agents worked on at once each has a row. The chain of
    tasks that took the longest is marked: to be done sooner, one of these has to be quicker.
    """
    session = Session.of(ctx)
    found = session.ask("task.timeline", task_id=Part("family", task_id))

    def drawn(form: str) -> str:
        from agentorch_cli.pictures import dot, mermaid, page, svg
        from agentorch_cli.pictures.model import Timeline

        line = Timeline.of(found.model_dump())
        match form:
            case "svg":
                return svg.timeline_svg(line)
            case "html":
                return page.timeline_page(line, f"Timeline of {_title(found.bars, task_id)}")
            case "mermaid":
                return mermaid.timeline_mermaid(line)
            case _:
                return dot.timeline_dot(line)

    _answer(
        session,
        found,
        drawn,
        partial(_timeline_letters, found),
        dict.fromkeys(bar.task_id for bar in found.bars),
        save,
    )


def draw_graph(page: Page, found: GraphView) -> None:
    """The graph in letters, as wide as the page."""
    _show(page, partial(_graph_letters, found))


def draw_timeline(page: Page, found: TimelineView) -> None:
    """The timeline in letters, as wide as the page."""
    _show(page, partial(_timeline_letters, found))


def _graph_letters(found: GraphView, width: int, is_ascii: bool) -> Text:
    from agentorch_cli.pictures.graph_text import graph_text
    from agentorch_cli.pictures.model import Graph

    return graph_text(Graph.of(found.model_dump()), width, is_ascii=is_ascii)


def _timeline_letters(found: TimelineView, width: int, is_ascii: bool) -> Text:
    from agentorch_cli.pictures.model import Timeline
    from agentorch_cli.pictures.timeline_text import timeline_text

    return timeline_text(Timeline.of(found.model_dump()), width, is_ascii=is_ascii)


def _planned(session: Session, files: list[str]) -> GraphView:
    """The graph of task files: nothing of it has a state yet. Raises InvalidFile, InvalidTask."""
    from agentorch_cli.cli.files import read_submission
    from agentorch_cli.views import GraphEdgeView, GraphNodeView, GraphView

    plan = read_submission(files, session.settings)
    nodes = [
        GraphNodeView(task_id=task.task_id, name=task.name, type=task.type, status="planned")
        for task in plan.tasks
    ]
    nodes += [
        GraphNodeView(task_id=one, type="", status="unknown", note="is not in the file")
        for one in plan.external
    ]
    edges = [GraphEdgeView(before=one, after=task.task_id) for task in plan.tasks for one in task.depends_on]
    return GraphView(nodes=nodes, edges=edges)


def _title(rows: Sequence[GraphNodeView] | Sequence[BarView], task_id: str) -> str:
    """The name of the task that was asked about; of a submission the id."""
    return next((row.name for row in rows if row.task_id == task_id and row.name), task_id)


def _warn_of_edges(session: Session, graph: Graph) -> None:
    from agentorch_cli.pictures.mermaid import MOST_EDGES

    if len(graph.edges) > MOST_EDGES:
        session.say(
            f"warning: Mermaid draws {MOST_EDGES} lines at most unless the page sets maxEdges;"
            f" these are {len(graph.edges):,}"
        )


def _answer(
    session: Session,
    document: Any,
    drawn: Callable[[str], str],
    letters: Callable[[int, bool], Text],
    ids: Iterable[str],
    save: str | None,
) -> None:
    """The picture on stdout, or in a file, in the form that was asked for."""
    form = session.format
    if save is not None:
        path = Path(save)
        named = session.output if session.output != "none" else None
        form = named or ("json" if session.as_json else ENDINGS.get(path.suffix.lower(), "table"))
        _write(path, _content(form, document, drawn, letters))
        session.say(f"Wrote {save}.")
        return
    if form in FORMATS or session.is_quiet:
        session.show(document, lambda page: _show(page, letters), ids)
        return
    import sys

    sys.stdout.write(drawn(form))
    sys.stdout.flush()


def _show(page: Page, letters: Callable[[int, bool], Text]) -> None:
    import os

    look = page.look
    width = look.width if look.is_terminal or os.environ.get("COLUMNS") else ON_PIPE
    page.show(letters(width, look.is_ascii))


def _content(
    form: str, document: Any, drawn: Callable[[str], str], letters: Callable[[int, bool], Text]
) -> str:
    if form in PICTURES:
        return drawn(form)
    if form == "table":
        return letters(ON_PIPE, False).plain + "\n"
    if form == "csv":
        from agentorch_cli.cli.forms import csv_lines

        return "".join(csv_lines(document, None))
    return json_text(document, indent=None if form == "jsonl" else 2) + "\n"


def _write(path: Path, content: str) -> None:
    try:
        path.write_text(content, "utf-8", newline="")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
