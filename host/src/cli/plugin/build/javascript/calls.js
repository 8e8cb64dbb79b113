// What stands between the server and the functions that a plugin exports: it says in the log why a call fails, which the
// server cannot see, and fails those whose answer would otherwise be taken for one that it is not.
import { flush, instead, shown, write } from "./globals.js";

/** Kinds of functions whose answer comes later, or never. */
const LATER = {
  "[object AsyncFunction]": "is async",
  "[object GeneratorFunction]": "is a generator",
  "[object AsyncGeneratorFunction]": "is an async generator",
};

const NOBODY_WAITS =
  "and nobody waits for it: the answer must be there when the function returns. Remove `async` and `await`, and call functions that return their result";

const isObject = (value) => typeof value === "object" && value !== null;
const isText = (value) => typeof value === "string";

// What a function must return, or else what is wrong with it.

/** Nothing: another value is a refusal that its author believes in, and that nobody would look at. */
const accepts = (value) =>
  value === undefined ? undefined : "must return nothing; refuse with signalbox.reject(code, reason), or throw { code, reason }";
const anything = () => undefined;
const outcome = (value) =>
  isObject(value) && ["unchanged", "changed", "dropped"].includes(value.tag)
    ? undefined
    : "must return an outcome: signalbox.unchanged, signalbox.dropped, signalbox.changed(draft) or signalbox.withPayload(message, value)";
const actions = (value) =>
  Array.isArray(value) && value.every(isObject) ? undefined : "must return a list of actions, such as [signalbox.deliver], or []";
const texts = (value) => (Array.isArray(value) && value.every(isText) ? undefined : "must return a list of texts");
const reply = (value) =>
  isObject(value) && isText(value.data) && actions(value.actions) === undefined
    ? undefined
    : "must return a reply: signalbox.answer(data) or signalbox.answer(data, actions)";
const snapshot = (value) =>
  isObject(value) && Number.isInteger(value.format) && value.data instanceof Uint8Array
    ? undefined
    : "must return { format, data }, a whole number and a Uint8Array";

// How a function says no.

/** By an object with a code and a reason, which the client is told. */
const rejection = (thrown) =>
  isObject(thrown) && isText(thrown.code) && isText(thrown.reason)
    ? { code: thrown.code, reason: thrown.reason.toWellFormed() }
    : undefined;
/** By a text, which the operator is told. */
const reason = (thrown, name) => {
  if (isText(thrown)) return thrown.toWellFormed();
  report(name, thrown);
  return `${name} threw ${shown(thrown)}`.toWellFormed();
};
/** Not at all. */
const never = () => undefined;

const INTERFACES = {
  validation: { validate: [accepts, rejection] },
  transformation: { transform: [outcome, rejection] },
  screening: { screen: [outcome, rejection] },
  events: { eventTypes: [texts, never], handle: [actions, rejection] },
  requests: { requestTypes: [texts, never], respond: [reply, rejection] },
  connections: { connected: [actions, rejection], disconnected: [actions, never] },
  rooms: { authorizeJoin: [accepts, rejection] },
  membership: { joined: [actions, never], left: [actions, never] },
  lifecycle: { init: [anything, reason], selfTest: [anything, reason] },
  handover: { save: [snapshot, reason], restore: [anything, reason] },
};

/** The refusals for errors of `store` and of `room-state`, in the same words as in other languages. */
const STORE_ERRORS = {
  "too-large": ["store_full", "there is no room to keep this"],
  "not-a-number": ["store_value", "what is kept is not a number"],
  "too-many-calls": ["store_calls", "this needs too many calls to the store"],
  unavailable: ["store_unavailable", "the store does not answer; try again"],
};
const ROOM_ERRORS = {
  "switched-off": ["room_switched_off", "this room does not keep what this needs"],
  invalid: ["room_invalid", "there is no such room"],
  "too-many-calls": ["room_calls", "this needs too many calls to the server"],
  unavailable: ["room_unavailable", "the room cannot be read; try again"],
};

/** The two interfaces have errors with the same name, which only the SDK tells apart, by `name`. */
const ofServer = (thrown) => {
  if (!(thrown instanceof Error)) return undefined;
  const tables = thrown.name === "RoomError" ? [ROOM_ERRORS] : [STORE_ERRORS, ROOM_ERRORS];
  const table = tables.find((errors) => Object.hasOwn(errors, thrown.payload));
  if (table === undefined) return undefined;
  const [code, reason] = table[thrown.payload];
  return { code, reason };
};

/** Writes an exception to the log, line by line: a line has an end. */
function report(name, thrown) {
  if (!(thrown instanceof Error)) {
    const kind = thrown === null ? "null" : Array.isArray(thrown) ? "a list" : typeof thrown;
    write("error", `${name} threw ${isText(thrown) ? JSON.stringify(thrown) : shown(thrown)} (${kind}), which is neither an Error nor { code, reason }`);
    return;
  }
  const advice = thrown instanceof ReferenceError ? instead(thrown) : undefined;
  write("error", `${name}: ${shown(thrown)}${advice === undefined ? "" : `: ${advice}`}`);
  write("error", thrown.stack ?? "");
}

/** Ends a call without an answer, with the reason in the log. */
function fail(text) {
  write("error", text);
  throw new Error(text);
}

const isPromise = (value) => (isObject(value) || typeof value === "function") && typeof value.then === "function";
const isIterator = (value) => isObject(value) && !Array.isArray(value) && typeof value.next === "function";

function guarded(name, owner, original, [check, refusal]) {
  return (...values) => {
    flush();
    let answer;
    try {
      answer = original.apply(owner, values);
    } catch (thrown) {
      const refused = refusal(thrown, name) ?? (refusal === rejection ? ofServer(thrown) : undefined);
      if (refused !== undefined) throw refused;
      report(name, thrown);
      throw thrown instanceof Error ? thrown : new Error(`${name} threw ${shown(thrown)}`);
    }
    const problem = isPromise(answer)
      ? `returned a promise, ${NOBODY_WAITS}`
      : isIterator(answer)
        ? `returned an iterator, ${NOBODY_WAITS}`
        : wrong(check(answer), answer);
    if (problem === undefined) return answer;
    if (refusal === reason) throw `${name} ${problem}`;
    return fail(`${name} ${problem}`);
  };
}

const wrong = (problem, answer) => (problem === undefined ? undefined : `returned ${shown(answer)}, and ${problem}`);

/**
 * The functions of an interface as the server calls them. While the component is built, a function that is missing, or whose
 * answer comes later, ends the build.
 */
export function wrapped(plugin, name, listed) {
  const functions = plugin[name];
  if (!isObject(functions) && typeof functions !== "function") {
    throw new Error(`the plugin exports no \`${name}\`, and wit/plugin.wit lists \`${listed}\``);
  }
  const result = {};
  const known = INTERFACES[name] ?? Object.fromEntries(Object.keys(functions).map((key) => [key, [anything, never]]));
  for (const [key, rules] of Object.entries(known)) {
    const original = functions[key];
    if (typeof original !== "function") throw new Error(`\`${name}\` has no function \`${key}\``);
    const later = LATER[Object.prototype.toString.call(original)];
    if (later !== undefined) throw new Error(`${name}.${key} ${later}, ${NOBODY_WAITS}`);
    result[key] = guarded(`${name}.${key}`, functions, original, rules);
  }
  return result;
}
