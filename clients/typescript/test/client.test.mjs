import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { Signalbox, SignalboxError } from "../dist/index.js";
import { connected, fakeWebSocket, settle } from "./fake.mjs";

/** Runs with a clock of the test's own. */
function withClock(name, run) {
  test(name, async () => {
    mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_000_000 });
    try {
      await run(async (ms) => {
        mock.timers.tick(ms);
        await settle();
      });
    } finally {
      mock.timers.reset();
      mock.restoreAll();
    }
  });
}

withClock("a client that cannot read statuses asks for close codes", async () => {
  const { sockets } = await connected(Signalbox);
  assert.equal(sockets[0].url.searchParams.get("refuse"), "close");
  assert.equal(sockets[0].url.searchParams.get("userId"), "ann");
  assert.deepEqual(sockets[0].protocols, ["signalbox.v1"]);
});

withClock("a token travels as a subprotocol", async () => {
  const { sockets } = await connected(Signalbox, { userId: undefined, token: "t" });
  assert.deepEqual(sockets[0].protocols, ["signalbox.v1", "bearer", "t"]);
});

withClock("calls have IDs that are random and differ", async () => {
  const { client, sockets } = await connected(Signalbox);
  const other = await connected(Signalbox);
  for (const one of [client, other.client]) for (let n = 0; n < 500; n++) one.send("t", n).catch(() => {});
  const ids = [...sockets[0].sent, ...other.sockets[0].sent].map(({ id }) => id);
  assert.equal(new Set(ids).size, 1000);
  assert.ok(ids.every((id) => id.length >= 16 && id.length <= 64));
  client.close();
  other.client.close();
});

/** Refuses the last frame for now, and lets the wait before the next try pass. */
async function refuse(socket, tick, code, waitMs) {
  const sent = socket.sent.length;
  const frame = socket.sent.at(-1);
  socket.frame({ type: "error", payload: { id: frame.id, code, message: "no", retryable: true } });
  await tick(waitMs - 1);
  assert.equal(socket.sent.length, sent);
  await tick(1);
  assert.deepEqual(socket.sent.slice(sent), [frame]);
}

withClock("a call whose first try is in progress is repeated for 15 s", async (tick) => {
  mock.method(Math, "random", () => 1);
  const { client, sockets } = await connected(Signalbox);
  const call = client.send("t", 1, { once: true });
  for (const waitMs of [500, 1000, 2000, 2000, 2000, 2000, 2000, 2000, 1500]) await refuse(sockets[0], tick, "in_progress", waitMs);
  const { id } = sockets[0].sent.at(-1);
  sockets[0].frame({ type: "error", payload: { id, code: "in_progress", message: "no", retryable: true } });
  await assert.rejects(call, { code: "in_progress", retryable: true });
  client.close();
});

withClock("a repetition after `in_progress` is none of the three retries", async (tick) => {
  mock.method(Math, "random", () => 1);
  const { client, sockets } = await connected(Signalbox);
  const call = client.send("t", 1, { once: true });
  for (const waitMs of [500, 1000, 2000, 2000]) await refuse(sockets[0], tick, "in_progress", waitMs);
  for (const waitMs of [500, 1000, 2000]) await refuse(sockets[0], tick, "unavailable", waitMs);
  await refuse(sockets[0], tick, "in_progress", 2000);
  sockets[0].ack("t");
  assert.equal((await call).status, "handled");
  client.close();
});

withClock("a callback that fails is reported and changes nothing else", async () => {
  const { client, sockets, errors } = await connected(Signalbox);
  const seen = [];
  client.on("t", () => {
    throw new Error("sync");
  });
  client.on("t", async () => {
    throw new Error("async");
  });
  client.on("t", ({ payload }) => seen.push(payload));
  sockets[0].frame({ type: "t", payload: 1 });
  sockets[0].frame({ type: "t", payload: 2 });
  await settle();
  assert.deepEqual(seen, [1, 2]);
  assert.deepEqual(errors.map(({ code }) => code), Array(4).fill("callback_failed"));
  assert.ok(errors[0] instanceof SignalboxError && errors[0].cause.message === "sync");
  assert.equal(client.state, "connected");
  client.close();
});

