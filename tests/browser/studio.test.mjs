import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { lowContrast } from "./contrast.mjs";
import { RENDERERS, addNode, fit, openBrowser, openPage, picture, settle } from "./page.mjs";

const LEAST = 4.5; // to one
const PLANNED = 40;
let browser;

before(async () => {
  browser = await openBrowser();
});
after(() => browser?.close());

const SHOTS = Array.from({ length: PLANNED }, (_, i) => ({
  start: 5 * i, end: 5 * i + 5, prompt: i === 3 ? "" : `Mira walks through street number ${i + 1} in the evening light`, transition: i % 3 === 1 ? "continue" : "cut",
  ...(i === 2 ? { name: "The pier" } : {}), ...(i === 1 ? { locked: true } : {}),
})); // prettier-ignore
const BOARD = { version: 1, shots: SHOTS, negative: "", cast: [{ name: "Mira", look: "a girl with red hair" }, { look: "watercolour" }] };

/** What the server says of a film with every kind of section. */
function film(count = PLANNED) {
  const states = ["stored", "reused", "locked", "stored", "stale"];
  const plan = Array.from({ length: count }, (_, index) => ({
    index, shot: index, prompt: SHOTS[index].prompt, start_seconds: 5 * index, seconds: 5, frames: 80, locked: index === 1, kept: index < 6, take: 0,
  })); // prettier-ignore
  const sections = plan.slice(0, 20).map((entry, i) => ({ ...entry, key: String(i % 10).repeat(64), status: i === 19 ? "stale" : states[i % 4], clip: false, versions: 1 + (i % 2) }));
  return { film: "studio", plan, sections, run: null };
}

const picturesOf = (image) => [["0:1", -1, true], ["1:4", 0, true], ["2:9", 1, false]].map(([id, section, kept]) => ({ id, section, frame: 4, kept, pinned: false, banned: id === "2:9", image }));
const PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAP///wAAACH5BAAAAAAALAAAAAABAAEAAAICRAEAOw==";

/** A page with each of the pack's views, filled without a model. */
async function openStudio(renderer, theme, size) {
  const opened = await openPage(browser, { renderer, size, settings: { "Comfy.ColorPalette": theme } });
  const { page } = opened;
  await page.route("**/video_memory/film/**", (route) => route.fulfill({ json: { ...film(), pictures: picturesOf(PIXEL) } }));
  const losses = Array.from({ length: 50 }, (_, i) => [i, 1 / (i + 1)]);
  await page.route("**/video_memory/training/**", (route) => route.fulfill({ json: { run: "memory", losses, heldout: losses.slice(10), recalled: null } }));
  const ids = {};
  for (const [name, type, x, y] of [
    ["board", "VideoMemoryStoryboard", 0, 0], ["sampler", "VideoMemorySampler", 760, 0], ["retrieve", "VideoMemoryRetrieve", 1320, 0],
    ["recall", "VideoMemoryRetrievalReport", 1320, 520], ["train", "VideoMemoryTrain", 1760, 0], ["budget", "VideoMemoryBudget", 1760, 800],
  ]) ids[name] = await addNode(page, type, [x, y]); // prettier-ignore
  await page.evaluate(([all, board]) => {
    const node = (name) => window.app.graph.getNodeById(all[name]);
    const write = (name, widget, value) => {
      const found = node(name).widgets.find((one) => one.name === widget);
      found.value = value;
      found.callback?.(value);
    };
    write("board", "storyboard", JSON.stringify(board));
    write("sampler", "film", "studio");
    write("train", "run", "memory");
    node("retrieve").onExecuted({ video_memory_timeline: [{ frames: 33, sections: [{ first: 0, last: 16, prompt: "a red door" }, { first: 17, last: 32, prompt: "a street" }], asked: [[1, 4]] }] });
    node("budget").onExecuted({ text: ["Memory of the whole film: 3,600 tokens"] });
  }, [ids, BOARD]);
  await page.locator(".vm-sb-sum").filter({ hasText: "sections" }).waitFor();
  return { ...opened, ids };
}

/** The colour that the classic canvas draws below an element of a node. */
const nodeColour = (page) => page.evaluate(() => window.LiteGraph.NODE_DEFAULT_BGCOLOR);

for (const renderer of RENDERERS) {
  for (const theme of ["dark", "light"]) {
    test(`all words are readable, in every state, ${theme}, ${renderer}`, async () => {
      const { page, ids, quiet, close } = await openStudio(renderer, theme, [1600, 1000]);
      const base = await nodeColour(page);
      const low = new Map();
      const look = async (name, selector, words, which = 0) => {
        await fit(page, ids[name]);
        const root = page.locator(selector).nth(which);
        await root.waitFor();
        await settle(page);
        await picture(page, `studio-${words}-${theme}-${renderer}`);
        for (const [ratio, where, text] of await root.evaluate(lowContrast, [base, LEAST]))
          low.set(`${selector} ${where}`, `${ratio}:1 ${words} ${where} "${text}"`);
      };
      const board = page.locator(".vm-sb");
      await fit(page, ids.board);
      await board.locator(".vm-sb-cast summary").click();
      await board.locator(".vm-sb-timeline").focus();
      await page.keyboard.press("Alt+Shift+ArrowRight");
      await page.keyboard.press("Delete"); // a locked shot: a notice
      await look("board", ".vm-sb", "storyboard");
      await board.locator(".vm-sb-timeline").focus();
      await page.keyboard.press("p");
      await look("board", ".vm-sb", "picture-panel");
      await page.keyboard.press("Escape");
      await page.keyboard.press("Home");
      for (const summary of await board.locator(".vm-sb-plan summary").all()) await summary.click();
      await look("board", ".vm-sb", "plan");

      const film = page.locator(".vm-film");
      await look("sampler", ".vm-film", "strip");
      const tell = (message) => page.evaluate(([node, data]) => window.app.api.dispatchCustomEvent("video_memory.section", { node: String(node), film: "studio", count: 40, ...data }), [ids.sampler, message]);
      await film.locator(".vm-film-tile").nth(4).click();
      await film.getByRole("button", { name: "Redo", exact: true }).click();
      await look("sampler", ".vm-film", "redo");
      await film.locator(".vm-film-tile").nth(5).click();
      await page.keyboard.press("r");
      await look("sampler", ".vm-film", "question");
      await page.keyboard.press("Escape");
      await tell({ state: "sampling", index: 6, left: 90 });
      await tell({ state: "step", index: 6, step: 3, steps: 20, left: 80 });
      await look("sampler", ".vm-film", "sampling");
      await page.evaluate((node) => window.app.api.dispatchCustomEvent("execution_error", { node_id: String(node), exception_message: "out of memory" }), ids.sampler);
      await look("sampler", ".vm-film", "failed");
      await film.getByRole("button", { name: "Grid" }).click();
      await look("sampler", ".vm-film", "grid");
      await film.getByRole("button", { name: /^Pictures/ }).click();
      await look("sampler", ".vm-film", "pictures");
      await look("retrieve", ".vm-inspect", "inspector");
      await look("recall", ".vm-inspect", "recall", 1);
      await look("train", ".vm-train", "training");
      await look("budget", ".vm-report", "report");
      assert.deepEqual([...low.values()], []);
      quiet();
      await close();
    });
  }
}
