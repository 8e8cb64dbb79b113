import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { act, h, page, settled } from "./page.mjs";
import { useConnection, useEvent, usePresence, useRequest, useRoom, useSignalbox } from "../dist/index.js";

const pages = [];
afterEach(async () => {
  for (const one of pages.splice(0)) await one.unmount();
});

async function newPage(options) {
  const one = await page(options);
  pages.push(one);
  return one;
}

/** A component that shows a room, and gives its hook to the test. */
function roomView(options) {
  const seen = {};
  function View() {
    seen.room = useRoom("r", options);
    const { messages, pending } = seen.room;
    return [
      ...messages.map(({ key, payload, gapAfter }) => h("i", { key }, `${payload.text}${gapAfter ? `|${gapAfter}|` : ""} `)),
      ...pending.map(({ key, payload, status }) => h("b", { key }, `(${payload.text} ${status}) `)),
    ];
  }
  return [View, seen];
}

/** A page that is in the room `r`. */
async function inRoom(options = { last: 20 }, place, settings) {
  const one = await newPage(settings);
  const [View, seen] = roomView(options);
  await one.show(h(View));
  await one.welcome();
  await one.joined(place);
  return Object.assign(one, { seen });
}

test("StrictMode opens one connection, joins once, and leaves once", async () => {
  const one = await inRoom();
  assert.equal(one.sockets.length, 1);
  assert.deepEqual(one.sent("join").map(({ payload }) => payload), [{ last: 20 }]);
  await one.show();
  assert.equal(one.sent("leave").length, 1);
  await one.unmount();
  assert.equal(one.socket().closed, 1000);
  assert.equal(one.client.state, "closed");
});

test("a provider that is mounted again connects and joins again", async () => {
  const one = await inRoom();
  await one.empty();
  assert.equal(one.client.state, "closed");
  const [View] = roomView({ last: 20 });
  await one.show(h(View));
  await one.welcome();
  assert.equal(one.sockets.length, 2);
  assert.equal(one.sent("join").length, 1);
});

test("components of one room share a membership with what all of them ask for", async () => {
  const one = await newPage();
  const [First] = roomView({ last: 20 });
  const Presence = () => h("u", null, usePresence("r").members?.map(({ userId }) => userId).join("+"));
  await one.show(h(First, { key: 1 }), h(Presence, { key: 2 }));
  await one.welcome();
  assert.deepEqual(one.sent("join").map(({ payload }) => payload), [{ last: 20, presence: true }]);
  await one.joined();
  await one.frame({ type: "presence", payload: { room: "r", total: 1, members: [{ userId: "ann", connections: 1 }] } });
  await one.frame({ type: "presence", payload: { room: "r", total: 2, joined: [{ userId: "bob", connections: 1 }] } });
  assert.match(one.text(), /ann\+bob/);
  await one.show(h(First, { key: 1 }));
  assert.equal(one.sent("leave").length, 0);
});

test("a component that comes later adds presence and old messages to the membership", async () => {
  const one = await newPage();
  const [Bare] = roomView({});
  const [Full] = roomView({ last: 20, presence: true });
  await one.show(h(Bare, { key: 1 }));
  await one.welcome();
  await one.joined({ epoch: "e", offset: 2 });
  await one.show(h(Bare, { key: 1 }), h(Full, { key: 2 }));
  assert.equal(one.sent("join").at(-1).payload.presence, true);
  await one.ack("history", { history: { hasOlder: false, messages: [{ type: "chat_message", payload: { text: "old" }, room: "r", offset: 1 }] } });
  assert.match(one.text(), /old old/);
});

test("messages of a room are shown in their order, and only the types that are asked for", async () => {
  const one = await inRoom({ last: 20, types: ["chat_message"] });
  await one.say(1, "one");
  await one.frame({ type: "chat.typing", payload: { typing: true }, room: "r", senderId: "bob", offset: 2 });
  await one.say(3, "three");
  assert.equal(one.text(), "one three ");
});

test("older messages come page by page, until there are none", async () => {
  const one = await inRoom({ last: 2 }, { epoch: "e", offset: 5, recovered: true, count: 2 });
  await one.say(4, "four");
  await one.say(5, "five");
  assert.equal(one.seen.room.hasOlder, true);
  const older = (...offsets) => offsets.map((offset) => ({ type: "chat_message", payload: { text: `n${offset}` }, room: "r", offset }));
  await settled(() => void one.seen.room.loadOlder());
  assert.equal(one.seen.room.loadingOlder, true);
  assert.deepEqual(one.sent("history")[0].payload, { limit: 50, before: 4 });
  await one.ack("history", { history: { hasOlder: true, messages: older(2, 3) } });
  assert.equal(one.text(), "n2 n3 four five ");
  await settled(() => void one.seen.room.loadOlder());
  await one.ack("history", { history: { hasOlder: false, messages: older(1) } });
  assert.equal(one.text(), "n1 n2 n3 four five ");
  assert.deepEqual([one.seen.room.hasOlder, one.seen.room.loadingOlder], [false, false]);
});

