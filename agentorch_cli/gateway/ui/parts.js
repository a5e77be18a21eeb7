// What several views are made of: sections, tables, facts, links, a small chart.

import { json, line, nothing, number, state } from "./look.js";
import { h } from "./tree.js";

const MOST_ROWS = 200; // of one table: more are not read, and cost time to draw

export function link(kind, id, shown, attributes = {}) {
  return h("a", { href: `#/${kind}/${encodeURIComponent(id)}`, dir: "auto", ...attributes }, shown);
}

export const taskLink = (id, shown) => link("task", id, shown ?? line(id));

// ids that the engine makes; one that a person chose is a name already
const MADE = /\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b/g;

/** A sentence with the names of tasks in place of their ids. */
export function named(sentence, called) {
  return line(sentence).replace(MADE, (id) => (called?.[id] ? line(called[id]) : id));
}

/** Tasks side by side, each a link with its name. */
export function taskLinks(ids, called, most = 20) {
  const links = ids.slice(0, most).map((id, index) => [index ? ", " : null, taskLink(id, named(id, called))]);
  return [links, ids.length > most ? ` and ${ids.length - most} more` : null];
}

export const agentLink = (id) => link("agent", id, line(id));

/** Names side by side, each a link. */
export function agents(ids, most = 6) {
  if (!ids.length) return nothing();
  const links = ids.slice(0, most).map((id, index) => [index ? ", " : null, agentLink(id)]);
  return [links, ids.length > most ? ` and ${ids.length - most} more` : null];
}

export function names(values, most = 8) {
  if (!values.length) return nothing();
  return values.slice(0, most).map(line).join(", ") + (values.length > most ? ", …" : "");
}

export function section(title, count, ...content) {
  const id = `part-${title.toLowerCase().replaceAll(" ", "-")}`;
  return h(
    "section",
    { key: title, "aria-labelledby": id },
    h("h2", { id }, title, count === null ? null : h("span", { class: "count" }, ` ${count}`)),
    content,
  );
}

export function quiet(sentence) {
  return h("p", { class: "quiet" }, sentence);
}

/** Rows with named columns; on a narrow screen each row becomes a card that says the names itself.
 *
 * A column is {name, cell(row), is: "number" | "wide" | "id" | "brief" | "rare", has(row)}; the first one names the
 * row, and one that no row has is left out. */
export function table(every, rows, keyOf, empty) {
  if (!rows.length) return quiet(empty);
  const columns = every.filter((one) => !one.has || rows.some(one.has));
  const left = rows.length - MOST_ROWS;
  return [
    h(
      "table",
      { role: "table", class: columns.some((one) => /wide/.test(one.is)) ? "full" : "" },
      h(
        "thead",
        { role: "rowgroup" },
        h(
          "tr",
          { role: "row" },
          columns.map((one) =>
            h("th", { scope: "col", role: "columnheader", class: one.is || "" }, one.name),
          ),
        ),
      ),
      h(
        "tbody",
        { role: "rowgroup" },
        rows.slice(0, MOST_ROWS).map((row) =>
          h(
            "tr",
            { key: keyOf(row), role: "row" },
            columns.map((one, index) =>
              index
                ? h(
                    "td",
                    { role: "cell", class: one.is || "", "data-name": one.name },
                    h("div", {}, one.cell(row)),
                  )
                : h("th", { scope: "row", role: "rowheader", class: one.is || "" }, one.cell(row)),
            ),
          ),
        ),
      ),
    ),
    left > 0 ? quiet(`… and ${number(left)} more; narrow them down with a filter.`) : null,
  ];
}

/** Names and values, without those that are not there. */
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h(
    "dl",
    { class: "facts" },
    known.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
  );
}

/** A JSON value over several lines. */
export function block(value) {
  return h("pre", { tabindex: "0" }, typeof value === "string" ? value : JSON.stringify(value, null, 2));
}

export function title(status, name, id) {
  return h(
    "header",
    { class: "title" },
    h("h1", { dir: "auto" }, name),
    h("p", {}, status ? state(status) : null, id ? h("code", { class: "id" }, line(id)) : null),
  );
}

/** One of several words, as a row of buttons that are links. */
export function choice(name, chosen, options) {
  return h(
    "nav",
    { class: "choice", "aria-label": name },
    options.map(([shown, href, key]) =>
      h("a", { href, key, "aria-current": key === chosen ? "true" : null }, shown),
    ),
  );
}

/** A field that changes the address, so that what is shown can be linked. */
export function field(name, value, changed, placeholder) {
  return h(
    "label",
    { class: "field", key: name },
    h("span", {}, name),
    h("input", {
      type: "search",
      value,
      placeholder,
      name,
      autocomplete: "off",
      spellcheck: "false",
      on: {
        change: (event) => changed(event.target.value.trim()),
        search: (event) => changed(event.target.value.trim()),
      },
    }),
  );
}

const WIDTH = 600;
const HEIGHT = 72;

/** Two rates over time: what came as a line, what ended as an area. `flow`: step -> [came, ended]. */
export function rates(flow, steps, told) {
  const known = [...flow].sort(([one], [other]) => one - other);
  const most = Math.max(1, ...known.map(([, both]) => Math.max(...both)));
  const x = (step) => (WIDTH * (1 - (told.step - step) / (steps - 1))).toFixed(1);
  const y = (rate) => (HEIGHT - 1 - (rate / most) * (HEIGHT - 6)).toFixed(1);
  const points = (which) => known.map(([step, both]) => `${x(step)},${y(both[which])}`).join(" ");
  const area = known.length
    ? `M${x(known[0][0])},${HEIGHT} L${points(1)} L${x(known.at(-1)[0])},${HEIGHT} Z`
    : "";
  const [came, ended] = [told.in_per_second, told.out_per_second].map(perSecond);
  return h(
    "figure",
    { class: "rates" },
    h(
      "svg",
      {
        viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
        preserveAspectRatio: "none",
        role: "img",
        "aria-label": `${came} tasks in, ${ended} out`,
      },
      h("line", { class: "ground", x1: 0, x2: WIDTH, y1: HEIGHT - 0.5, y2: HEIGHT - 0.5 }),
      h("path", { class: "out", d: area }),
      h("polyline", { class: "in", points: points(0), fill: "none", "vector-effect": "non-scaling-stroke" }),
    ),
    h(
      "figcaption",
      {},
      h("span", { class: "in" }, h("span", { class: "key", "aria-hidden": "true" }), "in ", h("b", {}, came)),
      h(
        "span",
        { class: "out" },
        h("span", { class: "key", "aria-hidden": "true" }),
        "out ",
        h("b", {}, ended),
      ),
      h("span", { class: "dim" }, `${(steps * told.step_seconds) / 60} min, up to ${perSecond(most)}`),
    ),
  );
}

/** `12/s`, `1.4/s`; what is slower than one in two seconds by the minute. */
function perSecond(rate) {
  if (rate === 0) return "0/s";
  if (rate < 0.5) return rate >= 1 / 60 ? `${Math.round(rate * 60)}/min` : "<1/min";
  return rate < 10 ? `${rate.toFixed(1)}/s` : `${number(Math.round(rate))}/s`;
}

/** What a vote said; in its place what became of a voter that said nothing. */
export function ballot(vote) {
  const answer = vote.vote ?? vote.answer;
  if (answer !== undefined && answer !== null) return json(answer);
  return h("span", { class: "dim" }, vote.status === "answered" ? "has voted" : line(vote.status ?? ""));
}
