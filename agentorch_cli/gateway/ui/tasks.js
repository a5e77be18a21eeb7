// Tasks: the list with its filter, and one task, told as `agentorch task show` tells it.

import {
  age,
  amounts,
  bar,
  clock,
  label,
  line,
  money,
  nothing,
  now,
  number,
  percent,
  reason,
  span,
  state,
  took,
  WORDS,
  json,
} from "./look.js";
import { TASK_ORDER } from "./fleet.js";
import {
  agentLink,
  agents,
  block,
  choice,
  facts,
  field,
  named,
  names,
  quiet,
  section,
  table,
  taskLink,
  taskLinks,
  title,
} from "./parts.js";
import { picture } from "./picture.js";
import { h } from "./tree.js";
import { ballots, voteFacts } from "./votes.js";

const MOST = 200;

const MOVES = {
  "balance": "loads were uneven",
  "idle": "somebody was idle",
  "waited": "it was busy for too long",
};

const TASKS = [
  { name: "Name", is: "wide", cell: (one) => taskLink(one.task_id, label(one)) },
  { name: "Status", cell: (one) => state(one.status) },
  { name: "Type", is: "rare", cell: (one) => line(one.type) },
  { name: "Agents", is: "wide", cell: (one) => agents(one.assigned_agents, 3) },
  {
    name: "Progress",
    is: "rare",
    cell: (one) => (one.completed_at || one.progress === null ? null : bar(one.progress, "progress", true)),
  },
  { name: "Prio", is: "number rare", cell: (one) => number(one.priority) },
  { name: "Tries", is: "number", cell: (one) => number(one.attempts_made) },
  { name: "Took", is: "number", cell: (one) => took(one.started_at, one.completed_at) },
  { name: "Age", is: "number", cell: (one) => age(one.created_at) },
];

export const tasks = {
  name: "Tasks",
  ask: ({ query }) => ({
    tasks: [
      "task.list",
      {
        limit: MOST,
        ...(query.status ? { status: [query.status] } : {}),
        ...(query.type ? { type: query.type } : {}),
        ...(query.agent ? { agent: query.agent } : {}),
      },
    ],
  }),
  draw: ({ tasks }, { query, go }) => {
    const word = (query.name || "").toLowerCase();
    const found = tasks.filter((one) =>
      `${one.name || ""} ${one.type} ${one.task_id}`.toLowerCase().includes(word),
    );
    const of = (status) => `#/tasks?${new URLSearchParams({ ...query, status })}`;
    return [
      h("h1", {}, "Tasks"),
      choice("Status", query.status || "", [
        ["all", of(""), ""],
        ...TASK_ORDER.map((one) => [state(one), of(one), one]),
      ]),
      h(
        "div",
        { class: "filter" },
        field("Name", query.name || "", (name) => go({ name }), "name, type or id"),
        field("Type", query.type || "", (type) => go({ type }), "exactly"),
        field("Agent", query.agent || "", (agent) => go({ agent }), "exactly"),
      ),
      table(TASKS, found, (one) => one.task_id, "There are no such tasks."),
      tasks.length === MOST ? quiet(`These are the newest ${MOST}.`) : null,
    ];
  },
};

const ATTEMPTS = [
  { name: "#", is: "number", cell: (one) => number(one.attempt) },
  { name: "Agent", cell: (one) => agentLink(one.agent_id) },
  { name: "Status", cell: (one) => state(one.status) },
  { name: "Took", is: "number", cell: (one) => took(one.sent_at, one.finished_at) },
  {
    name: "Role",
    is: "rare",
    has: (one) => one.role,
    cell: (one) => (one.role ? line(one.role) : nothing()),
  },
  {
    name: "Sure",
    is: "number",
    has: (one) => one.confidence !== null,
    cell: (one) => percent(one.confidence),
  },
  { name: "Used", is: "number rare", has: used, cell: (one) => used(one) || nothing() },
  { name: "What came of it", is: "wide", cell: brought },
];

function used(attempt) {
  const told = said(attempt.usage);
  if (told) return told;
  const soFar = said(attempt.usage_so_far);
  if (attempt.funding.some((one) => one.is_unknown)) return soFar ? `unknown, at least ${soFar}` : "unknown";
  if (!soFar) return "";
  return attempt.finished_at ? `at least ${soFar}` : `${soFar} so far`;
}

function said(usage) {
  const told = usage || {};
  const tokens = ["input_tokens", "output_tokens"]
    .map((key) => told[key])
    .filter((one) => one !== undefined && one !== null);
  return amounts(told.cost_usd, tokens.length ? tokens.reduce((sum, one) => sum + one, 0) : null);
}

