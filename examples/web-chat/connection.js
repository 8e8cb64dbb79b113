// A connection that reconnects: the protocol in docs/protocol.md, without a library.

const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 15_000;

/** How long to wait for an answer. */
const ANSWER_MS = 10_000;

/** Parses a frame; null if the data is not a frame. */
function read(data) {
  try {
    const frame = JSON.parse(data);
    return typeof frame === "object" ? frame : null;
  } catch {
    return null;
  }
}

/**
 * One user's connection. Events: `state` (`connecting`, `online`, `lost`, `ended`), `welcome`, and `frame` for every
 * frame that is neither a welcome nor an answer.
 */
export class Connection extends EventTarget {
  #socket = null;
  #waiting = new Map();
  #next = 0;
  #attempt = 0;
  #timer = 0;
  #ended = false;
  #rooms = new Set();

  /** The number of reconnects. */
  reconnects = 0;

  constructor(name, token, path = "/ws") {
    super();
    this.name = name;
    this.token = token;
    this.path = path;
    this.#open();
  }

  /** Sends a frame and resolves to its `ack` or `error`, with the elapsed time in `ms`. */
  ask(frame) {
    const id = String(this.#next++);
    if (this.#socket?.readyState !== WebSocket.OPEN) {
      return Promise.resolve({ type: "error", payload: { code: "offline", message: "not connected" }, ms: 0 });
    }
    return new Promise((resolve) => {
      const sent = performance.now();
      const answered = (answer) => {
        clearTimeout(timer);
        this.#waiting.delete(id);
        resolve({ ...answer, ms: performance.now() - sent });
      };
      const gone = { type: "error", payload: { code: "timeout", message: "no answer came" } };
      const timer = setTimeout(() => answered(gone), ANSWER_MS);
      this.#waiting.set(id, answered);
      this.#socket.send(JSON.stringify({ ...frame, id }));
    });
  }

  /** Sends a frame that needs no answer. */
  tell(frame) {
    if (this.#socket?.readyState === WebSocket.OPEN) {
      this.#socket.send(JSON.stringify(frame));
    }
  }

  /** Joins a room, now and after each reconnect. */
  async join(room) {
    const answer = await this.ask({ type: "join", room });
    if (answer.type === "ack") {
      this.#rooms.add(room);
    }
    return answer;
  }

  /** Closes the connection and does not reconnect. */
  close() {
    this.#ended = true;
    clearTimeout(this.#timer);
    this.#socket?.close(1000);
  }

  #open() {
    this.#say("connecting");
    const address = new URL(`..${this.path}`, location.href);
    address.protocol = address.protocol.replace("http", "ws");
    if (!this.token) {
      address.searchParams.set("userId", this.name);
    }
    address.searchParams.set("trace", "plugins");
    const offers = this.token ? ["signalbox.v1", "bearer", this.token] : ["signalbox.v1"];
    const socket = new WebSocket(address, offers);
    this.#socket = socket;
    socket.addEventListener("message", ({ data }) => {
      const frame = read(data);
      if (frame) this.#take(frame);
    });
    socket.addEventListener("close", (event) => this.#closed(event));
  }

  #take(frame) {
    const { type, payload } = frame;
    if (type === "welcome") {
      this.reconnects += this.#attempt > 0 ? 1 : 0;
      this.#attempt = 0;
      this.#say("online");
      this.dispatchEvent(new CustomEvent("welcome", { detail: payload }));
      // Memberships end with the connection, so join the rooms again.
      for (const room of this.#rooms) {
        this.tell({ type: "join", room });
      }
    } else if ((type === "ack" || type === "error") && this.#waiting.has(payload?.id)) {
      this.#waiting.get(payload.id)(frame);
    } else {
      this.dispatchEvent(new CustomEvent("frame", { detail: frame }));
    }
  }

  #closed({ code, reason }) {
    const lost = { type: "error", payload: { code: "lost", message: "the connection was lost before an answer came" } };
    for (const answered of [...this.#waiting.values()]) {
      answered(lost);
    }
    // 4500 to 4999: do not reconnect. 1006 before a welcome: the upgrade was refused, or the server does not answer.
    if (this.#ended || (code >= 4500 && code <= 4999)) {
      this.#say("ended", { code, reason });
      return;
    }
    const wait = Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** this.#attempt) * (0.5 + Math.random() / 2);
    this.#attempt += 1;
    this.#say("lost", { code, reason, attempt: this.#attempt, wait });
    this.#timer = setTimeout(() => this.#open(), wait);
  }

  #say(state, detail = {}) {
    this.dispatchEvent(new CustomEvent("state", { detail: { state, ...detail } }));
  }
}
