import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { textsOf } from "../../js/templates/words.mjs";
import { shippedWorkflows } from "../../tools/workflows/shipped.mjs";
import { addAll, fit, loadWorkflow, openBrowser, openPage, picture } from "./page.mjs";

const FOLDER = join(import.meta.dirname, "..", "..", "locales");
const TEMPLATES = join(import.meta.dirname, "..", "..", "js", "templates");
let browser;
before(async () => {
  browser = await openBrowser();
});
after(() => browser?.close());

for (const [locale, duplicate] of [["en", "Duplicate"], ["zh", "复制"], ["ja", "複製"]]) {
  test(`nodes speak the language that ComfyUI is set to, ${locale}`, async () => {
    const nodes = JSON.parse(await readFile(join(FOLDER, locale, "nodeDefs.json"), "utf8"));
    const { page, quiet, close } = await openPage(browser, { locale });
    const made = await addAll(page, Object.keys(nodes));
    for (const [name, texts] of Object.entries(nodes)) {
      const shown = await page.evaluate(described, made[name]);
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
      assert.deepEqual(shown.unnamed, [], `${name}: a view without words for ComfyUI's app mode`);
    }
    await page.locator('.vm-sb [data-action="duplicate"]', { hasText: duplicate }).waitFor({ state: "attached" });
    await fit(page, made.VideoMemorySampler);
    await picture(page, `locale-${locale}`);
    const [{ workflow }] = await shippedWorkflows();
    const words = locale === "en" ? {} : JSON.parse(await readFile(join(TEMPLATES, `${locale}.json`), "utf8"));
    const expected = textsOf(workflow).map((text) => words[text] ?? text); // before it is loaded, which may change it
    await loadWorkflow(page, workflow, "a template");
    const opened = await page.evaluate(() => window.app.graph.serialize());
    assert.deepEqual(textsOf(opened).sort(), expected.sort(), "titles and notes of a template");
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
    unnamed: (node.widgets ?? []).filter((w) => w.type === "VIDEO_MEMORY_VIEW" && (!w.label || w.label === w.name)).map((w) => w.name),
    outputs: (node.outputs ?? []).map(({ name, localized_name }, index) => ({ name, label: localized_name, index })),
  };
}
