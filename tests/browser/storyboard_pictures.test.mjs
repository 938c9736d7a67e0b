import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { copyFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { SHOTS, openEditor } from "./editor.mjs";
import { RENDERERS, fit, openBrowser, picture, settle } from "./page.mjs";

const INPUT = join(process.env.VIDEO_MEMORY_WORK, "input");
const START = new URL("../../tools/workflows/first_film/section_0.webp", import.meta.url);
const RUN = Date.now(); // ComfyUI gives a file of the same name another one
let browser;

before(async () => {
  await copyFile(START, join(INPUT, "start.png"));
  browser = await openBrowser();
});
after(() => browser?.close());

/** An image file as the browser has it, put into the `files` of a drop or a paste on an element. */
async function bring(locator, type, name, colour) {
  await locator.evaluate(
    async (target, [kind, file, fill]) => {
      const canvas = Object.assign(document.createElement("canvas"), { width: 96, height: 64 });
      const context = canvas.getContext("2d");
      context.fillStyle = fill;
      context.fillRect(0, 0, 96, 64);
      const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
      const data = new DataTransfer();
      data.items.add(new File([blob], file, { type: "image/png" }));
      const options = { bubbles: true, cancelable: true };
      const event = kind === "paste" ? new ClipboardEvent("paste", { ...options, clipboardData: data }) : new DragEvent("drop", { ...options, dataTransfer: data });
      target.dispatchEvent(event);
    },
    [type, name, colour],
  );
}

for (const renderer of RENDERERS) {
  test(`pictures are dropped, pasted, uploaded, chosen and removed, one step of undo each, ${renderer}`, async () => {
    const shots = SHOTS.map((shot, i) => (i ? { ...shot, transition: i === 2 ? "continue" : "cut" } : shot));
    const { page, editor, read, keys, focus, quiet, close } = await openEditor(browser, renderer, JSON.stringify({ version: 1, shots }));
    const block = (number) => editor.locator(`.vm-sb-shot[data-index="${number - 1}"]`);
    const pictures = async () => JSON.parse(await read()).shots.map((shot) => shot.picture ?? "");
    const told = (test) => page.waitForFunction(test);
    const names = [`dropped ${renderer} ${RUN}.png`, `pasted ${renderer} ${RUN}.png`, `cast ${renderer} ${RUN}.png`];

    await bring(block(3), "drop", names[0], "teal");
    await block(3).locator("img.vm-sb-thumb").waitFor();
    assert.deepEqual(await pictures(), ["", "", names[0]]);
    assert.ok(existsSync(join(INPUT, names[0])), "it lies in ComfyUI's input folder");
    assert.equal(JSON.parse(await read()).shots[2].transition, "cut", "a shot begins with its picture");
    await told(() => [...document.querySelectorAll(".vm-sb-shot img")].every((image) => image.naturalWidth === 96));
    assert.match(await block(3).getAttribute("aria-label"), /with a picture/);
    await block(3).click();
    assert.ok(await editor.getByRole("button", { name: "Go on" }).isDisabled());
    await editor.getByRole("button", { name: `Picture that shot 3 begins with: ${names[0]}` }).waitFor();

    await block(2).click();
    await bring(editor.locator(".vm-sb-timeline"), "paste", names[1], "maroon");
    await block(2).locator("img.vm-sb-thumb").waitFor();
    await keys("Control+z");
    assert.deepEqual(await pictures(), ["", "", names[0]]);
    await keys("Control+Shift+z");
    assert.deepEqual(await pictures(), ["", names[1], names[0]]);

    await focus();
    await keys("Home", "p"); // the picture of the chosen shot, by a key
    const panel = editor.getByRole("group", { name: "Picture: Shot 1" });
    const field = panel.getByRole("combobox", { name: "Image in ComfyUI's input folder" });
    await page.waitForFunction((name) => [...document.querySelectorAll(".vm-sb-picture-panel option")].some(({ value }) => value === name), "start.png");
    await field.fill("start.png");
    await field.press("Enter");
    assert.equal((await pictures())[0], "start.png");
    assert.ok(await panel.isHidden());
    await keys("p");
    await panel.locator("img").waitFor();
    await picture(page, `storyboard-picture-panel-${renderer}`);
    await panel.getByRole("button", { name: "Remove" }).click();
    assert.equal((await pictures())[0], "");
    assert.ok(await page.evaluate(() => document.activeElement.classList.contains("vm-sb-timeline")), "the focus comes back");

    await editor.locator(".vm-sb-cast summary").click();
    const lines = editor.getByRole("textbox", { name: "Cast and look" });
    await lines.fill("Mira: a girl\nwatercolour");
    await bring(editor.getByRole("button", { name: "Choose a picture of Mira" }), "drop", names[2], "gold");
    await editor.getByRole("button", { name: `Picture of Mira: ${names[2]}` }).waitFor();
    await lines.fill("watercolour\nMira: a tall girl");
    assert.deepEqual(JSON.parse(await read()).cast, [{ look: "watercolour" }, { name: "Mira", look: "a tall girl", picture: names[2] }]);
    await settle(page);
    await picture(page, `storyboard-pictures-${renderer}`);
    quiet();
    await close();
  });

  test(`what a film cannot use of its pictures is said while one writes, ${renderer}`, async () => {
    const shots = SHOTS.map((shot, i) => ({ ...shot, picture: i === 2 ? "gone.png" : "start.png" }));
    const cast = [{ name: "Mira", look: "a girl", picture: "start.png" }];
    const { page, id, editor, quiet, close } = await openEditor(browser, renderer, JSON.stringify({ version: 1, shots, cast }));
    await editor.getByText("Shot 3: the picture is not in ComfyUI's input folder").waitFor();
    assert.equal(await editor.getByText("only a memory of pictures").count(), 0, "nothing says yet which memory it is");
    await page.evaluate((board) => {
      const { LiteGraph, app } = window;
      const [sampler, demo] = ["VideoMemorySampler", "VideoMemoryDemoModels"].map((type) => LiteGraph.createNode(type));
      app.canvas.emitBeforeChange();
      for (const node of [sampler, demo]) app.graph.add(node);
      app.graph.getNodeById(board).connect(0, sampler, "storyboard");
      demo.connect(demo.outputs.findIndex(({ type }) => type === "MEMORY_ENCODER"), sampler, "memory_encoder");
      app.canvas.emitAfterChange();
    }, id);
    await editor.getByText("Shot 2: this model makes video from text alone").waitFor();
    await editor.getByText("Mira: only a memory of pictures").waitFor();
    await fit(page, id);
    await picture(page, `storyboard-pictures-unused-${renderer}`);
    quietBut404(quiet);
    await close();
  });
}

/** A picture that is not there is asked for, and browsers log that. */
function quietBut404(quiet) {
  try {
    quiet();
  } catch (error) {
    assert.ok(error.message.split("\n").slice(1).every((line) => /404.*view\?/.test(line)), error.message);
  }
}
