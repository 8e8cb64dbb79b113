// A WebSocket that a test controls, and helpers.

/** A WebSocket without a network, as browsers have it. `sockets` has all that were created. */
export function fakeWebSocket() {
  const sockets = [];
  class FakeWebSocket {
    sent = [];
    closed = undefined;
    protocol = "";
    onopen = null;
    onmessage = null;
    onclose = null;
    onerror = null;
    constructor(url, protocols) {
      this.url = new URL(url);
      this.protocols = protocols;
      sockets.push(this);
    }
    send(text) {
      this.sent.push(JSON.parse(text));
    }
    close(code) {
      this.closed = code ?? 1005;
    }
    /** The server accepts the upgrade and greets. */
    welcome(payload = {}) {
      this.protocol = "signalbox.v1";
      this.onopen?.({});
      this.frame({ type: "welcome", payload: { heartbeatIntervalMs: 25_000, limits: { frameBytesMax: 65_536 }, ...payload } });
    }
    frame(frame) {
      this.onmessage?.({ data: JSON.stringify(frame) });
    }
    /** Answers the last frame of this type. */
    ack(type, fields = {}) {
      const { id } = this.sent.findLast((frame) => frame.type === type);
      this.frame({ type: "ack", payload: { id, messageId: "m", status: "handled", ...fields } });
    }
    end(code, reason = "") {
      this.onclose?.({ code, reason });
    }
  }
  return { FakeWebSocket, sockets };
}

/** Lets promises that are ready go on. */
export async function settle() {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
}

/** A client with a fake WebSocket, and all that it reports. */
export async function connected(Signalbox, options = {}) {
  const { FakeWebSocket, sockets } = fakeWebSocket();
  const client = new Signalbox({ url: "ws://localhost/ws", userId: "ann", WebSocket: FakeWebSocket, ...options });
  const states = [];
  const errors = [];
  client.on("state", (change) => states.push(change));
  client.on("error", (error) => errors.push(error));
  client.connect();
  await settle();
  sockets[0].welcome();
  return { client, sockets, states, errors };
}