function brought(attempt) {
  if (attempt.error) return h("span", { class: "red" }, json(reason(attempt.error)));
  if (attempt.result !== null) return json(attempt.result);
  const note = attempt.note ? line(attempt.note) : null;
  if (attempt.progress !== null && !attempt.finished_at)
    return [bar(attempt.progress, "progress", true), " ", note];
  return note ?? nothing();
}

const FINAL = new Set(["completed", "failed", "cancelled", "skipped"]);

export const task = {
  name: "Task",
  ask: ({ id }, before) => ({
    task: ["task.get", { task_id: id }],
    why: before?.task && FINAL.has(before.task.status) ? null : ["task.why", { task_id: id }],
    graph: ["picture", { of: "task.graph", task_id: id }],
    timeline: ["picture", { of: "task.timeline", task_id: id }],
  }),
  rest: 3000,
  draw: ({ task, why, graph, timeline }) => [
    title(task.status, label(task), task.task_id),
    facts(about(task)),
    task.error ? section("Why", null, h("pre", { class: "red", tabindex: "0" }, reason(task.error))) : null,
    why && !FINAL.has(task.status) ? section("Why it waits", null, reasons(why)) : null,
    task.result !== null ? section("Result", null, block(task.result)) : null,
    section("Graph", null, picture(graph, "Graph", task.task_id)),
    section("Timeline", null, picture(timeline, "Timeline", task.task_id)),
    task.attempts.length
      ? section(
          "Attempts",
          task.attempts.length,
          table(ATTEMPTS, task.attempts, (one) => one.message_id, ""),
        )
      : null,
    task.decision ? section("Vote", null, facts(voteFacts(task.decision)), ballots(task.decision)) : null,
    task.events.length ? section("Story", null, story(task)) : null,
    task.data !== null && JSON.stringify(task.data) !== "{}" ? section("Data", null, block(task.data)) : null,
  ],
};

function about(task) {
  return [
    ["type", line(task.type)],
    ["needs", task.required_capabilities.length ? names(task.required_capabilities, 30) : null],
    ["priority", task.priority !== 5 ? number(task.priority) : null],
    ["agents", task.assigned_agents.length ? agents(task.assigned_agents, 20) : null],
    [
      "after",
      task.depends_on.length ? taskLinks(task.depends_on, task.names) : null,
    ],
    ["waits for", task.waiting_on ? `${task.waiting_on} of ${task.depends_on.length} dependencies` : null],
    ["progress", task.progress !== null && !task.completed_at ? bar(task.progress, "progress", true) : null],
    ["submitted", age(task.created_at)],
    ["runs from", Date.parse(task.run_at) > now() && !task.started_at ? age(task.run_at) : null],
    ["deadline", task.deadline ? age(task.deadline) : null],
    ["took", task.started_at ? took(task.started_at, task.completed_at) : null],
    ["attempts", task.failures ? `${task.attempts_made}, ${task.failures} failed` : null],
    ["used", task.usage ? amounts(task.usage.cost_usd, task.usage.tokens) : null],
    ...task.budgets.map((one) => ["budget", charged(one)]),
    ["parent", task.parent_id ? taskLink(task.parent_id) : null],
    ["key", task.idempotency_key ? line(task.idempotency_key) : null],
    [
      "labels",
      Object.keys(task.labels).length
        ? names(Object.entries(task.labels).map(([key, value]) => `${key}=${value}`))
        : null,
    ],
  ];
}

function charged(one) {
  const name = one.scope === "task" ? "its own" : `${one.scope} ${line(one.key)}`;
  return `${name}: ${amounts(one.spent_usd, one.spent_tokens) || money(0)} of ${amounts(one.cost_usd, one.tokens)} spent`;
}

function reasons(why) {
  if (!why.links.length) return quiet("Nothing stands in its way.");
  return h(
    "ul",
    { class: "why" },
    why.links.map((one) =>
      h(
        "li",
        { style: { "--depth": String(one.depth) } },
        one.depth ? [taskLink(one.task_id, named(one.task_id, why.names)), " "] : null,
        named(one.sentence, why.names),
        one.seconds !== null ? h("span", { class: "dim" }, ` for ${span(one.seconds)}`) : null,
        Object.keys(one.agents).length
          ? h("ul", {}, obstacles(one.agents, why.names))
          : null,
      ),
    ),
  );
}

/** Agents with what stands in the way of each; many with the same reason together, the fewest on top. */
function obstacles(found, called) {
  const alike = new Map();
  for (const [id, text] of Object.entries(found)) {
    const reason = named(text || "could take it", called);
    alike.set(reason, [...(alike.get(reason) || []), id]);
  }
  return [...alike]
    .sort(([, some], [, others]) => some.length - others.length)
    .map(([reason, ids]) =>
      ids.length > MOST_ALIKE
        ? h("li", {}, h("span", { class: "dim" }, reason, ": "), agents(ids, MOST_ALIKE))
        : ids.map((id) => h("li", {}, agentLink(id), " ", h("span", { class: "dim" }, reason))),
    );
}

