import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

const root = new URL("..", import.meta.url).pathname;

test("the package has the built files, and needs React and the client from the application", () => {
  const folder = mkdtempSync(join(tmpdir(), "signalbox-react-"));
  const run = (command, ...words) => execFileSync(command, words, { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
  try {
    const [{ filename, files }] = JSON.parse(run("npm", "pack", "--json", "--ignore-scripts", "--pack-destination", folder));
    const built = readdirSync(join(root, "src")).flatMap((name) => [".js", ".d.ts"].map((end) => `dist/${name.replace(/\.tsx?$/, end)}`));
    const expected = ["LICENSE-APACHE", "LICENSE-MIT", "README.md", "package.json", ...built];
    assert.deepEqual(files.map(({ path }) => path).sort(), expected.sort());
    const manifest = JSON.parse(run("tar", "-xzOf", join(folder, filename), "package/package.json"));
    assert.deepEqual(Object.keys(manifest.peerDependencies), ["@signalbox/client", "react"]);
    assert.equal(manifest.dependencies, undefined);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
