import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { test } from "node:test";

const FOLDER = join(import.meta.dirname, "..", "..", "js", "strings");
const LANGUAGES = ["en", "ja", "zh"];
const placeholders = (text) => [...text.matchAll(/\{(\w+)\}/g)].map((match) => match[1]).sort();

for (const file of (await readdir(FOLDER)).filter((name) => name.endsWith(".mjs"))) {
  test(`${file} says everything in all languages, with the same values to fill in`, async () => {
    const { default: words } = await import(pathToFileURL(join(FOLDER, file)));
    assert.deepEqual(Object.keys(words).sort(), LANGUAGES);
    for (const language of LANGUAGES) {
      assert.deepEqual(Object.keys(words[language]).sort(), Object.keys(words.en).sort(), language);
      for (const [key, text] of Object.entries(words[language])) {
        assert.ok(text.trim(), `${language}: ${key} is empty`);
        assert.deepEqual(placeholders(text), placeholders(words.en[key]), `${language}: ${key}`);
      }
    }
  });
}
