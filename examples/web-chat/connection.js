// A connection that reconnects: the protocol in docs/protocol.md, without a library.

const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 15_000;

/** How long to wait for an answer. */
const ANSWER_MS = 10_000;

/** How many old messages a room is joined with. */
const LAST = 50;

/** How long to wait before a join that failed is tried again. */
const REJOIN_MS = 1_000;

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
 * One user's connection. Events: `state` (`connecting`, `online`, `lost`, `ended`), `welcome`, `gap` (`room`, `reason`) if messages of
 * a room with a history were missed and cannot be had any more, `refused` (`room`, `payload`) if a room cannot be joined again, and
 * `frame` for every frame that is neither a welcome nor an answer. Messages of a room with a history come once each, in order,
 * across reconnects; those that were sent before the room was joined have `isOld`.
 */
export class Connection extends EventTarget {
  #socket = null;
  #waiting = new Map();
  #next = 0;
  #attempt = 0;
  #timer = 0;
  #ended = false;
  /**
   * The rooms to be in. Each has its place in the history, `epoch` and `offset` of the last message, or an `epoch` of null without
   * one; and the offset `joined` of the last message before the join. `held`: the place is about to change, and messages before that
   * count for nothing, because they come again.
   */
  #rooms = new Map();

  /** The number of reconnects. */
  reconnects = 0;

  constructor(name, token, path = "/ws") {
    super();
    this.name = name;
    this.token = token;
    this.path = path;
    this.#open();
  }

  /**
   * Sends a frame and resolves to its `ack` or `error`, with the elapsed time in `ms`. `acked` gets the payload of the `ack` before
   * any later frame is read.
   */
  ask(frame, acked) {
    const id = String(this.#next++);
    if (this.#socket?.readyState !== WebSocket.OPEN) {
      return Promise.resolve({ type: "error", payload: { code: "offline", message: "not connected" }, ms: 0 });
    }
    return new Promise((resolve) => {
      const sent = performance.now();
      const answered = (answer) => {
        clearTimeout(timer);
        this.#waiting.delete(id);
        if (answer.type === "ack") acked?.(answer.payload);
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

  /**
   * Joins a room, now and after each reconnect, with its last messages and with presence. Resolves to the `ack` or `error`. Later
   * joins ask for the messages since the last one that came.
   */
  async join(room) {
    const place = { epoch: null, offset: 0, joined: 0, held: true };
    this.#rooms.set(room, place);
    const answer = await this.#enter(room, place, { last: LAST });
    if (answer.type !== "ack" && this.#rooms.get(room) === place) {
      this.#rooms.delete(room);
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
      for (const room of this.#rooms.keys()) {
        this.#rejoin(room);
      }
    } else if ((type === "ack" || type === "error") && this.#waiting.has(payload?.id)) {
      this.#waiting.get(payload.id)(frame);
    } else if (this.#isNew(frame)) {
      this.dispatchEvent(new CustomEvent("frame", { detail: frame }));
    }
    if (type === "joined" && payload?.recovered === false && this.#rooms.get(payload.room)?.held === false) {
      // The server lost messages while this connection was open.
      this.#reload(payload.room, payload.reason);
    }
  }

  /** Notes the place of a message; false if it counts for nothing. */
  #isNew(frame) {
    const { room, offset } = frame;
    const place = this.#rooms.get(room);
    if (!place || offset === undefined) {
      return true;
    }
    if (place.held || offset <= place.offset) {
      return false;
    }
    place.offset = offset;
    frame.isOld = offset <= place.joined;
    return true;
  }

  /** Joins a room again after a reconnect, with the messages since its place. */
  async #rejoin(room) {
    const place = this.#rooms.get(room);
    const socket = this.#socket;
    const since = { epoch: place.epoch, offset: place.offset };
    place.held = true;
    const answer = await this.#enter(room, place, place.epoch === null ? { last: LAST } : { since });
    if (answer.payload?.room?.recovered === false) {
      this.#reload(room, answer.payload.room.reason);
    } else if (answer.type === "error" && socket.readyState === WebSocket.OPEN) {
      this.#failed(room, answer.payload);
    }
  }

  /** Tells that messages of a room are missing, and asks for the last ones instead. */
  #reload(room, reason) {
    this.dispatchEvent(new CustomEvent("gap", { detail: { room, reason } }));
    this.#rooms.get(room).epoch = null;
    this.#rejoin(room);
  }

  /** A room could not be joined again on a connection that is open. */
  #failed(room, payload) {
    if (payload.retryable || payload.code === "timeout") {
      const socket = this.#socket;
      setTimeout(() => socket.readyState === WebSocket.OPEN && this.#rejoin(room), REJOIN_MS);
    } else {
      this.#rooms.delete(room);
      this.dispatchEvent(new CustomEvent("refused", { detail: { room, payload } }));
    }
  }

  /** Sends a `join`, and moves the place of the room to where the messages begin that follow its `ack`. */
  #enter(room, place, payload) {
    return this.ask({ type: "join", room, payload: { ...payload, presence: true } }, ({ room: now }) => {
      place.held = now?.recovered === false;
      if (now && !place.held) {
        place.epoch = now.epoch;
        place.offset = now.offset - (now.count ?? 0);
        place.joined = now.offset;
      }
    });
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
