// The page: which view the address names, when it asks anew, and how it says where it stands.
//
// A view says what it wants to know (`ask`), and draws what came (`draw`). It asks when the server says
// that something has happened, or after a while; at most four times a second, and for at most a tenth
// of the time, so that a server with much to tell is asked less often. A hidden page asks nothing.

import { agent, budgets, fleet } from "./fleet.js";
import { Link, Refused } from "./link.js";
import { clock, count, line, setClock } from "./look.js";
import { quiet } from "./parts.js";
import { events, task, tasks } from "./tasks.js";
import { draw, h } from "./tree.js";
import { deadlock, deadlocks, vote, votes } from "./votes.js";

const SHORTEST = 250; // ms between two looks
const DUTY = 9; // a look is followed by so many times the time that it took
const LONGEST = 15000; // without a word from the server, but for views that say otherwise
const TICK = 1000; // ages go on without news

const VIEWS = { "": fleet, tasks, votes, deadlocks, events, budgets, task, agent, vote, deadlock };
const NAV = [
  ["", "Fleet"],
  ["tasks", "Tasks"],
  ["votes", "Votes"],
  ["deadlocks", "Deadlocks"],
  ["events", "Events"],
  ["budgets", "Budgets"],
];
const ABOVE = { task: "tasks", agent: "", vote: "votes", deadlock: "deadlocks" };

const page = {
  route: read(location.hash),
  found: null, // what the view asked for, or null before the first answer
  problem: null,
  at: 0, // when it was found
  isAsking: false,
  isDue: true,
  notBefore: 0,
};

const link = new Link(told, () => {
  page.isDue = true;
  schedule();
});

