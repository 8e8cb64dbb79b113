// The globals of JavaScript that the engine leaves out or answers wrongly. They are in place before the plugin's own modules
// are loaded, which happens once, while the component is built: no function of the server can be called then.
import serverContext from "signalbox:plugin/context@1.0.0";
import serverLog from "signalbox:plugin/log@1.0.0";

let loading = true;

/** Lines that were written while the modules were loaded. */
const early = [];

const EARLY_LINES_MAX = 50;

/** From here on the server is there. */
export function loaded() {
  loading = false;
}

/** Writes lines to the server's log; while the modules are loaded, keeps them for the first call. */
export function write(level, text) {
  for (const line of String(text).toWellFormed().trimEnd().split("\n")) {
    if (!loading) serverLog.write(level, line);
    else if (early.length < EARLY_LINES_MAX) early.push([level, line]);
  }
}

/** Writes what was kept. */
export function flush() {
  if (early.length > 0) for (const [level, line] of early.splice(0)) write(level, line);
}

/** What is not there, and what to use instead. */
const MISSING = {
  setTimeout: "there are no timers in a plugin: a call ends when it returns",
  setInterval: "there are no timers in a plugin: a call ends when it returns",
  setImmediate: "there are no timers in a plugin: a call ends when it returns",
  requestAnimationFrame: "there are no timers in a plugin: a call ends when it returns",
  queueMicrotask: "nothing runs in a plugin after its call has returned: call the function instead",
  fetch: "a plugin has no network",
  XMLHttpRequest: "a plugin has no network",
  WebSocket: "a plugin has no network: answer with actions such as signalbox.send",
  EventSource: "a plugin has no network",
  Worker: "a plugin has one thread",
  MessageChannel: "a plugin has one thread",
  structuredClone: "use JSON.parse(JSON.stringify(value))",
  TextEncoder: "use signalbox.bytes(text)",
  TextDecoder: "use signalbox.text(bytes)",
};

/** What programs look for by `typeof`, so that it must stay undefined: said where it is used nevertheless. */
const ABSENT = {
  process: "this is not Node.js: the configuration is the argument of lifecycle.init, and exceptions fail the call",
  require: "this is not Node.js: import what the plugin needs, and esbuild bundles it",
  module: "this is an ES module: use export",
  exports: "this is an ES module: use export",
  global: "use globalThis",
  Buffer: "this is not Node.js: use Uint8Array, signalbox.bytes and signalbox.text",
  window: "this is not a browser",
  document: "this is not a browser",
  navigator: "this is not a browser",
  localStorage: "this is not a browser: use signalbox.store",
  sessionStorage: "this is not a browser: use signalbox.store",
  indexedDB: "this is not a browser: use signalbox.store",
  clearTimeout: MISSING.setTimeout,
  clearInterval: MISSING.setTimeout,
  Intl: "the engine has no tables of languages",
  URL: "there is no URL parser: bundle one from npm",
  URLSearchParams: "there is no URL parser: bundle one from npm",
  AbortController: MISSING.setTimeout,
  Deno: "this is not Deno",
  Bun: "this is not Bun",
};

/** What to use in place of the variable that `error` says is not defined. */
export function instead(error) {
  const [, name] = /^'?([\w$]+)'? is not defined$/.exec(error.message) ?? [];
  return name !== undefined && Object.hasOwn(ABSENT, name) ? ABSENT[name] : undefined;
}

const missing = (name, advice) => {
  throw new Error(`${name} is not available: ${advice}`);
};

const define = (target, name, value) =>
  Object.defineProperty(target, name, { value, writable: true, configurable: true, enumerable: false });

for (const [name, advice] of Object.entries(MISSING)) {
  define(globalThis, name, function () {
    missing(name, advice);
  });
}

// ---- Promises: nobody waits for one, so what is chained to it would never happen, or happen after the answer.

const nativeThen = Promise.prototype.then;
define(Promise.prototype, "then", function then(...reactions) {
  if (loading) return nativeThen.apply(this, reactions);
  return missing("Promise.then", "nothing waits for a promise in a plugin: call functions that return their result");
});

// ---- The clock of the server.

const NativeDate = Date;
const now = () => (loading ? NativeDate.now() : serverContext.now());

