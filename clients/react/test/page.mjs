// A page with React, and a client whose WebSocket the test controls.
import { Signalbox } from "@signalbox/client";
import { Window } from "happy-dom";
import { fakeWebSocket } from "../../typescript/test/fake.mjs";

const window = new Window();
Object.assign(globalThis, { window, document: window.document, IS_REACT_ACT_ENVIRONMENT: true });
// Node 20 has none.
globalThis.navigator ??= window.navigator;

// React looks for a page when it is loaded.
const { act, createElement: h, StrictMode } = await import("react");
const { createRoot } = await import("react-dom/client");
const { SignalboxProvider } = await import("../dist/index.js");

export { act, h };

/** Runs `work`, and all that follows from it. */
export const settled = (work = () => {}) =>
  act(async () => {
    await work();
    await new Promise((next) => setImmediate(next));
  });

/** A page in StrictMode, and the sockets of its client. */
export async function page(options = {}) {
  const { FakeWebSocket, sockets } = fakeWebSocket();
  const client = new Signalbox({ url: "ws://localhost/ws", userId: "ann", WebSocket: FakeWebSocket, backoffMinMs: 0, backoffMaxMs: 0, ...options });
  const element = document.body.appendChild(document.createElement("div"));
  const root = createRoot(element);
  const errors = [];
  const show = (...children) =>
    settled(() => root.render(h(StrictMode, null, h(SignalboxProvider, { client, onError: (error) => errors.push(error) }, ...children))));
  const empty = () => settled(() => root.render(null));
  const socket = () => sockets.at(-1);
  const sent = (type) => socket().sent.filter((frame) => frame.type === type);
  return {
    client,
    sockets,
    errors,
    show,
    empty,
    socket,
    sent,
    text: () => element.textContent,
    unmount: () => settled(() => root.unmount()),
    /** The server greets. */
    welcome: () => settled(() => socket().welcome({ userId: "ann", nodeId: "n", connectionId: "c" })),
    /** The server accepts the last join. */
    joined: (room = { epoch: "e", offset: 0 }) => settled(() => socket().ack("join", { room })),
    frame: (frame) => settled(() => socket().frame(frame)),
    ack: (type, fields) => settled(() => socket().ack(type, fields)),
    say: (offset, text, fields = {}) =>
      settled(() =>
        socket().frame({ type: "chat_message", payload: { text }, senderId: "bob", receiverID: "", timestamp: "", room: "r", offset, ...fields }),
      ),
    /** The connection is lost, and the next attempt has begun. */
    async lose() {
      const before = sockets.length;
      await settled(() => socket().end(1006));
      while (sockets.length === before) await settled(() => new Promise((next) => setTimeout(next, 1)));
    },
  };
}