/** `#/task/ID?name=x` -> {place, id, query}. */
function read(hash) {
  const [path, search] = hash.replace(/^#\/?/, "").split("?", 2);
  const [place, id] = path.split("/", 2);
  let name;
  try {
    name = id === undefined ? undefined : decodeURIComponent(id);
  } catch {
    name = id;
  }
  const known = Object.hasOwn(VIEWS, place) && (name !== undefined) === place in ABOVE;
  return { place: known ? place : null, id: name, query: Object.fromEntries(new URLSearchParams(search)) };
}

/** Another filter of the same view. */
function go(change) {
  const query = Object.entries({ ...page.route.query, ...change }).filter(([, value]) => value);
  const path = page.route.place;
  location.hash = `#/${path}${query.length ? `?${new URLSearchParams(query)}` : ""}`;
}

async function look() {
  const route = page.route;
  const view = VIEWS[route.place];
  page.isAsking = true;
  page.isDue = false;
  const start = performance.now();
  try {
    const wanted = Object.entries(view.ask(route, page.found)).filter(([, question]) => question);
    const answers = await Promise.all(wanted.map(([, question]) => answered(...question)));
    if (route !== page.route) return;
    page.found = Object.fromEntries(wanted.map(([name], index) => [name, answers[index]]));
    if (page.found.status) setClock(page.found.status.at);
    view.take?.(page.found);
    page.problem = null;
    page.at = Date.now();
  } catch (error) {
    if (route !== page.route) return;
    if (error instanceof Refused) page.problem = error;
    else page.isDue = true; // the connection is gone: once more when it is back
  } finally {
    page.isAsking = false;
    page.notBefore = performance.now() + Math.max(SHORTEST, (performance.now() - start) * DUTY);
    if (route !== page.route) page.notBefore = 0;
    paint();
    schedule();
  }
}

/** What cannot be drawn leaves a gap; what cannot be told is the view's own problem. */
async function answered(method, params) {
  try {
    return await link.ask(method, params);
  } catch (error) {
    if (method === "picture" && error instanceof Refused) return null;
    throw error;
  }
}

let timer = null;

/** See to it that the next look happens when it may. */
function schedule() {
  clearTimeout(timer);
  if (document.hidden || link.state !== "open" || page.isAsking || page.route.place === null) return;
  const pause = Math.max(0, page.notBefore - performance.now());
  const rest = page.isDue
    ? pause
    : Math.max(pause, (VIEWS[page.route.place].rest ?? LONGEST) - (Date.now() - page.at));
  timer = setTimeout(look, rest);
}

function told() {
  if (link.state === "open") page.isDue = true;
  paint();
  schedule();
}

/** Draw the page as it stands. */
function paint() {
  if (document.hidden) return;
  draw(top, head());
  draw(main, body());
  draw(foot, standing());
  main.setAttribute(
    "aria-busy",
    link.state === "open" && page.route.place !== null && page.found === null && page.problem === null,
  );
  main.classList.toggle("old", page.found !== null && (link.state !== "open" || page.problem !== null));
}

function head() {
  const here = page.route.place in ABOVE ? ABOVE[page.route.place] : page.route.place;
  return [
    h("a", { class: "brand", href: "#/" }, mark(), "agentorch"),
    h(
      "nav",
      { "aria-label": "Views" },
      NAV.map(([place, name]) =>
        h("a", { href: `#/${place}`, "aria-current": place === here ? "page" : null }, name),
      ),
    ),
    connection(),
  ];
}

function mark() {
  return h(
    "svg",
    { viewBox: "0 0 24 24", class: "mark", "aria-hidden": "true" },
    h("path", { d: "M12 5 5 18M12 5l7 13M5 18h14", fill: "none" }),
    h("circle", { cx: 12, cy: 5, r: 3 }),
    h("circle", { cx: 5, cy: 18, r: 3 }),
    h("circle", { cx: 19, cy: 18, r: 3 }),
  );
}

function connection() {
  const [colour, sign, words] = {
    open: ["green", "●", "live"],
    connecting: ["yellow", "◌", "connecting"],
    lost: ["red", "✗", "disconnected"],
    locked: ["yellow", "○", "wants a token"],
  }[link.state];
  return h(
    "p",
    { class: "connection", role: "status" },
    h(
      "span",
      { class: `state ${colour}` },
      h("span", { class: `sign ${colour}`, "aria-hidden": "true" }, sign),
      " ",
      words,
    ),
  );
}

function body() {
  const view = VIEWS[page.route.place];
  document.title = view
    ? `${view === fleet ? "" : `${page.route.id ? `${line(page.route.id).slice(0, 60)} · ` : ""}${view.name} · `}agentorch`
    : "agentorch";
  if (link.state === "locked") return lock();
  const parts = [link.state === "lost" ? lost() : page.problem && page.found ? unanswered() : null];
  if (!view)
    parts.push(
      h("h1", {}, "There is no such page"),
      quiet([h("a", { href: "#/" }, "The fleet"), " is a good place to begin."]),
    );
  else if (page.problem && !page.found) parts.push(h("h1", {}, view.name), quiet(line(page.problem.message)));
  else if (page.found) parts.push(view.draw(page.found, { query: page.route.query, go }));
  else parts.push(quiet(link.state === "lost" ? "Nothing is known yet." : "Looking …"));
  return parts;
}

/** The server is there and cannot say: what was known stays. */
function unanswered() {
  return h(
    "div",
    { class: "lost", role: "alert", key: "lost" },
    h("p", {}, h("b", {}, "No answer: "), `${line(page.problem.message)}${old()}.`),
  );
}

function old() {
  return page.at ? `; what is shown is ${count((Date.now() - page.at) / 1000)} old` : "";
}

function lost() {
  const left = link.nextTry - Date.now();
  return h(
    "div",
    { class: "lost", role: "alert", key: "lost" },
    h(
      "p",
      {},
      h("b", {}, "Disconnected"),
      ` for ${count((Date.now() - link.since) / 1000)}${old()}.`,
      ` ${left > 500 ? `Next try in ${count(left / 1000)}.` : "Trying …"}`,
    ),
    h("button", { type: "button", on: { click: () => link.connect() } }, "Try now"),
  );
}

const isPrivate =
  location.protocol === "https:" || /^(localhost|127(\.\d+){3}|\[::1\])$/.test(location.hostname);

function lock() {
  if (!isPrivate) {
    return [
      h("h1", {}, "This server wants a token"),
      quiet(
        "This connection is not encrypted, so a token is not sent over it: others could read it. Give serve a certificate, and open the page with https.",
      ),
    ];
  }
  return h(
    "form",
    { class: "lock", on: { submit: unlock } },
    h("h1", {}, "This server wants a token"),
    quiet(
      "One with the scope read is enough: this page changes nothing. It is kept in this tab until you close it.",
    ),
    h(
      "label",
      {},
      h("span", {}, "Token"),
      h("input", {
        type: "password",
        name: "token",
        autocomplete: "off",
        spellcheck: "false",
        placeholder: "ao_…",
      }),
    ),
    h("button", { type: "submit" }, "Look"),
    link.refusal ? h("p", { class: "red", role: "alert" }, line(link.refusal)) : null,
  );
}

function unlock(event) {
  event.preventDefault();
  const typed = event.target.elements.token.value.trim();
  event.target.reset();
  if (typed) link.unlock(typed);
}

function standing() {
  const seconds = page.at ? (Date.now() - page.at) / 1000 : 0;
  return [
    h(
      "p",
      {},
      page.at ? `As of ${clock(page.at)}${seconds > 3 ? `, ${count(seconds)} ago` : ""}.` : "",
      " Read-only.",
    ),
    link.hello
      ? h(
          "p",
          {},
          `agentorch ${line(link.hello.version)}`,
          link.hello.name ? `, as ${line(link.hello.name)}` : "",
          link.hasToken
            ? [
                " ",
                h(
                  "button",
                  { type: "button", class: "plain", on: { click: () => link.forget() } },
                  "Forget the token",
                ),
              ]
            : null,
        )
      : null,
  ];
}

const top = document.getElementById("top");
const main = document.getElementById("main");
const foot = document.getElementById("foot");
main.replaceChildren();

addEventListener("hashchange", () => {
  const before = page.route;
  page.route = read(location.hash);
  const isOther = before.place !== page.route.place || before.id !== page.route.id;
  page.found = isOther ? null : page.found;
  page.problem = null;
  page.isDue = true;
  page.notBefore = 0;
  paint();
  schedule();
  if (isOther) {
    scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
});

document.addEventListener("visibilitychange", () => {
  link.hint(!document.hidden);
  if (!document.hidden) page.isDue = true;
  paint();
  schedule();
});

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address says which view is shown
  main.focus();
});

setInterval(paint, TICK);
link.wantsHints = !document.hidden;
link.connect();
paint();
