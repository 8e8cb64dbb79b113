import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const root = new URL("..", import.meta.url).pathname;

async function bundle(contents) {
  const options = { bundle: true, minify: true, format: "esm", write: false, target: "es2022" };
  const built = await build({ ...options, stdin: { contents, resolveDir: root } });
  return built.outputFiles[0].contents;
}

test("the client is under 8 KiB, minified and gzipped", async () => {
  const size = gzipSync(await bundle('export * from "./dist/index.js"'), { level: 9 }).length;
  assert.ok(size < 8192, `${size} bytes`);
});

test("the fallback is no part of the client, and small", async () => {
  const bundled = async (contents) => Buffer.from(await bundle(contents)).toString();
  assert.doesNotMatch(await bundled('export * from "./dist/index.js"'), /event-stream/);
  const both = await bundle('export * from "./dist/index.js"; export * from "./dist/sse.js"');
  const size = gzipSync(both, { level: 9 }).length;
  assert.ok(size < 10_240, `${size} bytes`);
});

test("a bundle has only the parts that are used", async () => {
  const size = (await bundle('export { SignalboxError } from "./dist/index.js"')).length;
  assert.ok(size < 2048, `${size} bytes`);
});

test("the package that npm packs can be installed and imported in an empty folder", () => {
  const folder = mkdtempSync(join(tmpdir(), "signalbox-client-"));
  const npm = (cwd, ...words) => execFileSync("npm", words, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
  try {
    const [{ filename, files }] = JSON.parse(npm(root, "pack", "--json", "--ignore-scripts", "--pack-destination", folder));
    const built = readdirSync(join(root, "src")).flatMap((name) => [".js", ".d.ts"].map((end) => `dist/${name.replace(".ts", end)}`));
    const expected = ["LICENSE-APACHE", "LICENSE-MIT", "README.md", "package.json", ...built];
    assert.deepEqual(files.map(({ path }) => path).sort(), expected.sort());
    writeFileSync(join(folder, "package.json"), '{"private":true,"type":"module"}');
    npm(folder, "install", "--offline", "--no-audit", "--no-fund", `./${filename}`);
    writeFileSync(join(folder, "main.js"), 'import { Signalbox } from "@signalbox/client"; import { sse } from "@signalbox/client/sse"; console.log(new Signalbox({ url: "ws://localhost", fallback: sse }).state);');
    assert.equal(execFileSync("node", ["main.js"], { cwd: folder, encoding: "utf8" }), "disconnected\n");
    const installed = JSON.parse(readFileSync(join(folder, "node_modules/@signalbox/client/package.json"), "utf8"));
    assert.equal(installed.dependencies, undefined);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
