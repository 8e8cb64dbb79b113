// The module that the chat page of `/demo/` uses.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { bundle, bundlePath } from "../bundle.mjs";

test("the demo page has the client of this folder", async () => {
  const isSame = readFileSync(bundlePath, "utf8") === (await bundle());
  assert.ok(isSame, "examples/web-chat/signalbox.js differs from clients/typescript: run `npm run bundle` in clients/typescript");
});
