// Votes and deadlocks: how agents came to agree, and what could never have moved.

import { age, bar, json, line, nothing, number, percent, span, state } from "./look.js";
import {
  agentLink,
  agents,
  ballot,
  choice,
  facts,
  link,
  named,
  names,
  section,
  table,
  taskLink,
  taskLinks,
  title,
} from "./parts.js";
import { h } from "./tree.js";

const votesOf = (one) => `${one.votes_used} of ${one.electorate}`;

const DECISIONS = [
  { name: "Topic", is: "wide", cell: (one) => link("vote", one.decision_id, line(one.task_name || one.topic)) },
  { name: "Status", cell: (one) => state(one.status) },
  { name: "Rule", cell: (one) => line(one.rule) },
  { name: "Votes", is: "number", cell: votesOf },
  {
    name: "Saved",
    is: "number rare",
    cell: (one) => (one.votes_not_asked ? number(one.votes_not_asked) : nothing()),
  },
  { name: "Sure", is: "number", cell: (one) => percent(one.confidence) },
  { name: "Answer", is: "wide", cell: (one) => json(one.final_decision) },
  { name: "Age", is: "number", cell: (one) => age(one.created_at) },
];

export const votes = {
  name: "Votes",
  ask: ({ query }) => ({
    votes: ["consensus.list", { limit: 200, ...(query.status ? { status: query.status } : {}) }],
  }),
  draw: ({ votes }, { query }) => [
    h("h1", {}, "Votes"),
    choice("Status", query.status || "", [
      ["all", "#/votes", ""],
      ...["pending", "reached", "failed"].map((one) => [state(one), `#/votes?status=${one}`, one]),
    ]),
    table(DECISIONS, votes, (one) => one.decision_id, "There are no such votes."),
  ],
};

export const vote = {
  name: "Vote",
  ask: ({ id }) => ({ vote: ["consensus.get", { decision_id: id }] }),
  draw: ({ vote }) => [
    title(vote.status, line(vote.task_name || vote.topic), vote.decision_id),
    facts([
      ["task", vote.task_id ? taskLink(vote.task_id, line(vote.task_name || vote.task_id)) : null],
      ...voteFacts(vote),
    ]),
    ballots(vote),
  ],
};

export function voteFacts(vote) {
  const saved =
    vote.votes_not_asked && vote.electorate
      ? `, ${vote.votes_not_asked} not asked: ${percent(vote.votes_not_asked / vote.electorate)} saved`
      : "";
  const known = vote.verified === null ? null : vote.verified ? "known to be right" : "known to be wrong";
  return [
    ["question", vote.question !== null ? json(vote.question) : null],
    ["rule", line(vote.rule) + (vote.needed ? `, ${vote.needed} equal votes decide` : "")],
    ["votes", votesOf(vote) + saved],
    ["outlook", outlook(vote)],
    ["answer", vote.final_decision !== null ? json(vote.final_decision) : null],
    [
      "sure",
      vote.confidence !== null
        ? [
            percent(vote.confidence),
            vote.confidence_basis ? h("span", { class: "dim" }, ` (${line(vote.confidence_basis)})`) : null,
          ]
        : null,
    ],
    ["decided by", vote.decided_by ? line(vote.decided_by) : null],
    ["dissent", vote.dissent.length ? agents(vote.dissent.map((one) => one.agent_id)) : null],
    ["truth", known],
    ["lost", vote.lost_agents.length ? names(vote.lost_agents) : null],
    ["open until", vote.deadline && !vote.decided_at ? age(vote.deadline) : null],
    ["closed by", vote.closed_by ? line(vote.closed_by) : null],
  ];
}

/** What an open vote still wants; what was said is sealed, so who leads is not known. */
function outlook(vote) {
  if (vote.status !== "pending") return null;
  const open = vote.electorate - vote.votes.length;
  const toCome = vote.votes.filter((one) => one.status === "asked").length + Math.max(open, 0);
  return toCome ? `open: ${toCome} ${toCome === 1 ? "vote" : "votes"} to come at most` : "open";
}

const BALLOTS = [
  { name: "Agent", cell: (one) => agentLink(one.agent_id ?? one.agent) },
  { name: "Vote", is: "wide", cell: ballot },
  { name: "", cell: (one) => (one.dissents ? h("span", { class: "yellow" }, "dissents") : null) },
  { name: "Weight", is: "number", cell: (one) => number(one.weight, 2) },
  { name: "Sure", is: "number", cell: (one) => percent(one.confidence) },
];

