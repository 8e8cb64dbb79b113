// Two tabs of a real browser chat through a real server, which is killed and comes back.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { extname } from "node:path";
import { test } from "node:test";
import { Signalbox } from "@signalbox/client";
import { WebSocket } from "../../../clients/typescript/node_modules/ws/wrapper.mjs";
import { serve, serverWith, skip, startBrowser } from "../../../clients/typescript/test/browser.mjs";

const CONFIG = `
[server]
trace_plugins = true
[events]
client = ["*"]
[[rooms]]
match = "*"
history = { size = 100, time = "1h" }
presence = true
`;

const TYPES = { ".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml" };

/** Serves the built page, and passes WebSockets on to the address of `server`, as a proxy in front of both does. */
function servePage(server) {
  const answer = (request, response) => {
    const { pathname } = new URL(request.url, "http://page");
    const path = pathname === "/" ? "/index.html" : pathname;
    response.setHeader("Content-Type", TYPES[extname(path)] ?? "application/octet-stream");
    response.end(readFileSync(new URL(`../dist${path}`, import.meta.url)));
  };
  const upgrade = (request, socket) => {
    const [host, port] = server.address.split(":");
    const upstream = connect(Number(port), host, () => {
      const lines = [`GET ${request.url} HTTP/1.1`];
      for (let n = 0; n < request.rawHeaders.length; n += 2) lines.push(`${request.rawHeaders[n]}: ${request.rawHeaders[n + 1]}`);
      upstream.write(`${lines.join("\r\n")}\r\n\r\n`);
      socket.pipe(upstream).pipe(socket);
    });
    const end = () => [socket, upstream].forEach((one) => one.destroy());
    for (const one of [socket, upstream]) one.on("error", end).on("close", end);
  };
  return serve(answer, upgrade);
}

/** A tab of the browser in which `user` chats. */
async function openTab(browser, url, user, isFirst) {
  const handle = isFirst ? await browser("GET", "/window") : (await browser("POST", "/window/new", { type: "tab" })).handle;
  const at = async (method, path, body) => {
    await browser("POST", "/window", { handle });
    return browser(method, path, body);
  };
  const run = (script) => at("POST", "/execute/sync", { script, args: [] });
  const tab = {
    run,
    async write(selector, text) {
      const found = await at("POST", "/element", { using: "css selector", value: selector });
      await browser("POST", `/element/${Object.values(found)[0]}/value`, { text: `${text}\uE007` });
    },
    lines: () => run('return [...document.querySelectorAll(".message .what")].map((line) => line.textContent)'),
    pending: () => run('return document.querySelectorAll(".pending").length'),
    text: (selector) => run(`return document.querySelector(${JSON.stringify(selector)})?.textContent ?? ""`),
  };
  await at("POST", "/url", { url: `${url}?name=${user}&debug` });
  return tab;
}

/** Waits until `read` returns something for which `isDone`. */
async function until(read, isDone) {
  const end = Date.now() + 60_000;
  for (;;) {
    const value = await read();
    if (isDone(value)) return value;
    assert.ok(Date.now() < end, `it is still ${JSON.stringify(value)}`);
    await new Promise((next) => setTimeout(next, 50));
  }
}

const untilLines = (tab, ...last) =>
  until(tab.lines, (lines) => JSON.stringify(lines.slice(-last.length)) === JSON.stringify(last));

const figure = (tab, name) =>
  tab.run(`return [...document.querySelectorAll(".debug div")].find((one) => one.firstChild.textContent === "${name}").lastChild.textContent`);

test("two tabs chat, scroll back, and have each line once after the server was killed", { skip }, async (context) => {
  const startServer = serverWith(CONFIG);
  const server = await startServer();
  const url = await servePage(server);
  const eve = new Signalbox({ url: `ws://${server.address}/ws`, userId: "eve", WebSocket });
  context.after(() => eve.close());
  eve.connect();
  const room = eve.join("lobby");
  for (let n = 1; n <= 60; n++) await room.send("chat_message", { text: `line ${n}` });

  const browser = await startBrowser();
  const ann = await openTab(browser, url, "ann", true);
  const bob = await openTab(browser, url, "bob", false);
  await untilLines(ann, "line 59", "line 60");
  assert.equal((await ann.lines()).length, 30);
  await ann.run('document.querySelector(".messages").scrollTop = 0');
  await until(ann.lines, (lines) => lines.length === 60 && lines[0] === "line 1");
  await until(() => ann.text(".members summary"), (text) => text === "3 here");

  await ann.write("#composer", "hello bob");
  await untilLines(bob, "line 60", "hello bob");
  await bob.write("#new-room", "elsewhere");
  await until(() => bob.text("#thread-title"), (text) => text === "#elsewhere");
  await ann.write("#composer", "are you there?");
  await until(() => bob.text(".unread"), (text) => text === "1 unread");
  await bob.run('document.querySelector(".room").click()');
  await untilLines(bob, "hello bob", "are you there?");
  await until(() => bob.text(".unread"), (text) => text === "");
  await until(ann.pending, (pending) => pending === 0);
  eve.close();

  await server.kill();
  await until(() => ann.text(".banner"), (text) => text.includes("Messages wait"));
  await ann.write("#composer", "said without a server");
  await until(ann.pending, (pending) => pending === 1);
  Object.assign(server, await startServer());
  for (const tab of [ann, bob]) {
    await untilLines(tab, "are you there?", "said without a server");
    await until(() => tab.text(".gap"), (text) => text.includes("may be missing"));
    const lines = await tab.lines();
    assert.equal(new Set(lines).size, lines.length, "each line is there once");
  }
  await bob.write("#composer", "welcome back");
  await untilLines(ann, "said without a server", "welcome back");
  assert.equal(await ann.pending(), 0);
  assert.equal(await figure(ann, "Reconnects"), "1");
  assert.equal(await figure(ann, "Gaps"), "1");
  await server.kill();
});
