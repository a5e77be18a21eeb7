// The connection: questions and answers on /control, as any client of the protocol asks them.
//
// The server lets a browser only read. It says that something has happened, not what; what is shown is
// asked for. A connection that is lost is made anew, later each time; a hidden page is told nothing.

const PATIENCE = 20000; // ms for an answer
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 15000;
const TOKEN = "agentorch.token"; // in this tab only, until it is closed

export class Refused extends Error {
  constructor(error) {
    super(error.data?.message || error.message || "the server refused");
    this.code = error.data?.code || "";
    this.hint = error.data?.hint || "";
  }
}

export class Link {
  /** `told` is called when the state has changed, `moved` when something has happened on the server. */
  constructor(told, moved) {
    this.state = "connecting"; // "connecting", "open", "lost", "locked"
    this.since = Date.now();
    this.nextTry = 0;
    this.hello = null;
    this.refusal = "";
    this.told = told;
    this.moved = moved;
    this.waiting = new Map();
    this.number = 0;
    this.pause = FIRST_PAUSE;
    this.subscription = null;
    this.wantsHints = false;
  }

  get hasToken() {
    return sessionStorage.getItem(TOKEN) !== null;
  }

  unlock(token) {
    sessionStorage.setItem(TOKEN, token);
    this.pause = FIRST_PAUSE;
    this.connect();
  }

  forget() {
    sessionStorage.removeItem(TOKEN);
    this.socket?.close();
    this.lock("");
  }

  connect() {
    clearTimeout(this.timer);
    this.turn(this.state === "lost" ? "lost" : "connecting");
    const address = new URL("control", location.href); // beside the page, wherever that is
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    address.hash = "";
    const socket = new WebSocket(address);
    this.socket = socket;
    socket.onopen = () => this.greet(socket);
    socket.onmessage = (message) => socket === this.socket && this.hear(JSON.parse(message.data));
    socket.onclose = () => socket === this.socket && this.lose();
  }

  async greet(socket) {
    const token = sessionStorage.getItem(TOKEN);
    try {
      this.hello = await this.ask("hello", token === null ? {} : { token });
      if (!this.hello.scopes.includes("read")) {
        throw new Refused({ message: "this token may not look: it has no scope read" });
      }
    } catch (error) {
      if (error instanceof Refused && socket === this.socket) this.lock(token === null ? "" : error.message);
      return;
    }
    this.pause = FIRST_PAUSE;
    this.turn("open");
    this.hint(this.wantsHints);
  }

  /** Without a token that fits there is nothing to see; the page asks for one. */
  lock(reason) {
    this.refusal = reason;
    sessionStorage.removeItem(TOKEN);
    const socket = this.socket;
    this.socket = null;
    socket?.close();
    this.fail("the server wants a token");
    this.turn("locked");
  }

  lose() {
    this.socket = null;
    this.subscription = null;
    this.fail("the connection was lost");
    if (this.state === "locked") return;
    this.nextTry = Date.now() + this.pause * (0.75 + Math.random() / 2);
    this.pause = Math.min(this.pause * 2, LONGEST_PAUSE);
    this.timer = setTimeout(() => this.connect(), this.nextTry - Date.now());
    this.turn("lost");
  }

  fail(reason) {
    const waiting = [...this.waiting.values()];
    this.waiting.clear();
    for (const { reject } of waiting) reject(new Error(reason));
  }

  turn(state) {
    if (this.state !== state) this.since = Date.now();
    this.state = state;
    this.told();
  }

  /** Whether the server should say that something has happened. */
  async hint(isWanted) {
    this.wantsHints = isWanted;
    if (this.state !== "open") return;
    try {
      if (isWanted && this.subscription === null) {
        this.subscription = 0; // asked for
        this.subscription = (await this.ask("subscribe", { hints: true })).subscription;
        if (!this.wantsHints) this.hint(false);
      } else if (!isWanted && this.subscription) {
        const subscription = this.subscription;
        this.subscription = null;
        await this.ask("unsubscribe", { subscription });
        if (this.wantsHints) this.hint(true);
      }
    } catch {
      this.subscription = null; // a lost connection begins anew; otherwise the clock says when to look
    }
  }

  /** The answer to one question. Rejects with Refused, or with an Error where there was no answer. */
  ask(method, params) {
    const socket = this.socket;
    if (!socket || socket.readyState !== WebSocket.OPEN) return Promise.reject(new Error("not connected"));
    const id = (this.number += 1);
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => socket.close(), PATIENCE);
      const done = (settle) => (value) => {
        clearTimeout(late);
        this.waiting.delete(id);
        settle(value);
      };
      this.waiting.set(id, { resolve: done(resolve), reject: done(reject) });
      socket.send(JSON.stringify({ jsonrpc: "2.0", id, method, params }));
    });
  }

  hear(message) {
    if (message.method === "moved") this.moved();
    const waiting = this.waiting.get(message.id) ?? (message.error && this.waiting.values().next().value);
    if (!waiting) return;
    if (message.error) waiting.reject(new Refused(message.error));
    else waiting.resolve(message.result);
  }
}
