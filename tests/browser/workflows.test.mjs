import assert from "node:assert/strict";
import { readFile, readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { after, before, test } from "node:test";

import { RENDERERS, SERVER, fit, loadPrompt, loadWorkflow, openBrowser, openPage, overlaps, picture, queuedPrompt } from "./page.mjs";

const FOLDER = join(import.meta.dirname, "..", "..", "workflows");
const AGAIN = "if a node got an input, write the workflows anew: python tools/environment.py run -m tools.workflows";
const names = (await readdir(FOLDER)).filter((name) => name.endsWith(".json")).map((name) => basename(name, ".json"));
const read = async (...path) => JSON.parse(await readFile(join(FOLDER, ...path), "utf8"));

let browser;
before(async () => {
  browser = await openBrowser();
});
after(() => browser?.close());

for (const renderer of RENDERERS) {
  test(`every workflow loads, is tidy, and queues its API file, ${renderer}`, async () => {
    const { page, errors, quiet, close } = await openPage(browser, { renderer });
    for (const name of names) {
      await loadWorkflow(page, await read(`${name}.json`), name);
      assert.deepEqual(await queuedPrompt(page), await read("api", `${name}.json`), `${name}: ${AGAIN}`);
      await fit(page);
      assert.deepEqual(await overlaps(page), [], `${name}: nodes lie on each other`);
      assert.deepEqual(await page.evaluate(refusals), [], `${name}: the frontend complains`);
      assert.deepEqual(errors, [], name);
      await picture(page, `workflow-${name}-${renderer}`);
    }
    quiet();
    await close();
  });
}

test("every API file loads as a graph and queues itself", async () => {
  const { page, quiet, close } = await openPage(browser);
  for (const name of names) {
    const prompt = await read("api", `${name}.json`);
    await loadPrompt(page, prompt, name);
    assert.deepEqual(await queuedPrompt(page), prompt, name);
  }
  quiet();
  await close();
});

test("every node of the pack is used in a workflow", async () => {
  const all = Object.keys(await (await fetch(`${SERVER}/object_info`)).json()).filter((id) => id.startsWith("VideoMemory"));
  const prompts = await Promise.all(names.map((name) => read("api", `${name}.json`)));
  const used = new Set(prompts.flatMap((prompt) => Object.values(prompt).map((node) => node.class_type)));
  assert.deepEqual(all.filter((id) => !used.has(id)), []);
});

test("the template browser lists exactly the workflows, each with its picture", async () => {
  const templates = await (await fetch(`${SERVER}/api/workflow_templates`)).json();
  assert.deepEqual([...templates["ComfyUI-VideoMemory"]].sort(), [...names].sort());
  for (const name of names) {
    for (const [ending, type] of [["json", "application/json"], ["jpg", "image/jpeg"]]) {
      const answer = await fetch(`${SERVER}/api/workflow_templates/ComfyUI-VideoMemory/${name}.${ending}`);
      await answer.arrayBuffer();
      assert.ok(answer.ok && answer.headers.get("content-type").startsWith(type), `${name}.${ending}`);
    }
  }
});

/** In the page: what dialogs and toasts say. */
function refusals() {
  const shown = document.querySelectorAll(".p-toast-message, [role=dialog], [role=alertdialog]");
  return [...shown].map((element) => element.textContent.trim().slice(0, 200));
}
