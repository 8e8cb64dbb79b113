// A browser, a real server and pages for tests. `SIGNALBOX` names the server's program; `cargo xtask test --clients` sets it.
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after } from "node:test";

const program = process.env.SIGNALBOX;
const hasDriver = spawnSync("chromedriver", ["--version"]).status === 0;

/** Why tests with a browser cannot run here, or `false`. */
export const skip = !program ? "SIGNALBOX names no server" : !hasDriver && "chromedriver is missing: install Chromium with its driver";

const ended = [];
after(async () => {
  for (const end of ended.reverse()) await end();
});

/** Starts a program. Resolves with the process and all that `pattern` captures in its output. */
async function start(command, args, options, pattern) {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], ...options });
  ended.push(() => child.kill());
  return new Promise((resolve, reject) => {
    const search = (line) => {
      const found = pattern.exec(line);
      if (found) resolve([child, found[1]]);
    };
    for (const input of [child.stdout, child.stderr]) createInterface({ input }).on("line", search);
    child.on("error", reject);
    child.on("close", () => reject(new Error(`${command} ended`)));
  });
}

/** Writes a configuration, and returns a function that starts a server with it. Its result has the address, and `kill`. */
export function serverWith(config) {
  const folder = mkdtempSync(join(tmpdir(), "signalbox-browser-"));
  ended.push(() => rmSync(folder, { recursive: true, force: true }));
  writeFileSync(join(folder, "platform.toml"), config);
  return async () => {
    const options = { cwd: folder, env: { ...process.env, WSS_PORT: "0" } };
    const [child, address] = await start(program, ["run", "--config", "platform.toml"], options, /listening on (\d[\d.]+:\d+)/);
    const kill = async () => {
      const gone = new Promise((resolve) => child.on("exit", resolve));
      child.kill("SIGKILL");
      await gone;
    };
    return { address, kill };
  };
}

/** Serves pages, and returns their URL. `upgrade` gets the requests for WebSockets. */
export async function serve(answer, upgrade) {
  const server = createServer(answer);
  if (upgrade) server.on("upgrade", upgrade);
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  ended.push(() => {
    server.close();
    server.closeAllConnections();
  });
  return `http://127.0.0.1:${server.address().port}/`;
}

/** A session of the browser: a function that sends it a command of WebDriver. */
export async function startBrowser() {
  const [, port] = await start("chromedriver", ["--port=0"], {}, /started successfully on port (\d+)/);
  const call = async (method, path, body) => {
    const response = await fetch(`http://127.0.0.1:${port}/session${path}`, { method, ...(body && { body: JSON.stringify(body) }) });
    const { value } = await response.json();
    if (!response.ok) throw new Error(JSON.stringify(value));
    return value;
  };
  const args = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"];
  const { sessionId } = await call("POST", "", { capabilities: { alwaysMatch: { "goog:chromeOptions": { args } } } });
  // A test may have ended it.
  ended.push(() => call("DELETE", `/${sessionId}`).catch(() => {}));
  await call("POST", `/${sessionId}/timeouts`, { script: 60_000 });
  return (method, path, body) => call(method, `/${sessionId}${path}`, body);
}
