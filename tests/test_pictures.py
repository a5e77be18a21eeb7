"""Pictures of graphs and timelines: true to what they show, and safe whatever tasks are called."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import random
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from agentorch_cli.core.lifecycle import ATTEMPT_MOVES, TASK_MOVES
from agentorch_cli.pictures import ink, mermaid, words
from agentorch_cli.pictures.channels import assign, nets_of
from agentorch_cli.pictures.dot import graph_dot, timeline_dot
from agentorch_cli.pictures.graph_text import graph_text
from agentorch_cli.pictures.layers import arrange, crossings, parts, places
from agentorch_cli.pictures.mermaid import graph_mermaid, timeline_mermaid
from agentorch_cli.pictures.model import Bar, Graph, GraphEdge, GraphNode, Timeline
from agentorch_cli.pictures.page import graph_page, timeline_page
from agentorch_cli.pictures.svg import graph_svg, timeline_svg
from agentorch_cli.pictures.timeline_text import timeline_text
from agentorch_cli.signs import STYLES

DAGS = Path(__file__).parent / "data" / "dags"
START = datetime(2026, 5, 4, tzinfo=UTC)
SVG = "{http://www.w3.org/2000/svg}"

HOSTILE = [
    "</script><script>document.title='run'</script>",
    '"><img src=x onerror="document.title=\'run\'">',
    '"] --> x["evil',
    "a\\\"b'c`d\\",
    "line one\nline two\r\n%% comment",
    '%%{init: {"theme": "dark"}}%%',
    "\x1b]52;c;aGk=\x07\x1b[2J\x9b31m\x7f",
    "\u202etxt.exe\u2066\u200b\U000e0041",
    "&lt;&amp;&#35;#quot;#35;",
    "end",
    "style x:#f00;",
    "title",
    "section x",
    "click n0 call alert()",
    "javascript:alert(1)",
    "**bold** `code` _word_ $x$ 1. one",
    "]]><!-- -->",
    "[/bold]",
    "\\N \\l \\",
    "\ud800lone",
    "日本語のタスクの長い名前",
    "a" * 600,
    " ",
]

HIDDEN = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]"
)


def graph_of(waits: dict[str, list[str]], **states: str) -> Graph:
    nodes = tuple(GraphNode(one, one, states.get(one, "pending")) for one in waits)
    return Graph(nodes, tuple(GraphEdge(b, a) for a, needed in waits.items() for b in needed))


def workflow(name: str) -> Graph:
    """A real graph, in which everything that could run has."""
    tasks = json.loads((DAGS / f"wf_{name}.json").read_text("utf-8"))["tasks"]
    states = ("completed", "running", "pending", "failed", "blocked", "cancelled", "skipped")
    nodes = tuple(
        GraphNode(
            one["id"],
            f"{one['type']}-{one['id'][1:]}",
            states[number % 7],
            (f"agent-{number % 5}",),
            type=one["type"],
        )
        for number, one in enumerate(tasks)
    )
    return Graph(nodes, tuple(GraphEdge(b, one["id"]) for one in tasks for b in one["depends_on"]))


def bar(task_id: str, start: float, end: float, status: str = "completed", **more: Any) -> Bar:
    facts = {"agent": "ann", "lane": 0, "attempt": 1, "is_open": False, "name": task_id, **more}
    return Bar(
        task_id=task_id,
        start=START + timedelta(seconds=start),
        end=START + timedelta(seconds=end),
        status=status,
        **facts,
    )


def wait(task_id: str, start: float, end: float, status: str = "pending", *, is_open: bool = False) -> Bar:
    return bar(task_id, start, end, status, agent="", attempt=0, is_open=is_open)


def timeline_of(*bars: Bar, critical: tuple[str, ...] = ()) -> Timeline:
    return Timeline(bars, min(one.start for one in bars), max(one.end for one in bars), critical)


EVIL_GRAPH = Graph(
    tuple(
        GraphNode(name, name, ("failed", "running")[number % 2], (name, "other"), name, name)
        for number, name in enumerate(HOSTILE)
    ),
    tuple(GraphEdge(one, other) for one, other in pairwise(HOSTILE)),
    cut=3,
)
EVIL_LINE = timeline_of(
    *(
        bar(name, number, number + 1, ("failed", "lost", "completed", "accepted")[number % 4], agent=name)
        for number, name in enumerate(HOSTILE)
    ),
    wait(HOSTILE[0], 0, 40, is_open=True),
    critical=(HOSTILE[0], HOSTILE[1]),
)
PAPER = timeline_of(
    wait("fetch", 0, 1),
    bar("fetch", 1, 4),
    bar("check", 4, 6, "failed"),
    wait("check", 6, 8),
    bar("check", 8, 10, "completed", attempt=2, agent="ben"),
    bar("vote", 4, 9, agent="ann"),
    bar("vote", 4, 12, "accepted", agent="ben", lane=1, attempt=2, is_open=True),
    wait("later", 0, 12, "blocked", is_open=True),
    critical=("fetch", "vote"),
)

graphs = st.integers(1, 24).flatmap(
    lambda count: st.tuples(
        st.just(count),
        st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=3 * count),
    )
)
"""Any graphs, with circles and with tasks that wait for themselves."""


# --- layers -------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(graphs)
def test_every_edge_runs_down_from_layer_to_layer(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    count, edges = drawn

    layered = arrange(count, edges)

    shown = [vertex for row in layered.rows for vertex in row]
    assert sorted(shown) == list(range(len(layered.layer)))
    assert set(layered.routes) == {edge for edge in edges if edge[0] != edge[1]}
    for (before, after), way in layered.routes.items():
        assert (way[0], way[-1]) == (before, after)
        step = -1 if (before, after) in layered.turned else 1
        assert [layered.layer[vertex] for vertex in way] == list(
            range(layered.layer[before], layered.layer[after] + step, step)
        )
        assert all(layered.is_bend(vertex) for vertex in way[1:-1])
    assert all(layered.layer[lower] == layered.layer[upper] + 1 for upper, lower in layered.links)


@settings(max_examples=25)
@given(graphs)
def test_only_circles_turn_edges_around(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    count, edges = drawn
    downwards = [(min(edge), max(edge)) for edge in edges]

    assert not arrange(count, downwards).turned


@settings(max_examples=25)
@given(graphs)
def test_the_same_graph_gives_the_same_picture(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    assert arrange(*drawn) == arrange(*drawn)


@settings(max_examples=25)
@given(graphs, st.integers(0, 5))
def test_places_keep_the_order_and_the_distance(drawn: tuple[int, list[tuple[int, int]]], gap: int) -> None:
    layered = arrange(*drawn)
    sizes = [10.0 if vertex < layered.count else 1.0 for vertex in range(len(layered.layer))]

    at = places(layered, sizes.__getitem__, gap)

    for row in layered.rows:
        for one, other in pairwise(row):
            assert at[other] - at[one] >= (sizes[one] + sizes[other]) / 2 + gap - 1e-6
    assert min(at[vertex] - sizes[vertex] / 2 for vertex in range(len(at))) == pytest.approx(0)


@settings(max_examples=25)
@given(graphs)
def test_crossings_are_counted_as_the_dumb_twin_counts_them(
    drawn: tuple[int, list[tuple[int, int]]],
) -> None:
    layered = arrange(*drawn)
    below: list[list[int]] = [[] for _ in layered.layer]
    for upper, lower in layered.links:
        below[upper].append(lower)
    place = {vertex: at for row in layered.rows for at, vertex in enumerate(row)}

    twin = sum(
        (place[a] - place[c]) * (place[b] - place[d]) < 0
        for (a, b), (c, d) in combinations(layered.links, 2)
        if layered.layer[a] == layered.layer[c]
    )

    assert crossings(layered.rows, below) == twin


def test_a_graph_that_needs_no_crossing_has_none() -> None:
    """Ladders whose tasks come in a wild order."""
    order = list(range(40))
    random.Random(5).shuffle(order)
    edges = [(order[start + i], order[start + i + 1]) for start in (0, 10, 20, 30) for i in range(9)]

    layered = arrange(40, edges)

    below: list[list[int]] = [[] for _ in layered.layer]
    for upper, lower in layered.links:
        below[upper].append(lower)
    assert crossings(layered.rows, below) == 0


def test_parts_that_do_not_hang_together_are_told_apart() -> None:
    assert parts(6, [(4, 0), (2, 5), (5, 4)]) == [[0, 2, 4, 5], [1], [3]]


nets = st.lists(
    st.tuples(st.integers(0, 12), st.lists(st.integers(0, 12), min_size=1, max_size=5)),
    min_size=1,
    max_size=12,
    unique_by=lambda one: one[0],
)


@settings(max_examples=25)
@given(nets, st.booleans())
def test_no_two_lines_share_a_track_or_run_into_each_other(
    ways: list[tuple[int, list[int]]], can_shift: bool
) -> None:
    found = nets_of((number, 2 * source, [2 * t for t in ts]) for number, (source, ts) in enumerate(ways))

    tracks = assign(found, can_shift=can_shift)

    if tracks is None:
        assert not can_shift
        return
    routed = [net for net in found if net.track >= 0]
    assert all(net.track < tracks for net in routed)
    for one, other in combinations(routed, 2):
        if one.track == other.track:
            assert one.high < other.low or other.high < one.low
    for one in routed:
        for other in routed:
            if one is not other and set(one.starts) & set(other.targets):
                assert one.track < other.track


# --- on a terminal ------------------------------------------------------------------------------


def lines(text: Text) -> list[str]:
    return text.plain.split("\n")


@pytest.mark.parametrize("width", [20, 40, 80, 120, 200])
@pytest.mark.parametrize("is_ascii", [False, True])
def test_no_picture_is_wider_than_the_terminal(width: int, is_ascii: bool) -> None:
    drawn = [
        *(graph_text(workflow(name), width, is_ascii=is_ascii) for name in ("montage_103", "soykb_96")),
        graph_text(workflow("epigenomics_1121"), width, is_ascii=is_ascii),
        graph_text(EVIL_GRAPH, width, is_ascii=is_ascii),
        timeline_text(PAPER, width, is_ascii=is_ascii),
        timeline_text(EVIL_LINE, width, is_ascii=is_ascii),
    ]

    for text in drawn:
        assert max(cell_len(line) for line in lines(text)) <= width
        assert not HIDDEN.search(text.plain)
        assert text.plain.isascii() or not is_ascii


def test_a_small_graph_has_boxes_and_lines() -> None:
    graph = graph_of({"a": [], "b": ["a"], "c": ["a"]}, a="completed", b="running", c="failed")

    assert [line.rstrip() for line in lines(graph_text(graph, 80))] == [
        "3 tasks   ◐ 1 running   ✗ 1 failed   ● 1 completed",
        "",
        "    ╭─────╮",
        "    │ ● a │",
        "    ╰──┬──╯",
        "   ╭───┴────╮",
        "   ▼        ▼",
        "╭─────╮  ╭─────╮",
        "│ ◐ b │  │ ✗ c │",
        "╰─────╯  ╰─────╯",
    ]


def test_where_boxes_take_too_much_room_names_stand_in_columns() -> None:
    waits: dict[str, list[str]] = {"start": [], **{f"part-{i}": ["start"] for i in range(6)}}
    waits["end"] = list(waits)[1:]

    assert [line.rstrip() for line in lines(graph_text(graph_of(waits), 50))][2:] == [
        "         ╭▶ ○ part-0 ─╮",
        "         ├▶ ○ part-1 ─┤",
        "○ start ─┼▶ ○ part-2 ─┼▶ ○ end",
        "         ├▶ ○ part-3 ─┤",
        "         ├▶ ○ part-4 ─┤",
        "         ╰▶ ○ part-5 ─╯",
    ]


def test_lines_that_cross_do_not_seem_to_meet() -> None:
    """Each of three goes to its own two of three, which cannot be untangled."""
    graph = graph_of({"a": [], "b": [], "c": [], "x": ["a", "b"], "y": ["b", "c"], "z": ["a", "c"]})

    drawn = graph_text(graph, 80).plain

    assert re.search("─│", drawn)
    assert "┼" not in drawn


def test_what_is_too_wide_becomes_a_tree_with_every_task_once() -> None:
    graph = workflow("montage_103")

    drawn = graph_text(graph, 80)

    assert "├─" in drawn.plain
    for node in graph.nodes:
        pattern = rf"[●◐○✗◌⊘↷] {re.escape(node.name)}(?!\d)"
        assert len(re.findall(pattern, drawn.plain)) == 1, node.name


def test_a_long_chain_stays_inside_the_terminal_and_keeps_its_order() -> None:
    names = [f"step-{number}" for number in range(300)]
    graph = graph_of({name: names[max(n - 1, 0) : n] for n, name in enumerate(names)})

    drawn = graph_text(graph, 60)

    assert re.findall(r"step-\d+", drawn.plain) == names
    assert len(lines(drawn)) < 100


def test_thousands_of_tasks_are_a_line_for_each_layer() -> None:
    drawn = lines(graph_text(workflow("epigenomics_1121"), 120))

    assert drawn[0].startswith("1,121 tasks")
    assert [line.split("  ")[0] for line in drawn if line.startswith("layer")] == [
        f"layer {n}" for n in range(1, 10)
    ]
    totals = [int(one) for one in re.findall(r"layer \d+ +[█▒]+ +(\d+)", "\n".join(drawn))]
    assert sum(totals) == 1121


def test_a_circle_is_told_and_not_drawn_as_an_order() -> None:
    graph = graph_of({"a": ["c"], "b": ["a"], "c": ["b"], "self": ["self"]})

    drawn = graph_text(graph, 80).plain

    assert "and in a circle:" in drawn
    assert "a waits for c" in drawn
    assert "self waits for self" in drawn


def test_every_state_has_a_sign_of_its_own_in_the_picture() -> None:
    states = {state for state, _ in TASK_MOVES} | set(TASK_MOVES.values()) | {"planned", "unknown"}
    attempts = {state for state, _ in ATTEMPT_MOVES} | set(ATTEMPT_MOVES.values())

    assert states | attempts <= set(STYLES)
    assert states | attempts <= set(ink.COLORS)
    for state in states - {"planned"}:
        drawn = graph_text(graph_of({"a": []}, a=state), 80).plain
        assert f"{STYLES[state][0]} a" in drawn
        drawn_ascii = graph_text(graph_of({"a": []}, a=state), 80, is_ascii=True).plain
        assert f"{STYLES[state][1]} a" in drawn_ascii
    assert len({STYLES[state][0] for state in states - {"planned", "unknown"}}) == len(states) - 2


def test_a_status_that_nobody_knows_is_drawn_as_unknown() -> None:
    graph = graph_of({"a": []}, a="enchanted")

    assert "? a" in graph_text(graph, 80).plain
    ET.fromstring(graph_svg(graph))


def test_the_timeline_at_80_columns_is_this() -> None:
    assert [line.rstrip() for line in lines(timeline_text(PAPER, 80))] == [
        "4 tasks in 12s   ◐ 1 running   ◌ 1 blocked   ● 2 completed",
        "",
        "         0s        2s         4s        6s         8s        10s     now",
        "▌● fetch ·····████████████████                                              3.0s",
        " ● check                      ▒▒▒▒▒▒▒▒▒✗···········██████████               4.0s",
        "▌◐ vote                       ██████████████████████████                    5.0s",
        "▌                             ▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▶    8.0s",
        " ◌ later ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄",
        "",
        "▌ the longest chain: fetch → vote",
    ]


def test_a_mark_colours_nothing_but_itself() -> None:
    for drawn, word in (
        (timeline_text(PAPER, 120), "ben"),
        (timeline_text(PAPER, 120), "→ vote"),
        (graph_text(graph_of({"a": [], **{f"b{n}": ["a"] for n in range(60)}}), 20), "b7"),
    ):
        at = drawn.plain.index(word) + len(word) - 1
        assert {str(span.style) for span in drawn.spans if span.start <= at < span.end} <= {""}


def test_of_thousands_of_tasks_the_timeline_keeps_the_chain_and_what_lasted() -> None:
    bars = [bar(f"t{n}", n, n + (50 if n == 900 else 1), name=f"task {n}") for n in range(1000)]

    drawn = timeline_text(timeline_of(*bars, critical=("t999",)), 100).plain

    assert "task 900" in drawn
    assert "task 999" in drawn
    assert "and 700 tasks more, which took less" in drawn


def test_a_timeline_of_a_moment_can_be_drawn() -> None:
    empty = timeline_of(bar("a", 0, 0))

    assert "0s" in timeline_text(empty, 60).plain
    ET.fromstring(timeline_svg(empty))
    assert timeline_dot(empty)
    assert timeline_mermaid(empty)


# --- SVG and HTML -------------------------------------------------------------------------------

FORMS: dict[str, Callable[[], str]] = {
    "graph": lambda: graph_svg(EVIL_GRAPH),
    "timeline": lambda: timeline_svg(EVIL_LINE),
    "real graph": lambda: graph_svg(workflow("chipseq")),
    "paper": lambda: timeline_svg(PAPER),
}
ELEMENTS = {"svg", "title", "style", "rect", "g", "path", "circle", "text"}
ATTRIBUTES = {
    "class", "role", "width", "height", "viewBox", "x", "y", "rx", "r", "d", "transform", "text-anchor",
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_svg_is_well_formed_and_holds_nothing_that_runs_or_loads(form: str) -> None:
    drawn = FORMS[form]()

    for element in ET.fromstring(drawn).iter():
        assert element.tag.removeprefix(SVG) in ELEMENTS
        assert set(element.attrib) <= ATTRIBUTES
    assert not HIDDEN.search(drawn)
    assert "url(" not in drawn
    assert "@import" not in drawn


def test_svg_shows_every_task_and_every_edge() -> None:
    graph = workflow("soykb_96")

    root = ET.fromstring(graph_svg(graph))

    names = {title.text.split("\n")[0] for title in root.iter(f"{SVG}title") if title.text}
    assert {node.name for node in graph.nodes} <= names
    assert {f"{edge.before} before {edge.after}" for edge in graph.edges} == {
        " before ".join(f"t{part.rpartition('-')[2]}" for part in name.split(" before "))
        for name in names
        if " before " in name
    }


def test_the_tooltip_of_a_task_says_what_is_known_of_it() -> None:
    node = GraphNode("id-1", "read <it>", "failed", ("ann", "ben"), "no such table", "reading")

    root = ET.fromstring(graph_svg(Graph((node,), ())))

    (told,) = [t.text for t in root.iter(f"{SVG}title") if t.text and t.text.startswith("read")]
    assert told == "read <it>\nid-1\nfailed: ann, ben\ntype reading\nno such table"


def test_nodes_do_not_lie_on_each_other() -> None:
    for name in ("montage_103", "chipseq"):
        boxes = [
            tuple(float(rect.attrib[key]) for key in ("x", "y", "width", "height"))
            for rect in ET.fromstring(graph_svg(workflow(name))).iter(f"{SVG}rect")
            if rect.attrib.get("class") == "box"
        ]
        boxes.sort()
        for number, (x, y, width, height) in enumerate(boxes):
            for other_x, other_y, _, _ in boxes[number + 1 :]:
                if other_x >= x + width:
                    break
                assert abs(other_y - y) >= height


def test_a_page_may_bring_the_style_itself() -> None:
    assert "<style>" in graph_svg(EVIL_GRAPH)
    assert "<style>" not in graph_svg(EVIL_GRAPH, with_style=False)
    assert "<style>" not in timeline_svg(EVIL_LINE, with_style=False)


PAGES = {"graph": graph_page(EVIL_GRAPH, HOSTILE[0]), "timeline": timeline_page(EVIL_LINE, HOSTILE[1])}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_page_allows_its_own_styles_and_nothing_else(page: str) -> None:
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])  # type: ignore[index]
    styles = re.findall(r"<style>(.*?)</style>", page, re.S)

    hashes = [base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() for style in styles]
    sources = " ".join(f"'sha256-{one}'" for one in sorted(hashes))
    allowed = re.search(r"style-src ([^;]*)", policy)
    assert policy.startswith("default-src 'none'; ")
    assert allowed is not None
    assert sorted(allowed[1].split()) == sorted(sources.split())
    assert not re.search(r"<script|<img|<iframe|<link|javascript:|\s(on\w+|href|src|style)=", unquoted(page))
    assert not HIDDEN.search(page)


def unquoted(page: str) -> str:
    """The page without the text of others, in which everything that is markup is an entity."""
    return re.sub(r">[^<]*<", "><", page)


def test_a_browser_runs_nothing_that_a_task_is_called(tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here")
    # both pages in one document each would need a server: the graph has every name
    path = tmp_path / "graph.html"
    path.write_text(PAGES["graph"], "utf-8")

    dom = subprocess.run(
        [
            chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", path.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip

    title = re.search(r"<title>(.*?)</title>", dom)
    assert title is not None
    assert html.unescape(title[1]) == HOSTILE[0]
    assert "<script" not in dom
    assert "<img" not in dom


# --- Mermaid and Graphviz -----------------------------------------------------------------------

LABEL = re.compile(r"(?:[^\W_]|[ .,/()+=_-]|[^\x00-\x7f]|#\d+;)*")
"""Letters, harmless signs, and entities of Mermaid."""


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_mermaid_reads_a_name_as_text(name: str) -> None:
    label = mermaid.escaped(name)

    assert LABEL.fullmatch(label)
    assert "\n" not in label
    assert "__" not in label
    decoded = re.sub(r"#(\d+);", lambda found: chr(int(found[1])), label)
    assert decoded == (words.fitted(name, mermaid.LONGEST) or " ")


def test_a_mermaid_graph_has_a_line_for_each_node_and_each_edge() -> None:
    drawn = graph_mermaid(EVIL_GRAPH).splitlines()

    assert drawn[0] == "flowchart LR"
    assert sum(
        bool(re.fullmatch(r'    n\d+\["[✗◐] [^"]*"\]:::(failed|running)', one)) for one in drawn
    ) == len(HOSTILE)
    assert sum(bool(re.fullmatch(r"    n\d+ --> n\d+", one)) for one in drawn) == len(HOSTILE) - 1
    assert len(drawn) == 2 * len(HOSTILE) + 3  # the heading, what is cut, two classes


def test_a_mermaid_timeline_begins_no_line_with_a_name() -> None:
    for line in timeline_mermaid(EVIL_LINE).splitlines()[4:]:
        assert re.fullmatch(r"    (section .+|[●◐○✗◌?] [^:;]*(?:#\d+;[^:;]*)* : (\w+, )?\d+, \d+)", line), (
            line
        )


def test_a_quoted_string_of_graphviz_ends_where_it_should() -> None:
    for drawn in (graph_dot(EVIL_GRAPH), timeline_dot(EVIL_LINE)):
        outside = re.sub(r'"(?:[^"\\\n]|\\.)*"', '""', drawn)
        assert '"' not in outside.replace('""', "")
        assert re.fullmatch(r'[\w\s{}\[\];=,.>"-]*', outside)


@pytest.mark.parametrize("form", ["graph", "timeline"])
def test_graphviz_reads_it(form: str) -> None:
    dot = shutil.which("dot")
    if dot is None:
        pytest.skip("no Graphviz here")
    source = graph_dot(EVIL_GRAPH) if form == "graph" else timeline_dot(EVIL_LINE)

    done = subprocess.run(
        [dot, "-Tsvg"], input=source, capture_output=True, text=True, timeout=60, check=True
    )

    shown = "".join(ET.fromstring(done.stdout).itertext())
    assert done.stderr == ""
    if form == "graph":
        for name in HOSTILE:
            if cell_len(name) < 50 and name.strip():
                assert words.plain(name).replace(" ", "\xa0") in shown.replace(" ", "\xa0"), name


# --- documents ----------------------------------------------------------------------------------


def test_a_picture_is_drawn_from_json_as_from_the_view() -> None:
    from agentorch_cli.views import BarView, GraphEdgeView, GraphNodeView, GraphView, TimelineView

    graph = GraphView(
        task_id="a",
        nodes=[GraphNodeView(task_id="a", type="t", status="running", agents=["x"], note="half")],
        edges=[GraphEdgeView(before="a", after="b", kind="sub_task")],
        cut=2,
    )
    line = TimelineView(
        task_id="a",
        start=START,
        end=START + timedelta(seconds=1),
        critical=["a"],
        bars=[BarView(task_id="a", task_status="running", start=START, end=START, status="sent", attempt=1)],
    )

    assert Graph.of(graph.model_dump()) == Graph.of(graph.model_dump(mode="json"))
    assert Graph.of(graph.model_dump()).nodes == (GraphNode("a", "a", "running", ("x",), "half", "t"),)
    assert Timeline.of(line.model_dump()) == Timeline.of(json.loads(line.model_dump_json()))


@pytest.mark.parametrize(
    ("seconds", "most", "expected"),
    [
        (12, 6, ["0s", "2s", "4s", "6s", "8s", "10s", "12s"]),
        (0.8, 4, ["0s", "200ms", "400ms", "600ms", "800ms"]),
        (2.5, 5, ["0s", "0.5s", "1.0s", "1.5s", "2.0s", "2.5s"]),
        (400, 4, ["0s", "2m", "4m", "6m"]),
        (90_000, 3, ["0s", "12h", "1d"]),
        (3_000_000, 3, ["0s", "16d", "32d"]),
        (0, 5, ["0s"]),
    ],
)
def test_an_axis_has_marks_that_people_read(seconds: float, most: int, expected: list[str]) -> None:
    found = [mark for _, mark in words.marks(seconds, most)]

    assert [re.sub(r"(?<=^)500ms$", "0.5s", one) for one in found] == expected


@settings(max_examples=25)
@given(st.text(max_size=60), st.integers(1, 40))
def test_a_text_fits_into_its_columns(text: str, most: int) -> None:
    shown = words.fitted(text, most)

    assert words.cells(shown) <= most
    assert not HIDDEN.search(shown)


def test_of_many_agents_as_many_are_named_as_fit() -> None:
    names = ["checker-1", "checker-2", "checker-3"]

    assert words.few(names, 40) == "checker-1, checker-2, checker-3"
    assert words.few(names, 24) == "checker-1, checker-2 +1"
    assert words.few(names, 14) == "checker-1 +2"
    assert words.few(names, 8) == "check…+2"
