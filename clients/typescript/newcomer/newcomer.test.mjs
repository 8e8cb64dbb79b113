// The path of a newcomer: a new Vite project, the package that npm packs, the first lines of the README, and two tabs that chat.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { extname, join } from "node:path";
import { test } from "node:test";
import { serve, serverWith, skip, startBrowser } from "../test/browser.mjs";

/** Visits with an empty cache, each in a new browser. */
const VISITS = Number(process.env.TEST_VISITS ?? 3);

const CONFIG = `
[server]
allowed_origins = ["*"]
[events]
client = ["*"]
[[rooms]]
match = "*"
history = { size = 100, time = "1h" }
`;

const TYPES = { ".css": "text/css", ".html": "text/html", ".js": "text/javascript" };

/** Notes what the page prints, and when the client was connected, in milliseconds since the navigation began. */
const PAGE = `<!doctype html>
<meta charset="utf-8">
<script>
  window.printed = [];
  const { log, error } = console;
  for (const [name, print] of Object.entries({ log, error })) {
    console[name] = (...words) => {
      if (words[0] === "connected") window.connectedMs ??= performance.now();
      window.printed.push(words);
      print(...words);
    };
  }
</script>
<script type="module" src="/main.ts"></script>
`;

const client = new URL("..", import.meta.url).pathname;
const target = new URL("../../../target", import.meta.url).pathname;

/** The program in the README, for a server at this URL and the user that the page's address names. */
function program(url) {
  const readme = readFileSync(join(client, "README.md"), "utf8");
  const [, code] = /```ts\n(.*?)```/s.exec(readme);
  const adapted = [['"ws://127.0.0.1:8080/ws"', JSON.stringify(url)], ['"ann"', "location.hash.slice(1)"]].reduce((text, [from, to]) => {
    assert.ok(text.includes(from), `the README has no ${from} to replace`);
    return text.replace(from, to);
  }, code);
  assert.ok(code.trim().split("\n").length <= 10, "it has at most ten lines");
  return adapted;
}

/** Builds the project in `folder`, and returns the folder of the built page. */
function build(folder, url) {
  const npm = (cwd, ...words) => execFileSync("npm", words, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
  const [{ filename }] = JSON.parse(npm(client, "pack", "--json", "--pack-destination", folder));
  // As `npm ci` leaves it, so that nothing is downloaded here.
  for (const name of ["package.json", "package-lock.json", "node_modules"]) {
    cpSync(new URL(name, import.meta.url), join(folder, name), { recursive: true, verbatimSymlinks: true });
  }
  npm(folder, "install", "--offline", "--ignore-scripts", "--no-audit", "--no-fund", `./${filename}`);
  writeFileSync(join(folder, "index.html"), PAGE);
  writeFileSync(join(folder, "main.ts"), program(url));
  npm(folder, "exec", "--", "vite", "build", "--logLevel", "warn");
  return join(folder, "dist");
}

/** Serves a built page. */
function servePage(folder) {
  return serve((request, response) => {
    const { pathname } = new URL(request.url, "http://page");
    const path = pathname === "/" ? "/index.html" : pathname;
    response.setHeader("Content-Type", TYPES[extname(path)] ?? "application/octet-stream");
    try {
      response.end(readFileSync(join(folder, path)));
    } catch {
      response.writeHead(404).end();
    }
  });
}

/** Waits in the present page until the script returns something. */
async function until(browser, script) {
  const end = Date.now() + 60_000;
  for (;;) {
    const value = await browser("POST", "/execute/sync", { script: `return ${script}`, args: [] });
    if (value) return value;
    const printed = await browser("POST", "/execute/sync", { script: "return JSON.stringify(window.printed)", args: [] });
    assert.ok(Date.now() < end, `not yet: ${script}; the page printed ${printed}`);
    await new Promise((next) => setTimeout(next, 20));
  }
}

const heard = (from) => `printed.some(([sender, payload]) => sender === "${from}" && payload.text === "hello")`;

test("the first lines of the README chat in a new Vite project", { skip }, async () => {
  const { address } = await serverWith(CONFIG)();
  mkdirSync(target, { recursive: true });
  const folder = mkdtempSync(join(target, "newcomer-"));
  try {
    const page = await servePage(build(folder, `ws://${address}/ws`));
    const browser = await startBrowser();
    const ann = await browser("GET", "/window");
    const bob = (await browser("POST", "/window/new", { type: "tab" })).handle;
    for (const [handle, user] of [[ann, "ann"], [bob, "bob"]]) {
      await browser("POST", "/window", { handle });
      await browser("POST", "/url", { url: `${page}#${user}` });
      await until(browser, heard(user));
    }
    await until(browser, heard("ann"));
    await browser("POST", "/window", { handle: ann });
    await until(browser, heard("bob"));
    assert.deepEqual(await until(browser, "printed.slice(0, 2)"), [["connecting", ""], ["connected", ""]]);
    await browser("DELETE", "");

    const times = [];
    for (let visit = 0; visit < VISITS; visit++) {
      const fresh = await startBrowser();
      await fresh("POST", "/url", { url: `${page}#visitor${visit}` });
      times.push(await until(fresh, "window.connectedMs"));
      await fresh("DELETE", "");
    }
    times.sort((a, b) => a - b);
    const [least, median, most] = [times[0], times[times.length >> 1], times.at(-1)].map((ms) => ms.toFixed(0));
    console.log(`first visit, from the navigation to connected: median ${median} ms (${least} to ${most} ms in ${VISITS} visits)`);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
