// `npm run bundle` builds the client as one minified module for the chat page of `/demo/`, which is a part of the server's program.
// The result is committed, so that a build of the server needs no npm. A test compares it with a new build.
import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { build } from "esbuild";

const root = new URL(".", import.meta.url).pathname;

/** The committed module. */
export const bundlePath = new URL("../../examples/web-chat/signalbox.js", import.meta.url).pathname;

/** The text of the module, rebuilt. */
export async function bundle() {
  const { name, version, license } = JSON.parse(readFileSync(new URL("package.json", import.meta.url), "utf8"));
  const origin = `// ${name} ${version} (${license}), built from clients/typescript by "npm run bundle" there. Do not edit.`;
  const options = { bundle: true, minify: true, format: "esm", target: "es2022", charset: "utf8", write: false };
  const built = await build({ ...options, banner: { js: origin }, absWorkingDir: root, entryPoints: ["src/index.ts"] });
  return built.outputFiles[0].text;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) writeFileSync(bundlePath, await bundle());