export function ballots(vote) {
  const total = Object.values(vote.counts).reduce((sum, one) => sum + one, 0) || 1;
  const dissent = new Set(vote.dissent.map((one) => one.agent_id));
  const rows = vote.votes.map((one) => ({ ...one, dissents: dissent.has(one.agent_id) }));
  return [
    Object.keys(vote.counts).length
      ? section(
          "Answers",
          null,
          facts(
            Object.entries(vote.counts).map(([answer, count]) => [
              json(answer, 60),
              [bar(count / total, "share", true), ` ${count} of ${total}`],
            ]),
          ),
        )
      : null,
    rows.length
      ? section(
          vote.decided_at ? "Ballots" : "Ballots, sealed until the vote closes",
          rows.length,
          table(BALLOTS, rows, (one) => one.agent_id ?? one.agent, ""),
        )
      : null,
    vote.late_votes.length
      ? section(
          "Came late, not counted",
          null,
          facts(vote.late_votes.map((one) => [line(one.agent_id), json(one.answer)])),
        )
      : null,
    vote.escalation.length
      ? section("Without agreement", null, facts(vote.escalation.map((one) => [line(one.step), step(one)])))
      : null,
  ];
}

function step(one) {
  if (one.step === "voters") return `asked ${names(one.added || [])} as well`;
  if (one.step === "judge") return `called an agent with the capability ${line(one.capability)}`;
  if (one.step === "judged") return `${line(one.agent_id)} decided`;
  return "took the most popular answer";
}

export const DEADLOCKS = [
  { name: "Kind", cell: (one) => link("deadlock", one.deadlock_id, line(one.kind)) },
  {
    name: "Members",
    is: "wide",
    cell: (one) => taskLinks(one.members, one.names, 5),
  },
  { name: "Waited", is: "number", cell: (one) => span(one.waited_s) },
  {
    name: "Resolution",
    is: "wide",
    cell: (one) =>
      one.resolved_at ? line(one.resolution || "dissolved") : h("span", { class: "red" }, "open"),
  },
  { name: "By", cell: (one) => (one.resolved_by ? line(one.resolved_by) : nothing()) },
  { name: "Found", is: "number", cell: (one) => age(one.detected_at) },
];

export const deadlocks = {
  name: "Deadlocks",
  ask: ({ query }) => ({ deadlocks: ["deadlock.list", { limit: 200, only_open: query.status === "open" }] }),
  draw: ({ deadlocks }, { query }) => [
    h("h1", {}, "Deadlocks"),
    choice("Status", query.status || "", [
      ["all", "#/deadlocks", ""],
      ["open", "#/deadlocks?status=open", "open"],
    ]),
    table(
      DEADLOCKS,
      deadlocks,
      (one) => one.deadlock_id,
      query.status ? "Nothing is stuck." : "There has been no deadlock.",
    ),
  ],
};

export const deadlock = {
  name: "Deadlock",
  ask: ({ id }) => ({ deadlock: ["deadlock.get", { deadlock_id: id }] }),
  draw: ({ deadlock }) => [
    title(null, line(deadlock.kind), deadlock.deadlock_id),
    facts([
      ["state", state(deadlock.resolved_at ? "resolved" : "open")],
      ["why", named(deadlock.reason, deadlock.names)],
      ["waited", span(deadlock.waited_s)],
      [
        "victims",
        deadlock.victims.length ? taskLinks(deadlock.victims, deadlock.names, 200) : null,
      ],
      ["resolution", deadlock.resolution ? line(deadlock.resolution) : null],
      ["by", deadlock.resolved_by ? line(deadlock.resolved_by) : null],
      ["found", age(deadlock.detected_at)],
      ["resolved", deadlock.resolved_at ? age(deadlock.resolved_at) : null],
    ]),
    section(
      "Members",
      deadlock.members.length,
      h(
        "ol",
        { class: "members" },
        deadlock.members
          .slice(0, 200)
          .map((id) => h("li", { key: id }, taskLink(id, named(id, deadlock.names)))),
      ),
    ),
    deadlock.edges.length
      ? section(
          "Who waits for whom",
          null,
          h(
            "ol",
            { class: "members" },
            deadlock.edges.slice(0, 50).map((one) => h("li", {}, named(one.reason, deadlock.names))),
          ),
        )
      : null,
  ],
};
