// The fleet on one page: alarms, the queue, agents, what runs, what ended, votes, budgets.

import {
  age,
  amounts,
  bar,
  count,
  label,
  line,
  milliseconds,
  money,
  nothing,
  now,
  number,
  outcome,
  percent,
  sign,
  span,
  state,
  took,
} from "./look.js";
import {
  agentLink,
  agents,
  block,
  facts,
  field,
  link,
  names,
  quiet,
  rates,
  section,
  table,
  taskLink,
  title,
} from "./parts.js";
import { h } from "./tree.js";
import { DEADLOCKS } from "./votes.js";

export const TASK_ORDER = ["running", "pending", "blocked", "completed", "failed", "cancelled", "skipped"];
const AGENT_ORDER = ["online", "draining", "paused", "offline"];
const ENDED = new Set(["completed", "failed", "cancelled", "skipped"]);
const MOST_RECENT = 12;
const WINDOW = 60; // steps of the chart, of two seconds

const flow = new Map(); // step -> tasks a second that came and that ended, for as long as the page is open

/** What each look tells of the last minute, put together. */
function remember({ flow: told }) {
  const first = told.step - told.came.length + 1;
  told.came.forEach((came, index) => {
    const ended = told.ended[index];
    if (came !== null && ended !== null)
      flow.set(first + index, [came / told.step_seconds, ended / told.step_seconds]);
  });
  if (told.seconds < 2 * told.step_seconds) flow.set(told.step, [told.in_per_second, told.out_per_second]);
  for (const step of flow.keys()) if (step <= told.step - WINDOW) flow.delete(step);
}

export const fleet = {
  name: "Fleet",
  ask: () => ({ status: ["status.get", { limit: 20 }] }),
  rest: 3000, // loads and progress are no events
  take: ({ status }) => remember(status),
  draw: ({ status }, { query, go }) => [
    alarms(status.alarms),
    h("h1", { class: "hidden" }, "Fleet"),
    h("div", { class: "head" }, queue(status), rates(flow, WINDOW, status.flow)),
    facts([
      ["Engine", engine(status)],
      [
        "Agents",
        standing(status.agent_counts, AGENT_ORDER) || h("span", { class: "dim" }, "none yet"),
      ],
      ["Oldest wait", status.oldest_pending_seconds ? span(status.oldest_pending_seconds) : null],
      ["Spent", spend(status.spend)],
    ]),
    section(
      "Agents",
      status.agents.length,
      agentFilter(status, query, go),
      table(
        AGENTS,
        chosen(status.agents, query.agent).map((one) => ({ ...one, tasks: named(one, status.running) })),
        (one) => one.agent_id,
        "No agents yet: agentorch agent run connects one.",
      ),
    ),
    h(
      "div",
      { class: "pair" },
      section(
        "Running",
        status.running.length,
        table(RUNNING, status.running, (one) => one.task_id, "Nothing runs."),
      ),
      section(
        "Recent",
        null,
        table(
          RECENT,
          status.recent.slice(0, Math.max(MOST_RECENT, status.running.length)),
          (one) => one.task_id,
          "Nothing has ended yet.",
        ),
      ),
    ),
    status.deadlocks.length
      ? section(
          "Deadlocks",
          status.deadlocks.length,
          table(DEADLOCKS, status.deadlocks, (one) => one.deadlock_id, ""),
        )
      : null,
    h(
      "div",
      { class: "pair" },
      status.decisions.length
        ? section(
            "Votes",
            status.decisions.length,
            table(VOTES, status.decisions, (one) => one.decision_id, ""),
          )
        : null,
      status.budgets.length
        ? section(
            "Budgets",
            status.budgets.length,
            table(BUDGETS, status.budgets, (one) => `${one.scope} ${one.key}`, ""),
          )
        : null,
    ),
  ],
};

function alarms(sentences) {
  if (!sentences.length) return null;
  return h(
    "ul",
    { class: "alarms", role: "alert", key: "alarms" },
    sentences.map((one) => h("li", {}, h("b", { "aria-hidden": "true" }, "!"), " ", line(one))),
  );
}

function queue(status) {
  return h(
    "ul",
    { class: "queue", "aria-label": "Tasks by state" },
    TASK_ORDER.map((one) =>
      h(
        "li",
        { class: status.task_counts[one] ? "" : "none", key: one },
        h("a", { href: `#/tasks?status=${one}` }, h("b", {}, counted(status, one)), state(one)),
      ),
    ),
  );
}

/** Of very many tasks those that ended are estimated, and are told so. */
function counted(status, name) {
  const found = status.task_counts[name] || 0;
  return (status.counts_estimated && ENDED.has(name) && found ? "≈ " : "") + number(found);
}

