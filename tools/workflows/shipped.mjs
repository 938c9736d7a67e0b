/** The workflows that are shipped: files in ComfyUI's own form are named for people, those of the API for programs. */

import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";

const FOLDER = join(import.meta.dirname, "..", "..", "workflows");

/** `[{ name, file, workflow, prompt }]` in the order of the files; `file` is without its ending. */
export async function shippedWorkflows() {
  const files = (await readdir(FOLDER)).filter((name) => name.endsWith(".json")).sort();
  return Promise.all(
    files.map(async (file) => {
      const workflow = await read(file);
      const { name } = workflow.extra;
      return { name, file: file.slice(0, -".json".length), workflow, prompt: await read("api", `${name}.json`) };
    }),
  );
}

async function read(...path) {
  return JSON.parse(await readFile(join(FOLDER, ...path), "utf8"));
}
