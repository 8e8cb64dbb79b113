// The driver of the conformance cases: see clients/conformance/README.md.
import { createInterface } from "node:readline";
import WebSocket from "ws";
import { Signalbox } from "../dist/index.js";
import { sse } from "../dist/sse.js";

const print = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
const event = (name, fields) => print({ event: name, ...fields });

let client;
const rooms = new Map();

/** The answers of a token callback, in order; null fails, and the last one repeats. `room` is that of a room token. */
function answersOf(tokens, room) {
  let next = 0;
  return async () => {
    event("token", { room });
    const token = tokens[Math.min(next++, tokens.length - 1)];
    if (token === null) throw new Error("no token");
    if (token === "final") throw Object.assign(new Error("signed out"), { final: true });
    return token;
  };
}

function open({ url, userId, token, tokens, options: { fallback, ...options } = {} }) {
  const credentials = { ...(userId && { userId }), ...(token && { token }), ...(tokens && { token: answersOf(tokens) }) };
  client = new Signalbox({ url, ...credentials, WebSocket, ...options, ...(fallback && { fallback: sse }) });
  client.on("state", (change) => event("state", change));
  client.on("message", ({ type, payload, senderId, room, offset }) => event("message", { type, payload, sender: senderId, room, offset }));
  client.on("recovered", ({ recovered, reason }) => event("recovered", { recovered, reason }));
  client.on("error", ({ code }) => event("error", { code }));
  client.connect();
  return null;
}

async function join({ room: name, last, presence, token, tokens }) {
  const room = client.join(name, {
    ...(last !== undefined && { last }),
    ...(presence !== undefined && { presence }),
    ...(token !== undefined && { token }),
    ...(tokens && { token: answersOf(tokens, name) }),
  });
  if (rooms.get(name) !== room) {
    rooms.set(name, room);
    room.on("recovered", ({ recovered, reason }) => event("recovered", { room: name, recovered, reason }));
    room.on("presence", ({ total }) => event("presence", { room: name, total, members: membersOf(room) }));
    room.on("left", ({ code }) => event("left", { room: name, code }));
  }
  const { recovered } = await room.joined;
  return { recovered: recovered ?? null };
}

const membersOf = (room) => room.members?.map(({ userId }) => userId).sort() ?? null;

const commands = {
  open,
  connect: () => client.connect(),
  close: () => client.close(),
  join,
  leave: ({ room }) => rooms.get(room)?.leave(),
  send: ({ type, payload, room, to, once }) => client.send(type, payload, { room, to, once }),
  request: ({ type, payload }) => client.request(type, payload),
  history: async ({ room, before, limit }) => {
    const { messages, hasOlder } = await rooms.get(room).history({ before, limit });
    return { messages: messages.map(({ offset }) => offset), hasOlder };
  },
  presence: ({ room }) => ({ total: rooms.get(room)?.total ?? null, members: membersOf(rooms.get(room)) }),
  state: () => ({ state: client.state, rooms: [...client.rooms].sort(), queued: client.queued }),
};

async function answer({ n, do: name, ...fields }) {
  try {
    print({ n, ok: (await commands[name](fields)) ?? null });
  } catch ({ code = "unknown", retryable = false, plugin, message }) {
    print({ n, error: { code, retryable, plugin, message } });
  }
}

const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => void answer(JSON.parse(line)));
// Without a client that holds something the process ends by itself.
lines.on("close", () => client?.close());
