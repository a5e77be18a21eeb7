"""The pictures in the language of Mermaid, for a README or a wiki.

Mermaid has no quoting of its own; it has entity codes (`#quot;`, `#35;`), which it takes apart before
it reads the text and puts back into the finished picture as HTML entities. So every character that
means something to Mermaid, to HTML or to Markdown is written as its number.
"""

from __future__ import annotations

import re
from typing import Final

from agentorch_cli.pictures.ink import COLORS
from agentorch_cli.pictures.model import Bar, Graph, Timeline, outcome
from agentorch_cli.pictures.words import fitted, span, state_words
from agentorch_cli.signs import STYLES

LONGEST: Final = 60
"""Letters of a name."""

MOST_EDGES: Final = 500
"""What Mermaid draws unless a page is set up for more (`maxEdges`)."""

_FILLS: Final = {
    "green": "fill:#dafbe1,stroke:#1a7f37,color:#1f2328",
    "blue": "fill:#ddf4ff,stroke:#0969da,color:#1f2328",
    "red": "fill:#ffebe9,stroke:#cf222e,color:#1f2328",
    "amber": "fill:#fff8c5,stroke:#9a6700,color:#1f2328",
    "grey": "fill:#f6f8fa,stroke:#6e7781,color:#1f2328",
    "violet": "fill:#fbefff,stroke:#8250df,color:#1f2328",
}

_SPECIAL: Final = re.compile(r"[^\w .,/()+=-]|_{2,}|(?<=\d)\.(?= )|^\s*[-+](?= )", re.ASCII)
"""Everything that is not plainly text; also what Markdown takes for stress or for a list."""

_GANTT: Final = {"failed": "crit, ", "timed_out": "crit, ", "lost": "crit, ", "completed": "done, "}


def graph_mermaid(graph: Graph) -> str:
    """A flowchart; each node with the sign of its state and in its colour."""
    lines = ["flowchart LR"]
    for number, node in enumerate(graph.nodes):
        sign = STYLES[node.state][0]
        lines.append(f'    n{number}["{sign} {escaped(node.name)}"]:::{node.state}')
    for before, after, kind in graph.links():
        lines.append(f"    n{before} {'-.->' if kind == 'sub_task' else '-->'} n{after}")
    if graph.cut:
        lines.append(f'    more["… and {graph.cut} more"]')
    for state in sorted({node.state for node in graph.nodes}):
        lines.append(f"    classDef {state} {_FILLS[COLORS[state]]}")
    return "\n".join(lines) + "\n"


def timeline_mermaid(timeline: Timeline) -> str:
    """A Gantt chart: a section for each task, a bar for each attempt; times count from the start."""
    hours = timeline.seconds >= 3600
    lines = [
        "gantt",
        f"    title {span(timeline.seconds)} in all",
        "    dateFormat x",
        f"    axisFormat {'%H:%M' if hours else '%M:%S' if timeline.seconds >= 10 else '%S.%L'}",
    ]
    for lanes in timeline.rows():
        state = outcome(lanes)
        lines.append(f"    section {escaped(lanes[0][0].name)} {STYLES[state][0]}")
        bars = sorted((bar for lane in lanes for bar in lane), key=lambda bar: (bar.start, bar.lane))
        lines += [_bar(timeline, bar) for bar in bars if bar.status != "blocked"]
        if all(bar.status == "blocked" for bar in bars):
            lines.append(_bar(timeline, bars[-1]))
    return "\n".join(lines) + "\n"


def _bar(timeline: Timeline, bar: Bar) -> str:
    start = round(timeline.offset(bar.start) * 1000)
    end = max(round(timeline.offset(bar.end) * 1000), start + 1)
    if bar.is_wait:
        return f"    {STYLES[bar.state][0]} waits : {start}, {end}"
    # the sign in front, or an agent named "title" would be read as a keyword
    words = f"{STYLES[bar.state][0]} {escaped(bar.agent)} {state_words(bar.status)}"
    kind = _GANTT.get(bar.status, "active, ")
    return f"    {words} : {kind}{start}, {end}"


def escaped(text: str) -> str:
    """Text of others as a label: what is not plainly text by its number, also the letters of a keyword."""
    shown = _SPECIAL.sub(
        lambda found: "".join(letter if letter.isalpha() else f"#{ord(letter)};" for letter in found[0]),
        fitted(text, LONGEST),
    )
    return shown or " "
