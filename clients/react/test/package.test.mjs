import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

const root = new URL("..", import.meta.url).pathname;

test("the package has the built files, and needs React and the client from the application", () => {
  const folder = mkdtempSync(join(tmpdir(), "signalbox-react-"));
  const run = (command, ...words) => execFileSync(command, words, { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
  try {
    const [{ filename, files }] = JSON.parse(run("npm", "pack", "--json", "--ignore-scripts", "--pack-destination", folder));
    const paths = files.map(({ path }) => path);
    assert.ok(paths.includes("dist/index.js") && paths.includes("dist/index.d.ts") && paths.every((path) => !path.startsWith("test/")));
    const manifest = JSON.parse(run("tar", "-xzOf", join(folder, filename), "package/package.json"));
    assert.deepEqual(Object.keys(manifest.peerDependencies), ["@signalbox/client", "react"]);
    assert.equal(manifest.dependencies, undefined);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
