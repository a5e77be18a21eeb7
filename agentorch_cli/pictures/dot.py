"""The pictures in the language of Graphviz (`dot -Tsvg`)."""

from __future__ import annotations

from typing import Final

from agentorch_cli.pictures.model import Graph, Timeline, outcome
from agentorch_cli.pictures.words import few, fitted, marks, plain, span, state_words
from agentorch_cli.signs import STYLES

LONGEST: Final = 60
"""Letters of a name."""

_COLORS: Final = {
    # state: line and fill
    "completed": ("#1a7f37", "#dafbe1"),
    "running": ("#0969da", "#ddf4ff"),
    "accepted": ("#0969da", "#ddf4ff"),
    "failed": ("#cf222e", "#ffebe9"),
    "timed_out": ("#cf222e", "#ffebe9"),
    "pending": ("#9a6700", "#fff8c5"),
    "sent": ("#9a6700", "#fff8c5"),
    "cancelled": ("#8250df", "#fbefff"),
    "lost": ("#8250df", "#fbefff"),
    "unknown": ("#8250df", "#fbefff"),
}
_GREY: Final = ("#6e7781", "#f6f8fa")

INCHES: Final = 12.0
"""Width of the time axis; a row is a quarter of an inch."""

ROW: Final = 0.28


def graph_dot(graph: Graph) -> str:
    """A directed graph, to be laid out by `dot`."""
    lines = [
        "digraph tasks {",
        '  graph [rankdir=LR, fontname="monospace", bgcolor="transparent"];',
        '  node [shape=box, style="rounded,filled", fontname="monospace", fontsize=11];',
        '  edge [color="#8c959f", arrowsize=0.7];',
    ]
    for number, node in enumerate(graph.nodes):
        line, fill = _COLORS.get(node.state, _GREY)
        below = few(node.agents, LONGEST) or state_words(node.state)
        text = quoted(f"{STYLES[node.state][0]} {fitted(node.name, LONGEST)}", below)
        tip = quoted(node.task_id, state_words(node.status), *([node.note] if node.note else []))
        lines.append(f'  n{number} [label={text}, tooltip={tip}, color="{line}", fillcolor="{fill}"];')
    for before, after, kind in graph.links():
        lines.append(f"  n{before} -> n{after}{' [style=dashed]' if kind == 'sub_task' else ''};")
    if graph.cut:
        lines.append(f'  more [label="and {graph.cut} more", shape=plaintext, style=""];')
    return "\n".join([*lines, "}"]) + "\n"


def timeline_dot(timeline: Timeline) -> str:
    """Boxes with fixed places; the graph names `neato`, which leaves them where they are."""
    lines = [
        "graph timeline {",
        '  graph [layout=neato, bgcolor="transparent", outputorder=edgesfirst];',
        '  node [shape=box, style=filled, fontname="monospace", fontsize=9, fixedsize=true, label=""];',
        '  edge [color="#d0d7de"];',
    ]
    rows = timeline.rows()
    whole = timeline.seconds or 1.0
    bottom = -ROW * (sum(map(len, rows)) + 1)
    for number, (at, words) in enumerate(marks(timeline.seconds, 8)):
        x = at / whole * INCHES
        text = f'label={quoted(words)}, shape=plaintext, style="", width=0.5, height=0.2'
        lines.append(f'  t{number} [pos="{x:.3f},{ROW:.3f}!", {text}];')
        lines.append(f'  b{number} [pos="{x:.3f},{bottom:.3f}!", shape=point, width=0.01, style=invis];')
        lines.append(f"  t{number} -- b{number};")
    y, count = 0.0, 0
    for row, lanes in enumerate(rows):
        state = outcome(lanes)
        text = quoted(f"{STYLES[state][0]} {fitted(lanes[0][0].name, 26)}")
        lines.append(
            f'  r{row} [pos="-1.300,{y:.3f}!", label={text}, shape=plaintext, style="",'
            " width=2.4, height=0.2];"
        )
        for lane in lanes:
            for bar in lane:
                start = timeline.offset(bar.start) / whole * INCHES
                width = max(bar.seconds / whole * INCHES, 0.03)
                line, fill = _COLORS.get(bar.state, _GREY)
                words = state_words(bar.status) if bar.is_wait else f"{bar.agent}: {state_words(bar.status)}"
                tip = quoted(plain(lanes[0][0].name), words, span(bar.seconds))
                high = 0.05 if bar.is_wait else 0.2
                inside = fitted(bar.agent, int(width / 0.085)) if not bar.is_wait and width > 0.4 else ""
                lines.append(
                    f'  a{count} [pos="{start + width / 2:.3f},{y:.3f}!", width={width:.3f}, height={high},'
                    f' label={quoted(inside)}, tooltip={tip}, color="{line}", fillcolor="{fill}"];'
                )
                count += 1
            y -= ROW
    return "\n".join([*lines, "}"]) + "\n"


def quoted(*lines: str) -> str:
    """Text of others as a quoted string, in which Graphviz reads escapes (`\\N`, `\\l`) and entities."""
    return '"' + "\\n".join(_escaped(line) for line in lines) + '"'


_MARKUP: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\\": "\\\\", '"': '\\"'})


def _escaped(text: str) -> str:
    return plain(text).translate(_MARKUP)