function story(task) {
  const start = Date.parse(task.created_at || task.events[0].at);
  return h(
    "ol",
    { class: "story" },
    task.events.map((one) =>
      h(
        "li",
        { key: one.cursor },
        h(
          "time",
          { datetime: one.at, title: one.at },
          `+${offset(Math.max((Date.parse(one.at) - start) / 1000, 0))}`,
        ),
        told(one),
      ),
    ),
  );
}

/** What happened, with whom, and the details. */
export function told(event) {
  const kind = event.kind.replace(/^task_/, "").replace(/^attempt_/, "");
  const words = WORDS[kind] ?? kind.replaceAll("_", " ");
  const said = event.agent_id === null ? words.replace(/ (by|at)$/, "") : words;
  const details = detailed(event);
  return h(
    "span",
    {},
    h("span", { class: colour(kind) }, said),
    event.agent_id === null ? null : [" ", agentLink(event.agent_id)],
    details ? h("span", { class: "dim" }, "  ", json(details)) : null,
  );
}

function colour(kind) {
  if (kind === "completed" || kind === "reached") return "green";
  return ["failed", "lost", "timed_out", "cancelled"].includes(kind) ? "red" : "";
}

function offset(seconds) {
  return seconds < 60 ? `${seconds.toFixed(3)}s` : span(seconds);
}

function detailed(event) {
  const data = event.data;
  if (event.kind.startsWith("budget_")) return booked(data);
  if (data.message) return String(data.message);
  if (event.kind === "consensus_opened" && data.voters)
    return `${data.rule}, voters: ${data.voters.join(", ")}`;
  if (event.kind === "ballot_cast") return data.status === "answered" ? "" : String(data.status);
  if (event.kind === "consensus_decided") {
    const by = String(data.decided_by);
    return `${data.status === "reached" ? "reached" : "not reached"}: ${ENDS[by] ?? by}`;
  }
  if (data.why in MOVES) return MOVES[data.why] + (data.to ? ` and given to ${data.to}` : "");
  return Object.entries(data)
    .filter(([, value]) => value !== null)
    .map(([key, value]) => `${key}: ${typeof value === "object" ? JSON.stringify(value) : value}`)
    .join(", ");
}

function booked(data) {
  const amount = amounts(data.cost_usd, data.tokens);
  const guess = data.is_unknown ? "unknown, at most " : "";
  const whose = data.scope === "task" ? "its own budget" : `${data.scope} ${data.key}`;
  return amount ? `${guess}${amount} on ${whose}` : whose;
}

const ENDS = {
  "threshold": "enough of them agree",
  "certain": "no ballot that is out could change it",
  "confidence": "it is sure enough",
  "exhausted": "everybody was heard",
  "impossible": "no answer could win any more",
  "too_few": "fewer voters are left than it needs",
  "plurality": "the most popular answer was taken",
  "deadline": "its time was over",
  "judge": "a judge decided",
  "person": "a person closed it",
};

const MOST_EVENTS = 200;
const MOST_ALIKE = 3; // agents that are named one by one where the same stands in the way of all

const EVENTS = [
  { name: "At", is: "brief", cell: (one) => h("time", { datetime: one.at, title: one.at }, clock(one.at)) },
  {
    name: "Kind",
    is: "brief",
    cell: (one) => h("span", { class: colour(one.kind.replace(/^task_/, "")) }, line(one.kind)),
  },
  { name: "Task", is: "id", cell: (one) => (one.task_id ? taskLink(one.task_id) : nothing()) },
  { name: "Agent", cell: (one) => (one.agent_id ? agentLink(one.agent_id) : nothing()) },
  { name: "Details", is: "wide", cell: (one) => (detailed(one) ? json(detailed(one)) : nothing()) },
];

export const events = {
  name: "Events",
  ask: ({ query }) => ({
    events: [
      "event.list",
      {
        newest: true,
        limit: MOST_EVENTS,
        ...(query.task ? { task_id: query.task } : {}),
        ...(query.agent ? { agent_id: query.agent } : {}),
        ...(query.kind ? { kinds: [query.kind] } : {}),
      },
    ],
  }),
  draw: ({ events }, { query, go }) => [
    h("h1", {}, "Events"),
    h(
      "div",
      { class: "filter" },
      field("Kind", query.kind || "", (kind) => go({ kind }), "such as task_failed"),
      field("Task", query.task || "", (task) => go({ task }), "its id"),
      field("Agent", query.agent || "", (agent) => go({ agent }), "its id"),
    ),
    table(EVENTS, events.toReversed(), (one) => one.cursor, "There are no such events."),
    events.length === MOST_EVENTS
      ? quiet(`These are the newest ${MOST_EVENTS}; agentorch event tail -f misses none.`)
      : null,
  ],
};
