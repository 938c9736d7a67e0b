import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { tinyFilm } from "./demo_film.mjs";
import { RENDERERS, fit, heightOf, loadPrompt, loadWorkflow, openBrowser, openPage, picture, queueAndWait, settle, widgetValue } from "./page.mjs";

const FILMS = join(process.env.VIDEO_MEMORY_WORK, "output", "video_memory");
const RUN = Date.now(); // a film of an earlier run would be reused

let browser;

before(async () => {
  browser = await openBrowser();
});
after(() => browser?.close());

/** A film of two sections. */
const film = (name) => tinyFilm(name, ["Leo waves in the garden", "Max talks on the beach"], 2);

/** Puts beside a film the pictures that a memory of pictures would keep of it: the film's own previews stand for them. */
async function keepPictures(page, name) {
  const stills = await page.evaluate(async (film) => {
    const state = await (await fetch(`/video_memory/film/${encodeURIComponent(film)}`)).json();
    const read = (blob) => new Promise((done) => {
      const reader = new FileReader();
      reader.onload = () => done(reader.result);
      reader.readAsDataURL(blob);
    });
    return Promise.all(state.sections.map(async ({ index, key }) => read(await (await fetch(`/video_memory/film/${encodeURIComponent(film)}/clip/${index}?key=${key}&still=1`)).blob())));
  }, name);
  const one = (id, section, kept, image) => ({ id, section, frame: Number(id.split(":")[1]), kept, pinned: false, banned: false, image });
  const pictures = [one("0:1", -1, true, stills[0]), one("1:2", 0, true, stills[0]), one("1:7", 0, false, stills[0]), one("2:4", 1, true, stills[1])];
  await writeFile(join(FILMS, name, "pictures.json"), JSON.stringify({ version: 1, film: name, pictures }));
}

async function open(page, prompt) {
  await loadPrompt(page, prompt);
  const id = await page.evaluate(() => window.app.graph._nodes.find((node) => node.type === "VideoMemorySampler").id);
  await fit(page, id);
  return id;
}

for (const renderer of RENDERERS) {
  test(`the memory's pictures are seen, pinned and banned, ${renderer}`, async () => {
    const name = `pictures ${renderer} ${RUN}`;
    const { page, quiet, close } = await openPage(browser, { renderer });
    let id = await open(page, film(name));
    await queueAndWait(page);
    await page.getByRole("button", { name: /^Pictures/ }).waitFor({ state: "hidden" });
    const height = await heightOf(page, id);
    await keepPictures(page, name);
    const saved = await page.evaluate(() => ({ ...window.app.graph.serialize(), id: crypto.randomUUID() }));
    await loadWorkflow(page, saved);
    id = saved.nodes.find((node) => node.type === "VideoMemorySampler").id;
    await fit(page, id);

    const marks = () => widgetValue(page, id, "pictures");
    const pin = (name) => page.getByRole("button", { name: new RegExp(`^Pin ${name}`) });
    await page.getByRole("button", { name: "Pictures 4" }).click();
    assert.equal(await page.locator(".vm-film-strip").isVisible(), false, "they take the strip's place");
    assert.deepEqual(await heightOf(page, id), height, "and no more room");
    await pin("frame 7 of section 1: not seen any more").click();
    assert.equal(await marks(), "1:7");
    assert.equal(await pin("frame 7 of section 1: pinned").getAttribute("aria-pressed"), "true");
    await page.getByRole("button", { name: "Ban picture 1 before the film" }).click();
    assert.equal(await marks(), "-0:1, 1:7");
    await page.getByText("The next run keeps other pictures").waitFor();
    await page.locator(".vm-film-head .primary").waitFor();
    await settle(page);
    await fit(page, id);
    await picture(page, `pictures-${renderer}`);

    await pin("picture 1 before the film").focus();
    await page.keyboard.press("End");
    assert.ok(await pin("frame 4 of section 2").evaluate((button) => button === document.activeElement), "arrows move");
    await page.keyboard.press("p");
    assert.equal(await marks(), "-0:1, 1:7, 2:4", "P pins");
    await page.keyboard.press("b");
    assert.equal(await marks(), "-0:1, 1:7, -2:4", "B bans");
    await page.keyboard.press("b");
    await page.keyboard.press("ArrowLeft");
    await page.keyboard.press("p");
    assert.equal(await marks(), "-0:1", "and both take it back");

    const field = page.getByRole("textbox", { name: /^Pin any frame/ });
    await field.fill("forty");
    await field.press("Enter");
    assert.equal(await field.getAttribute("aria-invalid"), "true");
    await field.fill("2:6");
    await field.press("Enter");
    assert.equal(await marks(), "-0:1, 2:6");
    await pin("frame 6 of section 2: pinned").waitFor();
    // In this renderer the undo that follows makes the node anew.
    await page.locator(".vm-film-pending").click();
    await page.keyboard.press("Control+z");
    await settle(page);
    assert.equal(await marks(), "-0:1", "a step of ComfyUI's own undo");
    quiet();
    await close();
  });
}
