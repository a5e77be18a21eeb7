// Signs, ages and amounts: how a value looks. The signs and words are those of the terminal.

import { h } from "./tree.js";

// state: sign, colour
export const SIGNS = {
  "blocked": ["◌", "dim"],
  "pending": ["○", "yellow"],
  "running": ["◐", "cyan"],
  "completed": ["●", "green"],
  "failed": ["✗", "red"],
  "cancelled": ["⊘", "magenta"],
  "skipped": ["↷", "dim"],
  "online": ["●", "green"],
  "offline": ["○", "dim"],
  "draining": ["◐", "yellow"],
  "paused": ["◌", "yellow"],
  "sent": ["○", "yellow"],
  "accepted": ["◐", "cyan"],
  "lost": ["?", "magenta"],
  "timed_out": ["✗", "magenta"],
  "reached": ["●", "green"],
  "open": ["✗", "red"],
  "resolved": ["●", "green"],
  "active": ["●", "green"],
  "failing": ["✗", "red"],
  "ended": ["○", "dim"],
  "planned": ["○", "plain"],
  "unknown": ["?", "magenta"],
  "starting": ["◌", "yellow"],
  "waiting": ["◌", "yellow"],
  "crashing": ["✗", "red"],
  "stopping": ["◐", "yellow"],
  "stopped": ["○", "dim"],
};

// kind of event: how the story says it; where an agent takes part, its name follows
export const WORDS = {
  "submitted": "submitted",
  "assigned": "given to",
  "accepted": "taken by",
  "completed": "completed by",
  "failed": "failed at",
  "requeued": "will be tried again after",
  "resumed": "goes on, after a reconnect, at",
  "resent": "given once more, after a reconnect, to",
  "lost": "lost with",
  "timed_out": "ran out of time at",
  "retried": "opened again",
  "moved": "taken back from",
  "straggler_backed_up": "given a backup, for it lasts long with",
  "skipped": "left out",
  "budget_reserved": "reserved for",
  "budget_settled": "paid for",
  "budget_returned": "given back by",
  "consensus_opened": "vote opened",
  "ballot_cast": "vote cast by",
  "consensus_decided": "vote closed",
};

let skew = 0; // ms that the server's clock is ahead of this one

/** Learn what time it is on the server. */
export function setClock(at) {
  skew = Date.parse(at) - Date.now();
}

export function now() {
  return Date.now() + skew;
}

export function sign(state) {
  const [mark, colour] = SIGNS[state] || ["·", "plain"];
  return h("span", { class: `sign ${colour}`, "aria-hidden": "true" }, mark);
}

/** A state with its sign, its word and its colour. */
export function state(name) {
  const colour = (SIGNS[name] || ["", "plain"])[1];
  return h("span", { class: `state ${colour}` }, sign(name), " ", name.replaceAll("_", " "));
}

/** A duration for people: `0.4s`, `12s`, `3m 20s`, `5h 2m`, `3d 4h`. */
export function span(seconds) {
  if (seconds < 0.001) return "0s";
  if (seconds < 1) return `${Math.round(seconds * 1000)}ms`;
  if (seconds < 10) return `${seconds.toFixed(1)}s`;
  for (const [size, unit, smaller, smallerUnit] of [
    [86400, "d", 3600, "h"],
    [3600, "h", 60, "m"],
    [60, "m", 1, "s"],
  ]) {
    if (seconds >= size) {
      const rest = Math.floor((seconds % size) / smaller);
      return `${Math.floor(seconds / size)}${unit}` + (rest ? ` ${rest}${smallerUnit}` : "");
    }
  }
  return `${Math.round(seconds)}s`;
}

/** The same in whole seconds, for what counts up or down. */
export function count(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  return whole < 60 ? `${whole}s` : span(whole);
}