function engine(status) {
  const nodes = status.nodes.filter((one) => one.is_live);
  if (!nodes.length) return h("span", { class: "yellow" }, "not running");
  return [
    sign("online"),
    " ",
    nodes.map((one) => line(one.port ? `${one.host}:${one.port}` : one.host)).join(", "),
  ];
}

function standing(found, order) {
  const states = [...order, ...Object.keys(found).filter((one) => !order.includes(one))];
  return states
    .filter((one) => found[one])
    .map((one) => h("span", { class: "counted" }, sign(one), ` ${number(found[one])} ${one}`));
}

function spend(found) {
  const total = amounts(found.total_usd, found.total_tokens);
  if (!total && !found.total_unknown_attempts) return null;
  const today =
    amounts(found.today_usd, found.today_tokens) ||
    (found.today_unknown_attempts ? "unknown" : "nothing told");
  const unknown = found.total_unknown_attempts;
  const silent = `${number(unknown)} ${unknown === 1 ? "attempt" : "attempts"} did not say`;
  return [
    total ? `${today} today, ${total} in all` : null,
    unknown ? h("span", { class: "yellow" }, (total ? "; " : "") + silent) : null,
  ];
}

function agentFilter(status, query, go) {
  if (status.agents.length <= 12 && !query.agent) return null;
  return h(
    "div",
    { class: "filter" },
    field("Filter", query.agent || "", (agent) => go({ agent }), "id, type, capability or status"),
  );
}

function chosen(found, word) {
  if (!word) return found;
  const wanted = word.toLowerCase();
  return found.filter((one) =>
    [one.agent_id, one.type, one.status, ...one.capabilities].some((text) =>
      text.toLowerCase().includes(wanted),
    ),
  );
}

/** What an agent is doing: the tasks that it holds, by name where it is known. */
function named(agent, running) {
  const known = new Map(running.map((one) => [one.task_id, label(one)]));
  return agent.working_on.map((id) => [id, known.get(id) ?? line(agent.names[id] ?? id)]);
}

function doing(agent) {
  if (agent.tasks.length) {
    const links = agent.tasks
      .slice(0, 3)
      .map(([id, name], index) => [index ? ", " : null, taskLink(id, name)]);
    return [links, agent.tasks.length > 3 ? ` and ${agent.tasks.length - 3} more` : null];
  }
  return aside(agent) || nothing();
}

/** Why an agent gets nothing, and until when. */
function aside(agent) {
  if (agent.status === "paused" || agent.status === "draining") {
    const until = agent.status_until ? `for ${left(agent.status_until)} more` : "";
    const words = [until, agent.status_reason ? line(agent.status_reason) : ""].filter(Boolean);
    return words.join(": ");
  }
  if (!agent.excluded_until) return "";
  const isOut = Date.parse(agent.excluded_until) > now();
  return [
    h(
      "span",
      { class: "yellow" },
      isOut ? `excluded for ${left(agent.excluded_until)} more` : "probed since ",
      isOut ? null : age(agent.excluded_until),
    ),
    agent.excluded_reason ? `: ${line(agent.excluded_reason)}` : null,
  ];
}

function left(when) {
  return count((Date.parse(when) - now()) / 1000);
}

const slots = (one) => `${one.busy}/${one.slots}` + (one.queued ? ` +${one.queued}` : "");

const AGENTS = [
  { name: "Agent", cell: (one) => agentLink(one.agent_id) },
  { name: "Status", cell: (one) => state(one.status) },
  { name: "Load", cell: (one) => bar(one.load, "load") },
  { name: "Slots", is: "number", cell: slots },
  { name: "Score", is: "number", cell: (one) => number(one.performance_score) },
  { name: "Success", is: "number rare", cell: (one) => percent(one.success_rate) },
  { name: "P50", is: "number rare", cell: (one) => milliseconds(one.latency_p50_ms) },
  { name: "Done", is: "number rare", cell: (one) => number(one.completed) },
  { name: "Failed", is: "number rare", cell: (one) => number(one.failed) },
  { name: "Doing", is: "wide", cell: doing },
  { name: "Seen", is: "number", cell: (one) => age(one.last_heartbeat) },
];

const RUNNING = [
  { name: "Name", is: "wide", cell: (one) => taskLink(one.task_id, label(one)) },
  { name: "Agents", is: "wide", cell: (one) => agents(one.assigned_agents, 3) },
  { name: "Progress", cell: (one) => bar(one.progress, "progress", true) },
  {
    name: "Note",
    is: "wide",
    has: (one) => one.note,
    cell: (one) => h("span", { class: "dim" }, line(one.note)),
  },
  { name: "For", is: "number", cell: (one) => took(one.started_at) },
];

const RECENT = [
  { name: "Name", is: "wide", cell: (one) => taskLink(one.task_id, label(one)) },
  { name: "Status", cell: (one) => state(one.status) },
  { name: "Took", is: "number", cell: (one) => took(one.started_at, one.completed_at) },
  { name: "Outcome", is: "wide", cell: outcome },
];