test("a history that cannot be read is an error that the next page clears", async () => {
  const one = await inRoom();
  await settled(() => void one.seen.room.loadOlder());
  const [{ id }] = one.sent("history");
  await one.frame({ type: "error", payload: { id, code: "unavailable", message: "not now", retryable: true } });
  assert.equal(one.seen.room.olderError.code, "unavailable");
  await settled(() => void one.seen.room.loadOlder());
  await one.ack("history", { history: { hasOlder: false, messages: [] } });
  assert.equal(one.seen.room.olderError, undefined);
});

test("only so many messages are kept, and the others can be read back", async () => {
  const one = await inRoom({ last: 20, messagesMax: 2 });
  for (const offset of [1, 2, 3]) await one.say(offset, `n${offset}`);
  assert.equal(one.text(), "n2 n3 ");
  assert.equal(one.seen.room.hasOlder, true);
  await settled(() => void one.seen.room.loadOlder());
  assert.equal(one.sent("history")[0].payload.before, 2);
});

test("a message that is posted is shown at once, and once, if the echo comes before the answer", async () => {
  const one = await inRoom();
  await settled(() => void one.seen.room.post("chat_message", { text: "hi" }));
  assert.equal(one.text(), "(hi sending) ");
  assert.equal(one.sent("chat_message")[0].once, true);
  await one.say(1, "hi", { senderId: "ann", messageId: "m1" });
  assert.equal(one.text(), "(hi sending) ");
  await one.ack("chat_message", { messageId: "m1", status: "delivered" });
  assert.equal(one.text(), "hi ");
});

test("a message that is posted is shown at once, and once, if the answer comes before the echo", async () => {
  const one = await inRoom();
  await settled(() => void one.seen.room.post("chat_message", { text: "hi" }));
  await one.ack("chat_message", { messageId: "m1", status: "delivered" });
  assert.equal(one.text(), "(hi sent) ");
  await one.say(1, "hi", { senderId: "ann", messageId: "m1" });
  assert.equal(one.text(), "hi ");
});

test("a message of the user's other device is shown once the answers that may name it are there", async () => {
  const one = await inRoom();
  await settled(() => void one.seen.room.post("chat_message", { text: "here" }));
  await one.say(1, "there", { senderId: "ann", messageId: "m1" });
  await one.say(2, "here", { senderId: "ann", messageId: "m2" });
  await one.ack("chat_message", { messageId: "m2", status: "delivered" });
  assert.equal(one.text(), "there here ");
});

test("a message whose answer was lost is sent again, and is shown once", async () => {
  const one = await inRoom();
  await settled(() => void one.seen.room.post("chat_message", { text: "hi" }));
  const [{ id }] = one.sent("chat_message");
  await one.lose();
  await one.welcome();
  assert.deepEqual(one.sent("join")[0].payload.since, { epoch: "e", offset: 0 });
  await one.joined({ epoch: "e", offset: 1, recovered: true, count: 1 });
  await one.say(1, "hi", { senderId: "ann", messageId: "m1" });
  assert.equal(one.sent("chat_message")[0].id, id);
  await one.ack("chat_message", { messageId: "m1", status: "delivered", duplicate: true });
  assert.equal(one.text(), "hi ");
});

test("a message whose answer did not come in time has failed, until its echo comes", async () => {
  const one = await inRoom({ last: 20 }, undefined, { answerTimeoutMs: 1 });
  await settled(() => void one.seen.room.post("chat_message", { text: "hi" }));
  while (one.seen.room.pending[0].status === "sending") await settled(() => new Promise((next) => setTimeout(next, 1)));
  assert.equal(one.seen.room.pending[0].error.code, "timeout");
  await one.say(1, "hi", { senderId: "ann", messageId: "m1" });
  assert.equal(one.text(), "hi ");
});

test("a message whose repetition is refused because the first one is in progress has failed, until its echo comes", async () => {
  const one = await inRoom();
  await settled(() => void one.seen.room.post("chat_message", { text: "hi" }));
  const [{ id }] = one.sent("chat_message");
  await one.frame({ type: "error", payload: { id, code: "in_progress", message: "it is being handled", retryable: false } });
  assert.equal(one.seen.room.pending[0].status, "failed");
  await one.say(1, "hi", { senderId: "ann", messageId: "m1" });
  assert.equal(one.text(), "hi ");
});

test("a message that is refused can be sent again, or discarded", async () => {
  const one = await inRoom();
  await settled(() => void one.seen.room.post("chat_message", { text: "" }));
  const refuse = () => {
    const { id } = one.sent("chat_message").at(-1);
    return one.frame({ type: "error", payload: { id, code: "blank", message: "the text is blank", plugin: "chat", retryable: false } });
  };
  await refuse();
  const [failed] = one.seen.room.pending;
  assert.deepEqual([failed.status, failed.error.code, failed.error.plugin], ["failed", "blank", "chat"]);
  await act(() => failed.retry());
  assert.equal(one.sent("chat_message").length, 2);
  assert.equal(one.seen.room.pending[0].status, "sending");
  await refuse();
  await act(() => one.seen.room.pending[0].discard());
  assert.equal(one.text(), "");
});

