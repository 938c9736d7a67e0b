import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { RENDERERS, SERVER, fit, loadPrompt, loadWorkflow, openBrowser, openPage, overlaps, picture, queuedPrompt, settle } from "./page.mjs";
import { shippedWorkflows } from "../../tools/workflows/shipped.mjs";

const AGAIN = "if a node got an input, write the workflows anew: python tools/environment.py run -m tools.workflows";
const shipped = await shippedWorkflows();

let browser;
before(async () => {
  browser = await openBrowser();
});
after(() => browser?.close());

for (const renderer of RENDERERS) {
  test(`every workflow loads, is tidy, and queues its API file, ${renderer}`, async () => {
    const { page, errors, quiet, close } = await openPage(browser, { renderer });
    for (const { name, workflow, prompt } of shipped) {
      await loadWorkflow(page, workflow, name);
      assert.deepEqual(await queuedPrompt(page), prompt, `${name}: ${AGAIN}`);
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

test("a person opens the first film among the templates, reads it, presses Run and sees the film", async () => {
  const { page, quiet, close } = await openPage(browser, { renderer: "nodes2", size: [1366, 768], fresh: true });
  await openTemplate(page, "01 First film");
  assert.deepEqual(await page.evaluate(refusals), [], "nothing is missing");
  assert.ok((await page.evaluate(() => window.app.canvas.ds.scale)) >= 0.7, "it opens large enough to read");
  await page.getByText("press Run", { exact: false }).first().waitFor(); // what to do stands in the view
  assert.ok(await page.locator(".vm-sb-toolbar").evaluate((bar) => bar.offsetHeight < 40), "the Storyboard's buttons are one row");
  await picture(page, "first-film");
  await inAHurry(page);
  await page.getByRole("button", { name: "Run", exact: true }).first().click();
  await page.waitForFunction(() => Object.values(window.app.nodeOutputs ?? {}).some((output) => JSON.stringify(output).includes("first_film_")));
  await fit(page);
  await page.locator("[data-node-id] video").waitFor();
  assert.deepEqual(await overlaps(page), [], "the film lies over nothing");
  await picture(page, "first-film-made");
  quiet();
  await close();
});

/** As a person in a hurry would: deletes two of the four shots, moves the canvas and types another number of steps. */
async function inAHurry(page) {
  await page.locator(".vm-sb-shot").first().click();
  for (const left of [3, 2]) {
    await page.keyboard.press("Delete");
    await page.waitForFunction((count) => document.querySelectorAll(".vm-sb-shot").length === count, left);
  }
  await page.mouse.move(480, 600);
  await page.mouse.down();
  await page.mouse.move(480, 300, { steps: 5 });
  await page.mouse.up();
  const steps = page.locator("[data-node-id]", { hasText: "Sigmas" }).getByLabel("steps").first();
  await steps.click();
  await page.keyboard.press("Control+a");
  await page.keyboard.type("1");
  await page.keyboard.press("Enter");
  assert.equal((await queuedPrompt(page))[6].inputs.steps, 1);
}

/** Chooses a template of the pack in ComfyUI's own dialog. */
async function openTemplate(page, title) {
  await page.getByRole("button", { name: "Templates" }).first().click();
  const dialog = page.getByRole("dialog");
  await dialog.getByText("ComfyUI-VideoMemory").first().click();
  await dialog.getByText(title).first().click();
  await dialog.waitFor({ state: "hidden" });
  await settle(page, 12);
}

test("every API file loads as a graph and queues itself", async () => {
  const { page, quiet, close } = await openPage(browser);
  for (const { name, prompt } of shipped) {
    await loadPrompt(page, prompt, name);
    assert.deepEqual(await queuedPrompt(page), prompt, name);
  }
  quiet();
  await close();
});

// Two datasets are nobody's first; Demo Models has the text encoder in it. Their pages show the wiring.
const OF_NO_WORKFLOW = ["VideoMemoryDatasetCombine", "VideoMemoryDemoTextEncoder"];

test("every node of the pack is used in a workflow", async () => {
  const all = Object.keys(await (await fetch(`${SERVER}/object_info`)).json()).filter((id) => id.startsWith("VideoMemory"));
  const used = new Set(shipped.flatMap(({ prompt }) => Object.values(prompt).map((node) => node.class_type)));
  assert.deepEqual(all.filter((id) => !used.has(id)), OF_NO_WORKFLOW);
});

test("the template browser lists exactly the workflows, each with its picture", async () => {
  const templates = await (await fetch(`${SERVER}/api/workflow_templates`)).json();
  assert.deepEqual([...templates["ComfyUI-VideoMemory"]].sort(), shipped.map(({ file }) => file));
  assert.equal(shipped[0].file, "01 First film", "what one should begin with stands first");
  for (const { file } of shipped) {
    assert.match(file, /^\d\d [A-Z]/, "ComfyUI shows the name of the file as the title");
    for (const [ending, type] of [["json", "application/json"], ["jpg", "image/jpeg"]]) {
      const answer = await fetch(`${SERVER}/api/workflow_templates/ComfyUI-VideoMemory/${encodeURIComponent(file)}.${ending}`);
      await answer.arrayBuffer();
      assert.ok(answer.ok && answer.headers.get("content-type").startsWith(type), `${file}.${ending}`);
    }
  }
});

/** In the page: what dialogs and toasts say. */
function refusals() {
  const shown = document.querySelectorAll(".p-toast-message, [role=dialog], [role=alertdialog]");
  return [...shown].filter((element) => element.checkVisibility()).map((element) => element.textContent.trim().slice(0, 200));
}
