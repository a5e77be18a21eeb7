"""Pictures for the web page: what `pictures` draws, as a tree that the page builds itself.

The page reads no text as markup, not even ours, so it gets elements by name: `[tag, attributes,
children]`. Drawing takes a while for large graphs and happens beside the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from xml.etree.ElementTree import Element, fromstring

from agentorch_cli.pictures.model import Graph, Timeline
from agentorch_cli.pictures.svg import graph_svg, timeline_svg

MOST_DRAWN: Final = 400
"""Tasks of one picture; a page is looked at, and of more than this nobody sees anything."""

Tree = list[Any]


def drawn(method: str, document: Mapping[str, Any]) -> Tree:
    """The picture of an answer; what stands for a task says so as `data-task`."""
    return PICTURES[method](document)


def _graph(document: Mapping[str, Any]) -> Tree:
    graph = Graph.of(document)
    root = fromstring(graph_svg(graph, with_style=False))  # noqa: S314  what we drew ourselves
    nodes = [one for one in _groups(root) if one.get("class", "").startswith("node ")]
    _name(nodes, [node.task_id for node in graph.nodes])
    return _tree(root)


def _timeline(document: Mapping[str, Any]) -> Tree:
    timeline = Timeline.of(document)
    root = fromstring(timeline_svg(timeline, with_style=False))  # noqa: S314
    heads = [one for one in _groups(root) if not one.attrib]
    _name(heads, [lanes[0][0].task_id for lanes in timeline.rows()])
    return _tree(root)


PICTURES: Final[Mapping[str, Callable[[Mapping[str, Any]], Tree]]] = {
    "task.graph": _graph,
    "task.timeline": _timeline,
}
"""By the operation whose answer is drawn."""


def _groups(root: Element) -> list[Element]:
    return [one for one in root.iter() if one.tag.endswith("}g")]


def _name(elements: Sequence[Element], task_ids: Sequence[str]) -> None:
    """They are drawn in the order of the document."""
    if len(elements) == len(task_ids):
        for element, task_id in zip(elements, task_ids, strict=True):
            element.set("data-task", task_id)


def _tree(element: Element) -> Tree:
    children: list[Tree | str] = [_tree(child) for child in element]
    if element.text and element.text.strip():
        children.insert(0, element.text)
    return [element.tag.rpartition("}")[2], element.attrib, children]