withClock("messages reach callbacks by type and by room until they are unsubscribed", async () => {
  const { client, sockets } = await connected(Signalbox);
  const seen = [];
  const unsubscribe = client.on("t", ({ payload }) => seen.push(["type", payload]));
  client.on("message", ({ payload }) => seen.push(["all", payload]));
  const room = client.join("r");
  room.on("message", ({ payload }) => seen.push(["room", payload]));
  sockets[0].ack("join");
  sockets[0].frame({ type: "t", payload: 1, room: "r" });
  unsubscribe();
  sockets[0].frame({ type: "t", payload: 2 });
  assert.deepEqual(seen, [["type", 1], ["all", 1], ["room", 1], ["all", 2]]);
  client.close();
});

withClock("a message can be sent from the callback that reports the connection", async () => {
  const { FakeWebSocket, sockets } = fakeWebSocket();
  const client = new Signalbox({ url: "ws://localhost/ws", userId: "ann", offline: "error", WebSocket: FakeWebSocket });
  client.on("state", ({ state }) => state === "connected" && client.send("t", 1).catch(() => {}));
  client.connect();
  await settle();
  sockets[0].welcome();
  assert.deepEqual(sockets[0].sent.map(({ type }) => type), ["t"]);
  client.close();
});

withClock("no callback follows close", async () => {
  const { client, sockets, states } = await connected(Signalbox);
  const seen = [];
  const room = client.join("r");
  sockets[0].ack("join");
  client.on("t", () => client.close());
  client.on("t", () => seen.push("type"));
  client.on("message", () => seen.push("all"));
  room.on("message", () => seen.push("room"));
  sockets[0].frame({ type: "t", payload: 1, room: "r" });
  assert.deepEqual(seen, []);
  assert.equal(states.at(-1).state, "closed");
  assert.equal(sockets[0].closed, 1000);
});

withClock("a token callback has its time, is aborted after it, and is never called twice at once", async (tick) => {
  let calls = 0;
  let aborted = 0;
  const token = (signal) => {
    calls += 1;
    signal.addEventListener("abort", () => (aborted += 1));
    return calls === 1 ? new Promise(() => {}) : "t";
  };
  const { FakeWebSocket, sockets } = fakeWebSocket();
  const client = new Signalbox({ url: "ws://localhost/ws", token, WebSocket: FakeWebSocket });
  const errors = [];
  client.on("error", ({ code }) => errors.push(code));
  client.connect();
  await settle();
  client.connect();
  await tick(29_999);
  assert.deepEqual([calls, aborted, errors], [1, 0, []]);
  await tick(1);
  assert.deepEqual([calls, aborted, errors], [1, 1, ["token_failed"]]);
  await tick(500);
  assert.deepEqual([calls, sockets.length], [2, 1]);
  client.close();
});

withClock("silence leads to a heartbeat, and silence after it to another connection", async (tick) => {
  const { client, sockets, states } = await connected(Signalbox);
  const beats = () => sockets[0].sent.filter(({ type }) => type === "heartbeat").length;
  for (let second = 0; second < 24; second++) await tick(1000);
  assert.equal(beats(), 0);
  sockets[0].frame({ type: "t" });
  for (let second = 0; second < 24; second++) await tick(1000);
  assert.equal(beats(), 0, "a frame counts as a sign of life");
  await tick(1000);
  assert.equal(beats(), 1);
  await tick(5000);
  await tick(4999);
  assert.equal(client.state, "connected");
  await tick(1);
  assert.equal(states.at(-1).state, "disconnected");
  client.close();
});

withClock("after a pause the client asks at once and waits for 5 s", async (tick) => {
  const { client, sockets } = await connected(Signalbox);
  // Timers stand still while a computer sleeps; the time of day does not.
  mock.timers.setTime(1_000_000 + 3_600_000);
  await tick(5000);
  assert.equal(sockets[0].sent.at(-1)?.type, "heartbeat");
  assert.equal(client.state, "connected");
  await tick(5000);
  assert.equal(client.state, "disconnected");
  client.close();
});