function ServerDate(...parts) {
  if (new.target === undefined) return new NativeDate(now()).toString();
  return Reflect.construct(NativeDate, parts.length === 0 ? [now()] : parts, new.target);
}
for (const name of ["parse", "UTC"]) define(ServerDate, name, NativeDate[name]);
define(ServerDate, "now", now);
Object.defineProperty(ServerDate, "name", { value: "Date" });
Object.defineProperty(ServerDate, "length", { value: 7 });
Object.defineProperty(ServerDate, "prototype", { value: NativeDate.prototype, writable: false });
define(NativeDate.prototype, "constructor", ServerDate);
define(globalThis, "Date", ServerDate);

let origin;
const since = () => {
  if (loading) return 0;
  origin ??= now();
  return now() - origin;
};
define(globalThis, "performance", {
  now: since,
  get timeOrigin() {
    since();
    return origin ?? 0;
  },
  mark: () => missing("performance.mark", "take the difference of two performance.now()"),
  measure: () => missing("performance.measure", "take the difference of two performance.now()"),
});

// ---- Random numbers: those of the engine are the same in every instance.

const nativeRandom = Math.random;
define(Math, "random", () => {
  if (loading) return nativeRandom();
  return ((serverContext.random() >>> 5) * 2 ** 26 + (serverContext.random() >>> 6)) / 2 ** 53;
});

function getRandomValues(array) {
  if (loading) missing("crypto.getRandomValues", "nothing is random while the component is built: call it in a call");
  const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  for (let at = 0; at < bytes.length; at += 4) {
    const random = serverContext.random();
    for (let i = 0; i < 4 && at + i < bytes.length; i++) bytes[at + i] = (random >>> (8 * i)) & 0xff;
  }
  return array;
}

function randomUUID() {
  const bytes = getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

define(globalThis, "crypto", {
  getRandomValues,
  randomUUID,
  get subtle() {
    return missing("crypto.subtle", "it answers with promises: bundle a library that returns its result");
  },
});

// ---- console, which is the server's log.

/** A value as people read it. */
export function shown(value) {
  if (typeof value === "string") return value;
  if (value instanceof Error) return `${value.name}: ${value.message}`;
  if (typeof value === "function") return `[function ${value.name || "without a name"}]`;
  if (typeof value === "bigint") return `${value}n`;
  if (value instanceof Map || value instanceof Set) return `${value.constructor.name} ${shown([...value])}`;
  if (typeof value !== "object" || value === null) return String(value);
  try {
    return JSON.stringify(value) ?? Object.prototype.toString.call(value);
  } catch {
    return Object.prototype.toString.call(value);
  }
}

/** Values as one text, with the %s, %d, %i, %f, %j, %o and %O of a first text filled in. */
function formatted([first, ...rest]) {
  if (first instanceof Error && first.stack) rest.push(`\n${first.stack}`);
  if (typeof first !== "string") return [first, ...rest].map(shown).join(" ");
  const text = first.replace(/%([sdifjoOc%])/g, (directive, kind) => {
    if (kind === "%") return "%";
    if (rest.length === 0) return directive;
    const value = rest.shift();
    if (kind === "c") return "";
    if (kind === "d" || kind === "f") return String(Number(value));
    return kind === "i" ? String(Math.trunc(Number(value))) : shown(value);
  });
  return [text, ...rest.map(shown)].join(" ");
}

const printer =
  (level) =>
  (...values) => {
    if (values.length > 0) write(level, formatted(values));
  };
const counts = new Map();
const timers = new Map();
const elapsed = (label = "default") => `${label}: ${now() - (timers.get(label) ?? now())} ms`;

define(globalThis, "console", {
  debug: printer("debug"),
  log: printer("info"),
  info: printer("info"),
  dir: (value) => write("info", shown(value)),
  table: printer("info"),
  group: printer("info"),
  groupCollapsed: printer("info"),
  groupEnd() {},
  warn: printer("warn"),
  error: printer("error"),
  trace: (...values) => write("debug", `${formatted(["Trace:", ...values])}\n${new Error().stack}`),
  assert(condition, ...values) {
    if (!condition) write("error", formatted(["Assertion failed:", ...values]));
  },
  count(label = "default") {
    counts.set(label, (counts.get(label) ?? 0) + 1);
    write("info", `${label}: ${counts.get(label)}`);
  },
  countReset: (label = "default") => void counts.delete(label),
  time: (label = "default") => void timers.set(label, now()),
  timeLog: (label) => write("info", elapsed(label)),
  timeEnd(label = "default") {
    write("info", elapsed(label));
    timers.delete(label);
  },
});
