"""The pictures as one HTML page that needs nothing else: no script, no address, nothing to load.

Its security policy allows its own two style sheets, by their hashes, and nothing besides: whatever a
task is called, nothing of it can run or be fetched.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

from agentorch_cli.pictures.ink import STYLE, escaped
from agentorch_cli.pictures.model import Graph, Timeline, outcome
from agentorch_cli.pictures.svg import graph_svg, timeline_svg
from agentorch_cli.pictures.words import span, state_words

MOST_ROWS: Final = 2_000
"""Of the table below the picture; the picture itself shows all."""

_PAGE_STYLE: Final = (
    ":root{color-scheme:light dark}"
    "body{margin:0;padding:20px 28px;font:14px/1.45 system-ui,sans-serif;color:#1f2328;background:#f6f8fa}"
    "h1{font-size:19px;margin:0 0 2px}p{margin:0 0 14px;color:#656d76}"
    "figure{margin:0;overflow:auto;border:1px solid #d8dee4;border-radius:8px;background:#fff}"
    "figure svg{display:block}"
    "details{margin-top:16px}summary{cursor:pointer;color:#656d76}"
    "table{border-collapse:collapse;margin-top:10px;font-size:13px}"
    "th,td{text-align:left;padding:3px 18px 3px 0;border-bottom:1px solid #d8dee4;vertical-align:top}"
    "th{font-weight:600}td{overflow-wrap:anywhere;max-width:60ch}td:first-child{white-space:pre}"
    "@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#010409}"
    "p,summary{color:#8b949e}figure{border-color:#30363d;background:#0d1117}th,td{border-color:#30363d}}"
)


def graph_page(graph: Graph, title: str = "Task graph") -> str:
    """The graph as a page, with its tasks as a table for those who look for one."""
    count = len(graph.nodes)
    facts = [f"{count:,} task{'' if count == 1 else 's'}"]
    facts += [f"{number:,} {state_words(state)}" for state, number in graph.counts()]
    if graph.cut:
        facts.append(f"{graph.cut:,} more not shown")
    rows = [
        (node.name, node.task_id, state_words(node.status), ", ".join(node.agents), node.note)
        for node in graph.nodes[:MOST_ROWS]
    ]
    head = ("Name", "Task", "State", "Agents", "Note")
    return _page(title, facts, graph_svg(graph, with_style=False), head, rows, len(graph.nodes))


def timeline_page(timeline: Timeline, title: str = "Timeline") -> str:
    """The timeline as a page, with its attempts as a table."""
    lanes = timeline.rows()
    facts = [f"{len(lanes):,} task{'' if len(lanes) == 1 else 's'}", f"{span(timeline.seconds)} in all"]
    open_tasks = sum(outcome(one) in ("running", "pending", "blocked") for one in lanes)
    if open_tasks:
        facts.append(f"{open_tasks:,} not ended")
    if timeline.cut:
        facts.append(f"{timeline.cut:,} tasks more not shown")
    work = [bar for bar in timeline.bars if not bar.is_wait]
    rows = [
        (bar.name, str(bar.attempt), bar.agent, state_words(bar.status),
         f"+{span(timeline.offset(bar.start))}", span(bar.seconds))
        for bar in work[:MOST_ROWS]
    ]  # fmt: skip
    head = ("Name", "Attempt", "Agent", "State", "Began", "Took")
    return _page(title, facts, timeline_svg(timeline, with_style=False), head, rows, len(work))


def _page(
    title: str,
    facts: Iterable[str],
    picture: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    total: int,
) -> str:
    policy = f"default-src 'none'; style-src {_source(STYLE)} {_source(_PAGE_STYLE)}"
    policy += "; base-uri 'none'; form-action 'none'"
    titles = "".join(f"<th>{name}</th>" for name in head)
    body = "\n".join("<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    more = f"<p>and {total - len(rows):,} more</p>" if total > len(rows) else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{escaped(title)}</title>
<style>{_PAGE_STYLE}</style>
<style>{STYLE}</style>
</head>
<body>
<h1>{escaped(title)}</h1>
<p>{escaped(" · ".join(facts))}</p>
<figure>{picture}</figure>
<details>
<summary>As a table</summary>
<table><thead><tr>{titles}</tr></thead><tbody>
{body}
</tbody></table>{more}
</details>
</body>
</html>
"""


def _source(style: str) -> str:
    """What a security policy says to allow just this style sheet."""
    return f"'sha256-{b64encode(sha256(style.encode()).digest()).decode()}'"