/** How long ago, or `in` how long; the moment itself is in its title. */
export function age(when) {
  if (!when) return nothing();
  const seconds = (now() - Date.parse(when)) / 1000;
  const shown = count(Math.abs(seconds));
  return h(
    "time",
    { class: "dim", datetime: when, title: moment(when) },
    seconds >= -1 ? `${shown} ago` : `in ${shown}`,
  );
}

export function moment(when) {
  return new Date(when).toISOString();
}

/** The time of day here, for what is followed live. */
export function clock(when) {
  const at = new Date(when);
  return [at.getHours(), at.getMinutes(), at.getSeconds()].map((n) => String(n).padStart(2, "0")).join(":");
}

/** How long something took, or has taken so far. */
export function took(start, end) {
  if (!start) return nothing();
  return span(Math.max(((end ? Date.parse(end) : now()) - Date.parse(start)) / 1000, 0));
}

export function nothing() {
  return h("span", { class: "dim" }, "–");
}

export function number(value, digits = 0) {
  if (value === null || value === undefined) return nothing();
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export function percent(value) {
  return value === null || value === undefined ? nothing() : `${Math.round(value * 100)}%`;
}

export function milliseconds(value) {
  return value === null || value === undefined ? nothing() : span(value / 1000);
}

/** A share of 0..1 as a bar with its percentage. Work that is done is not alarming, a full load is. */
export function bar(share, what, isWork = false) {
  if (share === null || share === undefined) return nothing();
  const part = Math.min(Math.max(share, 0), 1);
  const colour = isWork ? "cyan" : part < 0.75 ? "green" : part < 1 ? "yellow" : "red";
  const shown = `${Math.round(share * 100)}%`;
  return h(
    "span",
    { class: "bar" },
    h(
      "span",
      {
        class: `track ${colour}`,
        role: isWork ? "progressbar" : "meter",
        "aria-label": what,
        "aria-valuemin": "0",
        "aria-valuemax": "100",
        "aria-valuenow": Math.round(part * 100),
      },
      h("span", { class: "fill", style: { width: `${(part * 100).toFixed(1)}%` } }),
    ),
    h("span", { class: "share" }, shown),
  );
}

/** A JSON value in one line: a text without its quotes. */
export function json(value, limit = 200) {
  if (value === null || value === undefined) return nothing();
  const text = (typeof value === "string" ? value : JSON.stringify(value)).slice(0, limit * 2);
  return line(text.length > limit ? `${text.slice(0, limit - 1)}…` : text);
}

/** Text of others in one line: a newline is shown as its code too. */
export function line(text) {
  return String(text ?? "")
    .replaceAll("\r\n", "\n")
    .replace(/^\n+|\n+$/g, "")
    .replaceAll("\n", "\\n");
}

/** The sentence of a stored error. */
export function reason(error) {
  return String(error.message || error.code || JSON.stringify(error));
}

/** What came of a task: its result, or why there is none. */
export function outcome(task) {
  if (!task.error) return json(task.result);
  const colour = task.status === "failed" ? "red" : "dim";
  return h("span", { class: colour }, json(reason(task.error)));
}

/** What a person calls the task. */
export function label(task) {
  return line(task.name || task.type);
}

/** Dollars with enough digits: `$5`, `$12.50`, `$0.0042`; never 0 for what is more. */
export function money(usd) {
  const minus = usd < 0 ? "-" : "";
  const amount = Math.abs(usd);
  if (Number.isInteger(amount)) return `${minus}$${amount.toLocaleString("en")}`;
  const digits = amount >= 1 ? 2 : Math.max(2, 2 - Math.floor(Math.log10(amount)));
  const shown = amount.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: digits });
  return `${minus}$${shown}`;
}

/** `$0.42, 1,200 tokens`; empty where neither is known. */
export function amounts(usd, tokens) {
  const parts = [];
  if (usd !== null && usd !== undefined) parts.push(money(usd));
  if (tokens !== null && tokens !== undefined) parts.push(`${tokens.toLocaleString("en")} tokens`);
  return parts.join(", ");
}
