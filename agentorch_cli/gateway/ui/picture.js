// Graphs and timelines: the server says which shapes there are, the page makes them one by one.

import { quiet } from "./parts.js";
import { h } from "./tree.js";

const SHAPES = new Set(["svg", "g", "path", "rect", "circle", "line", "text", "title"]);

/** A picture that can be scrolled in its frame; the tasks in it are links, the one that is `here` stands out. */
export function picture(tree, name, here) {
  if (!tree) return quiet("It cannot be drawn here.");
  return h("div", { class: "picture", tabindex: "0", role: "region", "aria-label": name }, shape(tree, here));
}

function shape(item, here) {
  if (typeof item === "string") return item;
  const [tag, attributes, children] = item;
  if (!SHAPES.has(tag)) return null;
  const drawn = h(
    tag,
    attributes,
    children.map((child) => shape(child, here)),
  );
  const task = attributes["data-task"];
  if (task === undefined) return drawn;
  return h(
    "a",
    { href: `#/task/${encodeURIComponent(task)}`, "aria-current": task === here ? "true" : null },
    drawn,
  );
}
