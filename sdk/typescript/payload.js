// JSON as receivers read it: what two of them could read differently is refused.

/** As deep as the server lets a payload be. */
const LEVELS_MAX = 100;

export function reject(code, reason) {
  throw { code, reason: String(reason).toWellFormed() };
}

const unreadable = (problem) => reject("invalid_payload", `the payload ${problem}`);

export function payload(message) {
  const text = message.payload;
  // The parser of the engine has no bound of its own, and ends the call without a word.
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

/** The text without what its strings hold: every second piece between quotes is outside of them. */
const pieces = (text) => (text.includes("\\") ? text.replace(/\\./gs, "") : text).split('"');

/** How many levels the JSON has at most. */
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

/** How many keys stand in the text, which is JSON. */
function keysIn(text) {
  if (!text.includes("{")) return 0;
  const parts = pieces(text);
  let keys = 0;
  for (let at = 2; at < parts.length; at += 2) {
    if (parts[at].startsWith(":") || parts[at].trimStart().startsWith(":")) keys += 1;
  }
  return keys;
}

/** How many keys a value has, with those of the values in it. Ends where it has something that not every language can hold. */
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

/** A value as JSON text. Half of a surrogate pair, which is left where a text is cut, becomes U+FFFD: no server takes it. */
export function json(value) {
  const text = JSON.stringify(value) ?? "null";
  if (!text.includes("\\ud")) return text;
  return text.replace(/\\(?:u(d[89a-f][0-9a-f]{2})|.)/gs, (escape, half) => (half === undefined ? escape : "\ufffd"));
}
