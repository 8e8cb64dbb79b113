// Two pages of a real browser talk through a real server. `SIGNALBOX` names the server's program; `cargo xtask test --clients` sets it.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, test } from "node:test";

const program = process.env.SIGNALBOX;
const hasDriver = spawnSync("chromedriver", ["--version"]).status === 0;
const skip = !program ? "SIGNALBOX names no server" : !hasDriver && "chromedriver is missing: install Chromium with its driver";
const ended = [];
after(async () => {
  for (const end of ended.reverse()) await end();
});

/** Starts a program, and returns what `pattern` captures in its output. */
async function start(command, args, options, pattern) {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], ...options });
  ended.push(() => child.kill());
  return new Promise((resolve, reject) => {
    const search = (line) => {
      const found = pattern.exec(line);
      if (found) resolve(found[1]);
    };
    for (const input of [child.stdout, child.stderr]) createInterface({ input }).on("line", search);
    child.on("error", reject);
    child.on("close", () => reject(new Error(`${command} ended`)));
  });
}

async function startServer() {
  const folder = mkdtempSync(join(tmpdir(), "signalbox-browser-"));
  ended.push(() => rmSync(folder, { recursive: true, force: true }));
  writeFileSync(join(folder, "platform.toml"), '[server]\nallowed_origins = ["*"]\n[events]\nclient = ["*"]\n');
  const options = { cwd: folder, env: { ...process.env, WSS_PORT: "0" } };
  return start(program, ["run", "--config", "platform.toml"], options, /listening on (\d[\d.]+:\d+)/);
}

/** Serves a page that has the client, and returns its URL. */
async function servePage() {
  const page = '<!doctype html><script type="module">import * as all from "/dist/index.js"; Object.assign(window, all);</script>';
  const server = createServer((request, response) => {
    const isScript = /^\/dist\/[a-z]+\.js$/.test(request.url);
    response.setHeader("Content-Type", isScript ? "text/javascript" : "text/html");
    response.end(isScript ? readFileSync(new URL(`..${request.url}`, import.meta.url)) : page);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  ended.push(() => server.close());
  return `http://127.0.0.1:${server.address().port}/`;
}

/** A session of the browser. */
async function startBrowser() {
  const port = await start("chromedriver", ["--port=0"], {}, /started successfully on port (\d+)/);
  const call = async (method, path, body) => {
    const response = await fetch(`http://127.0.0.1:${port}/session${path}`, { method, ...(body && { body: JSON.stringify(body) }) });
    const { value } = await response.json();
    if (!response.ok) throw new Error(JSON.stringify(value));
    return value;
  };
  const args = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"];
  const { sessionId } = await call("POST", "", { capabilities: { alwaysMatch: { "goog:chromeOptions": { args } } } });
  ended.push(() => call("DELETE", `/${sessionId}`));
  await call("POST", `/${sessionId}/timeouts`, { script: 60_000 });
  return (method, path, body) => call(method, `/${sessionId}${path}`, body);
}

test("two pages of a browser chat, and a refusal has its reason", { skip }, async () => {
  const [address, url, browser] = [await startServer(), await servePage(), await startBrowser()];
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
