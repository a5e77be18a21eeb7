"""Pictures for the web page: what `pictures` draws, as a tree that the page builds itself.

The page reads no text as markup, not even ours, so it gets elements by name: `[tag, attributes,
children]`. Drawing takes a while for large graphs and happens beside the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from xml.etree import ElementTree

from agentorch_cli.pictures.model import Graph, Timeline
from agentorch_cli.pictures.svg import graph_svg, timeline_svg

MOST_DRAWN: Final = 400
"""Tasks of one picture; a page is looked at, and of more than this nobody sees anything."""

Tree = list[Any]


def _graph(document: Mapping[str, Any]) -> str:
    return graph_svg(Graph.of(document), with_style=False)


def _timeline(document: Mapping[str, Any]) -> str:
    return timeline_svg(Timeline.of(document), with_style=False)


PICTURES: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "task.graph": _graph,
    "task.timeline": _timeline,
}
"""By the operation whose answer is drawn."""


def drawn(method: str, document: Mapping[str, Any]) -> Tree:
    """The picture of an answer."""
    return _tree(ElementTree.fromstring(PICTURES[method](document)))  # noqa: S314  what we drew ourselves


def _tree(element: ElementTree.Element) -> Tree:
    children: list[Tree | str] = [_tree(child) for child in element]
    if element.text and element.text.strip():
        children.insert(0, element.text)
    return [element.tag.rpartition("}")[2], element.attrib, children]
