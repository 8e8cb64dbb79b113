import assert from "node:assert/strict";
import { test } from "node:test";
import { backoffMs } from "../dist/backoff.js";
import { parseFrame } from "../dist/frames.js";
import { placeOf, positionOf } from "../dist/position.js";
import { PresenceList } from "../dist/presence.js";
import { waitOf } from "../dist/socket.js";
import { verdict } from "../dist/verdict.js";

test("a wait is between 0 and a bound that doubles up to its own bound", () => {
  const bounds = { minMs: 500, maxMs: 20_000 };
  const most = (attempt) => backoffMs(attempt, bounds, () => 1);
  assert.deepEqual([0, 1, 2, 5, 6, 2000].map(most), [500, 1000, 2000, 16_000, 20_000, 20_000]);
  assert.equal(backoffMs(3, bounds, () => 0), 0);
});

test("the table of close codes and statuses decides what follows", () => {
  const of = (field, values) => new Set(values.map((value) => verdict({ [field]: value })));
  assert.deepEqual(of("code", [4500, 4504]), new Set(["renew"]));
  assert.deepEqual(of("status", [401]), new Set(["renew"]));
  assert.deepEqual(of("code", [1002, 1003, 1007, 1008, 1009, 1010, 4501, 4502, 4503, 4505, 4506, 4999]), new Set(["close"]));
  assert.deepEqual(of("status", [400, 403, 404, 405, 410, 426]), new Set(["close"]));
  assert.deepEqual(of("code", [undefined, 1000, 1001, 1011, 1012, 3000, 4000, 4499]), new Set(["reconnect"]));
  assert.deepEqual(of("status", [200, 302, 429, 500, 502, 503]), new Set(["reconnect"]));
  assert.equal(verdict({ unsupported: true }), "close");
});

test("only an object with a type is a frame", () => {
  for (const text of ["", "x", "[]", "null", "1", "{}", '{"type":1}', '{"type":"t","room":1}', '{"type":"t","offset":"1"}']) {
    assert.equal(parseFrame(text), undefined, text);
  }
  assert.deepEqual(parseFrame('{"type":"t","x":1}'), { type: "t", x: 1 });
});

test("old messages that follow count for the position", () => {
  assert.deepEqual(positionOf({ epoch: "e", offset: 9, recovered: true, count: 3 }), { epoch: "e", offset: 6 });
  assert.deepEqual(positionOf({ epoch: "e", offset: 9, recovered: false, reason: "epoch" }), { epoch: "e", offset: 9 });
  assert.equal(positionOf({}), undefined);
  const position = { epoch: "e", offset: 6 };
  assert.deepEqual([5, 6, 7, 8].map((offset) => placeOf(offset, position)), ["repetition", "repetition", "next", "gap"]);
});

test("presence is one list of users, unknown if there are too many", () => {
  const list = new PresenceList();
  const user = (userId) => ({ userId, connections: 1 });
  const names = () => list.members?.map(({ userId }) => userId);
  list.apply({ room: "r", total: 2, members: [user("ann"), user("bob")] });
  list.apply({ room: "r", total: 2, joined: [user("eve")], left: ["ann"] });
  assert.deepEqual([names(), list.total], [["bob", "eve"], 2]);
  list.apply({ room: "r", total: 2000 });
  assert.deepEqual([names(), list.total], [undefined, 2000]);
  list.apply({ room: "r", total: 2001, joined: [user("x")] });
  assert.deepEqual([names(), list.total], [undefined, 2001]);
  list.apply({ room: "r", total: 1, members: [user("x")] });
  assert.deepEqual([names(), list.total], [["x"], 1]);
});

test("Retry-After is seconds or a date, and at most a minute", () => {
  const now = Date.parse("2026-01-31T12:00:00Z");
  assert.equal(waitOf("2", now), 2000);
  assert.equal(waitOf("3600", now), 60_000);
  assert.equal(waitOf("Sat, 31 Jan 2026 12:00:05 GMT", now), 5000);
  assert.equal(waitOf("Sat, 31 Jan 2026 11:00:00 GMT", now), 0);
  assert.equal(waitOf("soon", now), undefined);
  assert.equal(waitOf(undefined, now), undefined);
});