withClock("a stable connection resets the backoff, and a short one does not", async (tick) => {
  const random = mock.method(Math, "random", () => 1);
  const { client, sockets, states } = await connected(Signalbox);
  const lose = async (after) => {
    await tick(after);
    sockets.at(-1).end(1006);
    const { retryInMs } = states.at(-1);
    await tick(retryInMs);
    sockets.at(-1).welcome();
    return retryInMs;
  };
  assert.deepEqual([await lose(4000), await lose(4000), await lose(4999), await lose(5000)], [500, 1000, 2000, 500]);
  random.mock.restore();
  client.close();
});

withClock("online ends the wait for an attempt, at most once in 5 s", async (tick) => {
  const target = new EventTarget();
  const platform = ["addEventListener", "removeEventListener"];
  for (const name of platform) globalThis[name] = target[name].bind(target);
  const random = mock.method(Math, "random", () => 1);
  const { client, sockets, states } = await connected(Signalbox, { backoffMinMs: 20_000 });
  const online = async () => {
    target.dispatchEvent(new Event("online"));
    await settle();
  };
  sockets[0].end(1006);
  await online();
  assert.equal(sockets.length, 2);
  sockets[1].end(1006);
  await online();
  assert.equal(sockets.length, 2, "not twice in 5 s");
  await tick(5000);
  await online();
  assert.equal(sockets.length, 3);
  client.close();
  await online();
  assert.deepEqual([sockets.length, states.at(-1).state], [3, "closed"]);
  random.mock.restore();
  for (const name of platform) delete globalThis[name];
});

withClock("a room token comes from the callback, is kept, and is renewed when it expires or is refused", async (tick) => {
  const { client, sockets } = await connected(Signalbox);
  let calls = 0;
  const room = client.join("r", { token: (name) => `${name}-${++calls}` });
  await settle();
  assert.equal(sockets[0].sent.at(-1).payload.token, "r-1");
  sockets[0].ack("join");
  assert.deepEqual(await room.joined, { recovered: undefined });
  sockets[0].frame({ type: "left", payload: { room: "r", reason: "expired" } });
  await settle();
  assert.equal(sockets[0].sent.at(-1).payload.token, "r-2");
  const { id } = sockets[0].sent.at(-1);
  sockets[0].frame({ type: "error", payload: { id, code: "invalid_token", message: "no", retryable: false } });
  await tick(0);
  assert.equal(sockets[0].sent.at(-1).payload.token, "r-3");
  client.close();
});

withClock("the callback of a room token has its time, is never called twice at once, and is reported if it fails", async (tick) => {
  const random = mock.method(Math, "random", () => 0.5);
  const { client, sockets, errors } = await connected(Signalbox);
  let calls = 0;
  const room = client.join("r", { token: () => (++calls === 1 ? new Promise(() => {}) : `t-${calls}`) });
  await settle();
  sockets[0].end(1006);
  await tick(250);
  sockets[1].welcome();
  await settle();
  assert.deepEqual([calls, errors.length], [1, 0]);
  await tick(29_749);
  assert.deepEqual([calls, errors.length], [1, 0]);
  await tick(1);
  assert.deepEqual([calls, errors.map(({ code }) => code)], [1, ["token_failed"]]);
  await tick(500);
  assert.equal(sockets[1].sent.at(-1).payload.token, "t-2");
  sockets[1].ack("join");
  await room.joined;
  random.mock.restore();
  client.close();
});

withClock("a join of a room that is joined may bring another token callback", async () => {
  const { client, sockets } = await connected(Signalbox);
  const room = client.join("r", { token: () => "one" });
  await settle();
  sockets[0].ack("join");
  await room.joined;
  client.join("r", { token: () => "two" });
  await settle();
  assert.equal(sockets[0].sent.at(-1).payload.token, "two");
  client.close();
});

