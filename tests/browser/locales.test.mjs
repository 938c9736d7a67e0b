import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { addNode, clear, fit, openBrowser, openPage, picture } from "./page.mjs";

const FOLDER = join(import.meta.dirname, "..", "..", "locales");
let browser;
before(async () => {
  browser = await openBrowser();
});
after(() => browser?.close());

for (const locale of ["en", "zh", "ja"]) {
  test(`nodes speak the language that ComfyUI is set to, ${locale}`, async () => {
    const nodes = JSON.parse(await readFile(join(FOLDER, locale, "nodeDefs.json"), "utf8"));
    const { page, quiet, close } = await openPage(browser, { locale });
    for (const [name, texts] of Object.entries(nodes)) {
      const id = await addNode(page, name);
      const shown = await page.evaluate(described, id);
      assert.equal(shown.title, texts.display_name, name);
      for (const [input, label] of Object.entries(shown.labels)) {
        assert.equal(label, texts.inputs[input]?.name, `${name}, ${input}`);
      }
      for (const [input, tooltip] of Object.entries(shown.tooltips)) {
        assert.equal(tooltip, texts.inputs[input]?.tooltip, `${name}, ${input}`);
      }
      for (const { name: type, label, index } of shown.outputs) {
        if (type === type.toUpperCase()) continue; // an output that is named after its type has core's word for it
        assert.equal(label, texts.outputs[index].name, `${name}, output ${type}`);
      }
      await fit(page, id);
      await picture(page, `locale-${locale}-${name}`);
      await clear(page);
    }
    quiet();
    await close();
  });
}

/** In the page: what a node shows. */
function described(id) {
  const node = window.app.graph.getNodeById(id);
  // Core's own control beside a seed is named after its setting where a node gives one.
  // Views and buttons are no inputs: their words are those of js/strings.
  const inputs = (node.widgets ?? []).filter((w) => w.serialize !== false);
  const widgets = inputs.filter((w) => w.label && !["control_after_generate", "fixed"].includes(w.name));
  const named = (items, key) => Object.fromEntries(items.filter((i) => i[key]).map((i) => [i.name, i[key]]));
  return {
    title: node.title,
    labels: { ...named(node.inputs ?? [], "localized_name"), ...named(widgets, "label") },
    tooltips: named(widgets, "tooltip"),
    outputs: (node.outputs ?? []).map(({ name, localized_name }, index) => ({ name, label: localized_name, index })),
  };
}
