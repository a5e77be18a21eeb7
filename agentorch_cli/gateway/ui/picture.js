// Graphs and timelines: the server says which shapes there are, the page makes them one by one.

import { quiet } from "./parts.js";
import { h } from "./tree.js";

const SHAPES = new Set(["svg", "g", "path", "rect", "circle", "line", "text", "title"]);

/** A picture that can be scrolled in its frame; the tasks in it are links. */
export function picture(tree, name) {
  if (!tree) return quiet("It cannot be drawn here.");
  return h("div", { class: "picture", tabindex: "0", role: "region", "aria-label": name }, shape(tree));
}

function shape(item) {
  if (typeof item === "string") return item;
  const [tag, attributes, children] = item;
  if (!SHAPES.has(tag)) return null;
  const drawn = h(tag, attributes, children.map(shape));
  const task = attributes["data-task"];
  return task === undefined ? drawn : h("a", { href: `#/task/${encodeURIComponent(task)}` }, drawn);
}
