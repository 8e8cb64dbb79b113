// Helpers for plugins that create the values of the interfaces. index.d.ts documents them.
import serverLog from "signalbox:plugin/log@1.0.0";
import serverContext from "signalbox:plugin/context@1.0.0";
import serverStore from "signalbox:plugin/store@1.0.0";
import serverRoomState from "signalbox:plugin/room-state@1.0.0";
import serverMetrics from "signalbox:plugin/metrics@1.0.0";
import { json } from "./payload.js";

export { payload, reject } from "./payload.js";

export const log = {
  debug: (line) => serverLog.write("debug", line),
  info: (line) => serverLog.write("info", line),
  warn: (line) => serverLog.write("warn", line),
  error: (line) => serverLog.write("error", line),
};

/** Kinds of functions that do not return their result. */
const LATER = {
  "[object AsyncFunction]": "is async",
  "[object GeneratorFunction]": "is a generator",
  "[object AsyncGeneratorFunction]": "is an async generator",
};

export function guard(functions) {
  for (const name of namesOf(functions)) {
    const later = LATER[Object.prototype.toString.call(functions[name])];
    if (later !== undefined) {
      throw new Error(`${name} ${later}, and nobody waits for it: it would answer with a promise. Remove \`async\` and \`await\`, and call functions that return their result`);
    }
  }
  return functions;
}

/** The names of an object's functions, including those of its class. */
function namesOf(functions) {
  const names = new Set();
  for (let of = functions; of !== null && of !== Object.prototype; of = Object.getPrototypeOf(of)) {
    for (const name of Object.getOwnPropertyNames(of)) names.add(name);
  }
  return [...names];
}

export const draft = (eventType, destination, value) => ({
  eventType,
  destination,
  payload: json(value),
});

export const sender = { tag: "sender" };
export const everyone = { tag: "everyone" };
export const user = (id) => ({ tag: "user", val: id });
export const room = (name) => ({ tag: "room", val: name });

export const unchanged = { tag: "unchanged" };
export const dropped = { tag: "dropped" };
export const changed = (val) => ({ tag: "changed", val });
export const withPayload = (message, value) => changed(draft(message.eventType, message.destination, value));

export const deliver = { tag: "deliver" };
export const send = (val) => ({ tag: "send", val });
export const announce = (val) => ({ tag: "announce", val });
export const reply = (eventType, value) => announce(draft(eventType, sender, value));
export const join = (name) => ({ tag: "join", val: name });
export const leave = (name) => ({ tag: "leave", val: name });
export const disconnect = (code, reason) => ({ tag: "disconnect", val: { code, reason } });

export const answer = (value, actions = []) => ({ data: json(value), actions });

export const context = {
  currentClient: () => serverContext.currentClient(),
  node: () => serverContext.node(),
  now: () => serverContext.now(),
  // The engine takes 32 bits for a signed integer.
  random: () => serverContext.random() >>> 0,
};

const seconds = (ttl) => ttl ?? null;

export const store = {
  get(key) {
    const value = serverStore.get(key);
    return value === null ? null : text(value);
  },
  set: (key, value, ttl) => serverStore.set(key, bytes(value), seconds(ttl)),
  remove: (key) => serverStore.remove(key),
  increment: (key, by, ttl) => serverStore.increment(key, by, seconds(ttl)),
  compareAndSwap: (key, expected, value, ttl) =>
    serverStore.compareAndSwap(key, expected === null ? null : bytes(expected), bytes(value), seconds(ttl)),
};

// Tells errors about rooms from those of the store, some of which have the same payload.
function asked(question) {
  try {
    return question();
  } catch (error) {
    if (error instanceof Error) error.name = "RoomError";
    throw error;
  }
}

export const roomState = {
  count: (name) => asked(() => serverRoomState.count(name)),
  members: (name) => asked(() => serverRoomState.members(name)),
  history: (name, before, limit) => asked(() => serverRoomState.history(name, before ?? null, limit)),
};

export const metrics = {
  count: (name, by) => serverMetrics.count(name, by),
  observe: (name, value) => serverMetrics.observe(name, value),
};

// Encodes UTF-8 with URI escapes, because QuickJS has no TextEncoder.
export function bytes(value) {
  const escaped = unescape(encodeURIComponent(value));
  return Uint8Array.from(escaped, (character) => character.charCodeAt(0));
}

export function text(value) {
  let escaped = "";
  for (const byte of value) escaped += String.fromCharCode(byte);
  return decodeURIComponent(escape(escaped));
}