const VOTES = [
  { name: "Topic", is: "wide", cell: (one) => link("vote", one.decision_id, line(one.task_name || one.topic)) },
  { name: "Status", cell: (one) => state(one.status) },
  { name: "Votes", is: "number", cell: (one) => `${one.votes_used} of ${one.electorate}` },
  { name: "Sure", is: "number", cell: (one) => percent(one.confidence) },
];

function share(one) {
  const parts = [];
  if (one.cost_usd) parts.push(((one.spent_usd || 0) + (one.reserved_usd || 0)) / one.cost_usd);
  if (one.tokens) parts.push(((one.spent_tokens || 0) + (one.reserved_tokens || 0)) / one.tokens);
  return Math.max(0, ...parts);
}

function budgetLeft(one) {
  const parts = [];
  if (one.left_usd !== null)
    parts.push(one.left_usd >= 0 ? money(one.left_usd) : `overspent by ${money(-one.left_usd)}`);
  if (one.left_tokens !== null) {
    const tokens = `${number(Math.abs(one.left_tokens))} tokens`;
    parts.push(one.left_tokens >= 0 ? tokens : `overspent by ${tokens}`);
  }
  return h("span", { class: one.left_usd < 0 || one.left_tokens < 0 ? "red" : "" }, parts.join(", "));
}

export const BUDGETS = [
  { name: "Budget", cell: (one) => line(one.key) },
  { name: "Of", cell: (one) => one.scope },
  { name: "Limit", is: "number", cell: (one) => amounts(one.cost_usd, one.tokens) },
  { name: "Spent", is: "number", cell: (one) => amounts(one.spent_usd, one.spent_tokens) || nothing() },
  { name: "Left", is: "number", cell: budgetLeft },
  { name: "Used", cell: (one) => bar(share(one), "used") },
  { name: "Waiting", is: "number", cell: (one) => (one.waiting ? number(one.waiting) : nothing()) },
];

export const budgets = {
  name: "Budgets",
  ask: () => ({ budgets: ["budget.list", { limit: 200 }], status: ["status.get", { limit: 1 }] }),
  draw: ({ budgets, status }) => [
    h("h1", {}, "Budgets"),
    spend(status.spend) ? facts([["Spent", spend(status.spend)]]) : null,
    table(
      BUDGETS,
      budgets,
      (one) => `${one.scope} ${one.key}`,
      "There are no budgets: agentorch budget set makes one.",
    ),
  ],
};

const LEDGER = [
  { name: "Skill", cell: (one) => line(one.skill || "everything") },
  { name: "Type", cell: (one) => (one.task_type ? line(one.task_type) : nothing()) },
  { name: "Attempts", is: "number", cell: (one) => number(one.completed + one.failed + one.lost) },
  { name: "Success", is: "number", cell: (one) => percent(one.success_rate) },
  { name: "Right", is: "number", cell: (one) => percent(one.right) },
  { name: "P50", is: "number", cell: (one) => milliseconds(one.latency_p50_ms) },
  { name: "P95", is: "number", cell: (one) => milliseconds(one.latency_p95_ms) },
];

export const agent = {
  name: "Agent",
  ask: ({ id }) => ({
    agent: ["agent.get", { agent_id: id }],
    held: ["task.list", { agent: id, limit: 20 }],
  }),
  draw: ({ agent, held }) => [
    title(agent.status, line(agent.agent_id), null),
    facts([
      ["type", line(agent.type)],
      ["capabilities", names(agent.capabilities, 50)],
      ["set aside", aside(agent)],
      ["load", bar(agent.load, "load")],
      ["slots", slots(agent)],
      [
        "score",
        [
          number(agent.performance_score),
          h("span", { class: "dim" }, `, of the last hour ${number(agent.performance_hourly)}`),
        ],
      ],
      ["done", `${number(agent.completed)}, ${number(agent.failed)} failed`],
      ["pool", line(agent.pool)],
      ["seen", age(agent.last_heartbeat)],
      ["registered", age(agent.created_at)],
    ]),
    section(
      "Tasks",
      held.length,
      table(HELD, held, (one) => one.task_id, "It has had no tasks yet."),
    ),
    section(
      "Ledger",
      null,
      table(LEDGER, agent.ledger, (one) => `${one.skill} ${one.task_type}`, "Nothing is known of it yet."),
    ),
    Object.keys(agent.metadata).length ? section("Metadata", null, block(agent.metadata)) : null,
  ],
};

const HELD = [
  { name: "Name", is: "wide", cell: (one) => taskLink(one.task_id, label(one)) },
  { name: "Status", cell: (one) => state(one.status) },
  { name: "Took", is: "number", cell: (one) => took(one.started_at, one.completed_at) },
  { name: "Age", is: "number", cell: (one) => age(one.created_at) },
];
