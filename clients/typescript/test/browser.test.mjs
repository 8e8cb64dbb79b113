// Two pages of a real browser talk through a real server.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { request as forward } from "node:http";
import { serve, serverWith, skip, startBrowser } from "./browser.mjs";

const CONFIG = '[server]\nallowed_origins = ["*"]\n[events]\nclient = ["*"]\n';

/** Serves a page that has the client. */
function servePage() {
  const modules = 'import * as all from "/dist/index.js"; import { sse } from "/dist/sse.js"; Object.assign(window, all, { sse });';
  const page = `<!doctype html><script type="module">${modules}</script>`;
  return serve((request, response) => {
    const isScript = /^\/dist\/[a-zA-Z]+\.js$/.test(request.url);
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

/** Serves a proxy in front of a server that refuses upgrades. `streams` has the answers that it passes on, with their sockets. */
async function serveProxy(address) {
  const [host, port] = address.split(":");
  const streams = [];
  const url = await serve(
    (request, response) => {
      const { method, url: path, headers } = request;
      const onward = forward({ host, port, method, path, headers }, (answer) => {
        response.writeHead(answer.statusCode, answer.headers);
        answer.pipe(response);
      });
      if (method === "GET") streams.push(response);
      response.on("close", () => onward.destroy());
      onward.on("error", () => response.destroy());
      request.pipe(onward);
    },
    (_request, socket) => socket.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"),
  );
  return { url: url.replace("http", "ws") + "ws", streams };
}

test("two pages of another origin chat over SSE behind a proxy without WebSockets, and lose nothing with a stream", { skip }, async () => {
  const config = `${CONFIG}[[rooms]]\nmatch = "r"\nhistory = { size = 100, time = "5m" }\n`;
  const { address } = await serverWith(config)();
  const [{ url: proxy, streams }, url, browser] = [await serveProxy(address), await servePage(), await startBrowser()];
  const pages = [await browser("GET", "/window"), (await browser("POST", "/window/new", { type: "tab" })).handle];
  const run = async (page, body) => {
    await browser("POST", "/window", { handle: pages[page] });
    const script = `const [url, done] = arguments; (async () => { ${body} })().then(done, (error) => done(String(error)));`;
    return browser("POST", "/execute/async", { script, args: [proxy] });
  };
  const connect = (user) => `
    window.client = new Signalbox({ url, userId: "${user}", fallback: sse, backoffMinMs: 10, backoffMaxMs: 50 });
    [window.messages, window.transports] = [[], []];
    client.on("state", ({ state, transport }) => state === "connected" && transports.push(transport));
    client.connect();
    window.room = client.join("r");
    room.on("message", ({ payload }) => messages.push(payload));
    await room.joined;
    return transports;`;
  for (const [page, user] of [[0, "ann"], [1, "bob"]]) {
    await browser("POST", "/window", { handle: pages[page] });
    await browser("POST", "/url", { url });
    assert.deepEqual(await run(page, connect(user)), ["sse"]);
  }
  const say = (payload) => `return (await room.send("t", ${payload}, { once: true })).status;`;
  const heard = (count) => `while (messages.length < ${count}) await new Promise((next) => setTimeout(next, 10)); return messages;`;
  assert.equal(await run(0, say(1)), "delivered");
  assert.deepEqual(await run(1, heard(1)), [1]);
  for (const stream of streams.splice(0)) stream.destroy();
  assert.equal(await run(1, say(2)), "delivered");
  assert.deepEqual(await run(0, heard(2)), [1, 2]);
  assert.deepEqual(await run(1, heard(2)), [1, 2]);
  assert.equal(await run(0, "client.close(); return client.state;"), "closed");
});
