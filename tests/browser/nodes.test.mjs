import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { RENDERERS, SERVER, addNode, clear, fit, openBrowser, openPage, picture, queuedPrompt } from "./page.mjs";

let browser;
let definitions;

before(async () => {
  browser = await openBrowser();
  const all = await (await fetch(`${SERVER}/object_info`)).json();
  definitions = Object.entries(all).filter(([name]) => name.startsWith("VideoMemory"));
});
after(() => browser?.close());

for (const renderer of RENDERERS) {
  test(`every node of the pack can be created without an error, ${renderer}`, async () => {
    const { page, quiet, close } = await openPage(browser, { renderer });
    assert.ok(definitions.length >= 13);
    for (const [name, definition] of definitions) {
      const id = await addNode(page, name);
      const title = await page.evaluate((node) => window.app.graph.getNodeById(node).title, id);
      assert.equal(title, definition.display_name);
      if (renderer === "nodes2") await page.locator(`[data-node-id="${id}"]`).first().waitFor();
      await fit(page, id);
      await picture(page, `node-${name}-${renderer}`);
      const { inputs } = (await queuedPrompt(page))[String(id)];
      assert.deepEqual(Object.keys(inputs).sort(), widgetNames(definition), `${name} sends its widgets and no others`);
      await clear(page);
    }
    quiet();
    await close();
  });
}

/** Names of the inputs of a definition that are widgets, not sockets. */
function widgetNames({ input }) {
  const widgets = new Set(["STRING", "INT", "FLOAT", "BOOLEAN", "COMBO"]);
  const all = Object.entries({ ...input.required, ...input.optional });
  const isWidget = ([type, options]) => (Array.isArray(type) || widgets.has(type)) && !options?.forceInput;
  return all.filter(([, spec]) => isWidget(spec)).map(([name]) => name).sort();
}

test("every node has a help page, and its pictures come from this server", async () => {
  for (const [name] of definitions.filter(([id]) => !id.startsWith("VideoMemoryDemo"))) {
    const base = `${SERVER}/extensions/ComfyUI-VideoMemory/docs/`; // where the help panel looks
    const page = await (await fetch(`${base}${name}.md`)).text();
    const pictures = [...page.matchAll(/!\[[^\]]+\]\(([^)]+)\)/g)].map((match) => match[1]);
    assert.ok(page.startsWith("# ") && pictures.length > 0, name);
    for (const path of pictures) {
      const answer = await fetch(new URL(path, base));
      await answer.arrayBuffer();
      assert.ok(answer.ok && answer.headers.get("content-type") === "image/jpeg", `${name}: ${path}`);
    }
  }
});
