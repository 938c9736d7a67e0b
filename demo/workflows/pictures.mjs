/**
 * Pictures of every node for its help page, from real workflows in a real ComfyUI:
 * python demo/environment.py run -m demo.browser_server node demo/workflows/pictures.mjs js/docs/pictures
 *
 * With --run the tiny demo is queued first (minutes on a quiet machine), so that its nodes show what they made.
 */

import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";

import { fit, loadWorkflow, openBrowser, openPage, queueAndWait, settle } from "../../tests/browser/page.mjs";

const [out, option] = process.argv.slice(2);
const WORKFLOWS = join(import.meta.dirname, "..", "..", "workflows");
const MARGIN = 26;
const STEPS = 5; // of the demo's 12, and shots half as long: enough to see what nodes show
/** Which workflow shows which node. */
const SHOWN = {
  tiny_demo: ["Storyboard", "Sampler", "EncoderLoader", "Compress", "Retrieve", "RetrievalReport", "Save", "Budget"],
  wan22_5b_film: ["EncoderNew", "SaveFilm"],
  two_memories: ["EncoderCombine"],
  another_ending: ["Load", "Cut", "Join"],
  any_sampler: ["Apply"],
  pretrain: ["Dataset", "Train"],
};

await mkdir(out, { recursive: true });
const browser = await openBrowser();
try {
  const { page, close } = await openPage(browser, { renderer: "nodes2", size: [1700, 1500] });
  for (const [name, nodes] of Object.entries(SHOWN)) {
    await loadWorkflow(page, JSON.parse(await readFile(join(WORKFLOWS, `${name}.json`), "utf8")), name);
    if (name === "tiny_demo" && option === "--run") await run(page);
    for (const node of nodes) await nodePicture(page, `VideoMemory${node}`);
    if (name === "wan22_5b_film") await graphPicture(page, "workflow");
  }
  await close();
} finally {
  await browser.close();
}

/** Queues the demo, made shorter. */
async function run(page) {
  await page.evaluate((steps) => {
    const set = (type, name, change) => {
      for (const node of window.app.graph._nodes.filter((n) => n.type === type)) {
        const widget = node.widgets.find((w) => w.name === name);
        widget.value = change(widget.value);
        widget.callback?.(widget.value);
      }
    };
    set("BasicScheduler", "steps", () => steps);
    set("VideoMemoryStoryboard", "storyboard", (text) => {
      const story = JSON.parse(text);
      story.shots.forEach((shot, i) => Object.assign(shot, { start: i, end: i + 1 }));
      return JSON.stringify(story);
    });
  }, STEPS);
  await queueAndWait(page, 1_200_000);
  await settle(page, 60);
}

/** A node at its full size, with the ends of its links. */
async function nodePicture(page, type) {
  const id = await page.evaluate((wanted) => {
    const { graph, canvas } = window.app;
    const node = graph._nodes.find((candidate) => candidate.type === wanted);
    canvas.deselectAll?.();
    Object.assign(canvas.ds, { scale: 1, offset: [500 - node.pos[0], 160 - node.pos[1]] });
    canvas.setDirty(true, true);
    return node.id;
  }, type);
  await settle(page, 40);
  const box = await page.locator(`[data-node-id="${id}"]`).first().boundingBox();
  const clip = { x: box.x - MARGIN, y: box.y - MARGIN, width: box.width + 2 * MARGIN, height: box.height + 2 * MARGIN };
  await page.screenshot({ path: join(out, `${type}.jpg`), type: "jpeg", quality: 86, clip });
}

/** The whole graph. */
async function graphPicture(page, name) {
  await page.setViewportSize({ width: 2000, height: 1150 });
  await fit(page);
  await settle(page, 40);
  await page.screenshot({ path: join(out, `${name}.jpg`), type: "jpeg", quality: 86 });
  await page.setViewportSize({ width: 1700, height: 1500 });
}
