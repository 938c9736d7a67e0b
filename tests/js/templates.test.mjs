import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import { textsOf, translate } from "../../js/templates/words.mjs";
import { shippedWorkflows } from "../../tools/workflows/shipped.mjs";

const FOLDER = join(import.meta.dirname, "..", "..", "js", "templates");
const shipped = await shippedWorkflows();
const SIGNS = { zh: /[\u4e00-\u9fff]/, ja: /[\u3040-\u30ff\u4e00-\u9fff]/ };
const marked = (text) => text.match(/\*\*[\w/.-]+\*\*|\*\*--.*?\*\*/g)?.sort() ?? [];

for (const language of ["zh", "ja"]) {
  const words = JSON.parse(await readFile(join(FOLDER, `${language}.json`), "utf8"));

  test(`every title, group and note of every template is there in ${language}, and nothing else`, () => {
    const texts = new Set(shipped.flatMap(({ workflow }) => textsOf(workflow)));
    assert.deepEqual([...texts].filter((text) => !words[text]), [], `translate it in js/templates/${language}.json`);
    assert.deepEqual(Object.keys(words).filter((text) => !texts.has(text)), [], "no template says this any more");
  });

  test(`what is translated to ${language} is in its signs and keeps the names that a person types`, () => {
    for (const [text, translated] of Object.entries(words)) {
      if (/^[\w .]+, fp8$/.test(text)) continue; // the name of a model
      if (translated === text) assert.match(text, /^(VAE|Sigmas|\*\*python .*\*\*)$/);
      else assert.match(translated, SIGNS[language], text);
      for (const name of marked(text)) {
        if (/[_/]|^\*\*--/.test(name)) assert.ok(translated.includes(name), `${name} in: ${translated}`);
      }
    }
  });

  test(`a template changes its words alone, and only those that are still the pack's own, ${language}`, () => {
    const { workflow } = structuredClone(shipped.find(({ name }) => name === "first_film"));
    workflow.nodes[0].title = "My own title";
    const before = structuredClone(workflow);
    translate(workflow, words);
    assert.equal(workflow.nodes[0].title, "My own title");
    const note = workflow.nodes.find(({ type }) => type === "MarkdownNote");
    assert.match(note.widgets_values[0], /\n- /, "a list stays a list");
    assert.match(note.widgets_values[0], SIGNS[language]);
    for (const one of [...workflow.nodes, ...workflow.groups, ...before.nodes, ...before.groups]) delete one.title;
    for (const one of [workflow, before]) one.nodes.find(({ type }) => type === "MarkdownNote").widgets_values = [];
    assert.deepEqual(workflow, before);
  });
}