test("a gap is marked after the last message before it, and the newest messages follow", async () => {
  const one = await inRoom();
  await one.say(1, "before");
  await one.lose();
  await one.welcome();
  await one.joined({ epoch: "f", offset: 1, recovered: false, reason: "epoch" });
  await one.ack("history", { history: { hasOlder: false, messages: [{ type: "chat_message", payload: { text: "after" }, room: "r", offset: 1 }] } });
  await one.say(2, "live");
  assert.equal(one.text(), "before|epoch| after live ");
});

test("a gap that the history fills is none", async () => {
  const one = await inRoom();
  await one.say(1, "n1");
  await one.frame({ type: "joined", payload: { room: "r", epoch: "e", offset: 3, recovered: false, reason: "too_many" } });
  assert.equal(one.text(), "n1|too_many| ");
  const messages = [1, 2, 3].map((offset) => ({ type: "chat_message", payload: { text: `n${offset}` }, room: "r", offset }));
  await one.ack("history", { history: { hasOlder: false, messages } });
  assert.equal(one.text(), "n1 n2 n3 ");
});

test("a room that refuses the client has ended with the reason, and can be joined again", async () => {
  const one = await newPage();
  const [View, seen] = roomView({});
  await one.show(h(View));
  await one.welcome();
  const { id } = one.sent("join")[0];
  await one.frame({ type: "error", payload: { id, code: "forbidden_room", message: "not you", retryable: false } });
  assert.deepEqual([seen.room.status, seen.room.error.code], ["ended", "forbidden_room"]);
  await act(() => seen.room.rejoin());
  await one.joined();
  assert.deepEqual([seen.room.status, seen.room.error], ["joined", undefined]);
});

test("components see the state of the connection, and why it ended", async () => {
  const one = await newPage();
  const View = () => {
    const { state, error } = useConnection();
    return `${state} ${error?.code ?? ""}`;
  };
  await one.show(h(View));
  assert.equal(one.text(), "connecting ");
  await one.welcome();
  assert.equal(one.text(), "connected ");
  await settled(() => one.socket().end(4503, "too fast"));
  assert.equal(one.text(), "closed refused");
  assert.deepEqual(one.errors.map(({ code }) => code), ["refused"]);
});

test("an event reaches the newest callback, from the room that it names", async () => {
  const one = await newPage();
  const seen = [];
  const View = ({ name }) => {
    useEvent("t", ({ payload }) => seen.push(`${name}${payload}`), { room: "r" });
    return name;
  };
  await one.show(h(View, { name: "a" }));
  await one.welcome();
  await one.show(h(View, { name: "b" }));
  await one.frame({ type: "t", payload: 1, room: "r" });
  await one.frame({ type: "t", payload: 2, room: "s" });
  assert.deepEqual(seen, ["b1"]);
});

test("a request is asked once, again with another payload, and again on demand", async () => {
  const one = await newPage();
  let result;
  const View = ({ payload }) => {
    result = useRequest("sum", payload);
    return null;
  };
  await one.show(h(View, { payload: [1, 2] }));
  await one.welcome();
  assert.deepEqual(one.sent("sum").map(({ payload }) => payload), [[1, 2]]);
  assert.equal(result.loading, true);
  await one.ack("sum", { data: 3 });
  assert.deepEqual([result.data, result.loading], [3, false]);
  await one.show(h(View, { payload: [1, 2] }));
  assert.equal(one.sent("sum").length, 1);
  await one.show(h(View, { payload: [2, 2] }));
  await one.ack("sum", { data: 4 });
  assert.equal(result.data, 4);
  await act(() => result.refresh());
  await settled();
  const { id } = one.sent("sum")[2];
  await one.frame({ type: "error", payload: { id, code: "overloaded", message: "no", retryable: false } });
  assert.deepEqual([result.data, result.error.code, result.loading], [4, "overloaded", false]);
});

test("a room token callback is the one of the last render", async () => {
  const one = await newPage();
  const View = ({ token }) => useRoom("r", { token: () => token }).status;
  await one.show(h(View, { token: "t1" }));
  await one.show(h(View, { token: "t2" }));
  await one.welcome();
  assert.deepEqual(one.sent("join").map(({ payload }) => payload), [{ token: "t2" }]);
});

test("a hook without a provider says what is missing", async () => {
  const { renderToString } = await import("react-dom/server");
  assert.throws(() => renderToString(h(() => String(useSignalbox()))), /needs a <SignalboxProvider>/);
});

test("a server renders rooms without joining them", async () => {
  const { renderToString } = await import("react-dom/server");
  const { Signalbox } = await import("@signalbox/client");
  const { SignalboxProvider } = await import("../dist/index.js");
  const client = new Signalbox({ url: "ws://localhost/ws", userId: "ann" });
  const View = () => useRoom("r").status;
  assert.equal(renderToString(h(SignalboxProvider, { client }, h(View))), "joining");
  assert.equal(client.state, "disconnected");
});
