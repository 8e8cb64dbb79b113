// Strict JSON: refuses text that two receivers could read differently.

/** The deepest nesting that the server allows in a payload. */
const LEVELS_MAX = 100;

export function reject(code, reason) {
  throw { code, reason: String(reason).toWellFormed() };
}

const unreadable = (problem) => reject("invalid_payload", `the payload ${problem}`);

export function payload(message) {
  const text = message.payload;
  // The engine's parser has no limit of its own: on deep nesting it ends the call without an error message.
  if (depth(text) > LEVELS_MAX) unreadable(`is nested more than ${LEVELS_MAX} levels deep`);
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    unreadable("is not JSON");
  }
  if (keysOf(value) !== keysIn(text)) unreadable("has an object with the same key twice");
  return value;
}

/** Splits the text at its quotes: pieces with an even index are outside of strings. */
const pieces = (text) => (text.includes("\\") ? text.replace(/\\./gs, "") : text).split('"');

/** The nesting depth of the JSON, or an upper bound of it that is at most LEVELS_MAX. */
function depth(text) {
  const opened = (of) => of.split("[").length + of.split("{").length - 2;
  if (opened(text) <= LEVELS_MAX) return opened(text);
  let [level, deepest] = [0, 0];
  pieces(text).forEach((piece, at) => {
    if (at % 2 === 1) return;
    for (const [bracket] of piece.matchAll(/[[\]{}]/g)) {
      level += bracket === "[" || bracket === "{" ? 1 : -1;
      if (level > deepest) deepest = level;
    }
  });
  return deepest;
}

/** The number of keys in the text, which must be JSON. */
function keysIn(text) {
  if (!text.includes("{")) return 0;
  const parts = pieces(text);
  let keys = 0;
  for (let at = 2; at < parts.length; at += 2) {
    if (parts[at].startsWith(":") || parts[at].trimStart().startsWith(":")) keys += 1;
  }
  return keys;
}

/** The number of keys in a value, including nested ones. Refuses values that not every language can represent. */
function keysOf(value) {
  if (typeof value === "string") {
    if (!value.isWellFormed()) unreadable("has half of a surrogate pair in a text");
    return 0;
  }
  if (typeof value === "number") {
    if (!Number.isFinite(value)) unreadable("has a number that is too large");
    return 0;
  }
  if (typeof value !== "object" || value === null) return 0;
  let keys = 0;
  if (Array.isArray(value)) {
    for (const item of value) keys += keysOf(item);
    return keys;
  }
  for (const key of Object.keys(value)) keys += 1 + keysOf(key) + keysOf(value[key]);
  return keys;
}

/**
 * Encodes a value as JSON text. Half of a surrogate pair, which can result from cutting a string, becomes U+FFFD,
 * because the server would refuse it.
 */
export function json(value) {
  const text = JSON.stringify(value) ?? "null";
  if (!text.includes("\\ud")) return text;
  return text.replace(/\\(?:u(d[89a-f][0-9a-f]{2})|.)/gs, (escape, half) => (half === undefined ? escape : "\ufffd"));
}
