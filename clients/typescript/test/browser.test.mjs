// Two pages of a real browser talk through a real server.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { serve, serverWith, skip, startBrowser } from "./browser.mjs";

const CONFIG = '[server]\nallowed_origins = ["*"]\n[events]\nclient = ["*"]\n';

/** Serves a page that has the client. */
function servePage() {
  const page = '<!doctype html><script type="module">import * as all from "/dist/index.js"; Object.assign(window, all);</script>';
  return serve((request, response) => {
    const isScript = /^\/dist\/[a-z]+\.js$/.test(request.url);
    response.setHeader("Content-Type", isScript ? "text/javascript" : "text/html");
    response.end(isScript ? readFileSync(new URL(`..${request.url}`, import.meta.url)) : page);
  });
}

test("two pages of a browser chat, and a refusal has its reason", { skip }, async () => {
  const [{ address }, url, browser] = [await serverWith(CONFIG)(), await servePage(), await startBrowser()];
  const pages = [await browser("GET", "/window"), (await browser("POST", "/window/new", { type: "tab" })).handle];
  /** Runs the body of an async function in a page, which gets the server's URL as `url`. */
  const run = async (page, body) => {
    await browser("POST", "/window", { handle: pages[page] });
    const script = `const [url, done] = arguments; (async () => { ${body} })().then(done, (error) => done(String(error)));`;
    return browser("POST", "/execute/async", { script, args: [`ws://${address}/ws`] });
  };
  const connect = (user) => `
    window.client = new Signalbox({ url, userId: "${user}" });
    window.messages = [];
    client.on("chat_message", ({ senderId, payload }) => messages.push([senderId, payload.text]));
    client.connect();
    window.room = client.join("r");
    await room.joined;
    return client.state;`;
  for (const [page, user] of [[0, "ann"], [1, "bob"]]) {
    await browser("POST", "/window", { handle: pages[page] });
    await browser("POST", "/url", { url });
    assert.equal(await run(page, connect(user)), "connected");
  }
  const say = 'return (await room.send("chat_message", { text: "hello from " + location.pathname })).status;';
  assert.equal(await run(0, say), "delivered");
  assert.equal(await run(1, say), "delivered");
  const heard = "while (messages.length < 2) await new Promise((next) => setTimeout(next, 10)); return messages;";
  const expected = [["ann", "hello from /"], ["bob", "hello from /"]];
  assert.deepEqual(await run(0, heard), expected);
  assert.deepEqual(await run(1, heard), expected);
  const refused = `
    const stranger = new Signalbox({ url });
    const error = new Promise((resolve) => stranger.on("error", resolve));
    stranger.connect();
    const { code, closeCode, message } = await error;
    return [code, closeCode, typeof message, stranger.state];`;
  assert.deepEqual(await run(0, refused), ["unauthorized", 4504, "string", "closed"]);
});