withClock("a room that is left waits for no token any more", async (tick) => {
  const { client, sockets, errors } = await connected(Signalbox);
  const room = client.join("r", { token: () => new Promise(() => {}) });
  await settle();
  room.leave();
  await settle();
  await tick(60_000);
  assert.deepEqual(errors, []);
  assert.ok(sockets[0].sent.every(({ type }) => type !== "join"));
  client.close();
});

withClock("a room that has lost its history did not recover", async () => {
  const { client, sockets } = await connected(Signalbox);
  const seen = [];
  const room = client.join("r");
  room.on("recovered", (recovery) => seen.push(recovery));
  room.on("message", ({ payload }) => seen.push(payload));
  sockets[0].ack("join", { room: { epoch: "e", offset: 7 } });
  sockets[0].frame({ type: "t", payload: "gap", room: "r", offset: 9 });
  assert.equal(sockets[0].sent.at(-1).payload.since.offset, 7);
  sockets[0].ack("join");
  sockets[0].frame({ type: "t", payload: "next", room: "r" });
  assert.deepEqual(seen, [{ recovered: false, reason: "no_history" }, "next"]);
  client.close();
});

withClock("an error about which nobody asks is printed", async () => {
  const printed = mock.method(console, "error", () => {});
  const { FakeWebSocket, sockets } = fakeWebSocket();
  const client = new Signalbox({ url: "ws://localhost/ws", userId: "ann", WebSocket: FakeWebSocket });
  client.connect();
  await settle();
  sockets[0].end(4502, "no");
  assert.equal(client.state, "closed");
  assert.equal(printed.mock.calls[0].arguments[0].code, "refused");
  printed.mock.restore();
});

withClock("a platform without a WebSocket is a clear error", async () => {
  const native = globalThis.WebSocket;
  delete globalThis.WebSocket;
  const client = new Signalbox({ url: "ws://localhost/ws", userId: "ann" });
  const errors = [];
  client.on("error", (error) => errors.push(error));
  client.connect();
  await settle();
  assert.equal(client.state, "closed");
  assert.match(errors[0].message, /give one as the option `WebSocket`/);
  if (native) globalThis.WebSocket = native;
});

withClock("an answer has the ID of its message, and the plugins that saw it if the server names them", async () => {
  const { client, sockets } = await connected(Signalbox, { url: "ws://localhost/ws?trace=plugins" });
  assert.equal(sockets[0].url.searchParams.get("trace"), "plugins");
  const plugins = [{ name: "chat", version: "1.3.0", sha256: "4fa510f267ae" }];
  const answer = client.send("t", 1);
  sockets[0].ack("t", { messageId: "m1", plugins });
  assert.deepEqual(await answer, { status: "handled", data: undefined, duplicate: false, messageId: "m1", plugins });
  client.close();
});

withClock("a client knows the user, the connection and the node that the server has named", async () => {
  const { FakeWebSocket, sockets } = fakeWebSocket();
  const client = new Signalbox({ url: "ws://localhost/ws", userId: "ann", WebSocket: FakeWebSocket });
  assert.equal(client.session, undefined);
  client.connect();
  await settle();
  const session = { userId: "ann", connectionId: "c", nodeId: "n" };
  sockets[0].welcome(session);
  assert.deepEqual(client.session, session);
  client.close();
  assert.deepEqual(client.session, session);
});

withClock("a recovery says how many messages follow", async () => {
  const { client, sockets } = await connected(Signalbox);
  const seen = [];
  client.join("r").on("recovered", (recovery) => seen.push(recovery));
  sockets[0].ack("join", { room: { epoch: "e", offset: 4 } });
  sockets[0].end(1006);
  client.connect();
  await settle();
  sockets[1].welcome();
  sockets[1].ack("join", { room: { epoch: "e", offset: 6, recovered: true, count: 2 } });
  assert.deepEqual(seen, [{ recovered: true, count: 2 }]);
  client.close();
});
