/**
 * Pictures of every node for its help page, from real workflows in a real ComfyUI:
 * python tools/environment.py run -m tools.browser_server node tools/workflows/pictures.mjs js/docs/pictures
 *
 * With --run the films of the tiny family are queued first (minutes on a quiet machine), so that their nodes show what they made.
 * With --only WORKFLOW the nodes of that one alone are shown.
 * With --training FOLDER, Train Memory Encoder shows the losses and recalled frames of a run that has been made there.
 */

import { cp, mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";

import { loadWorkflow, openBrowser, openPage, overlaps, queueAndWait, settle } from "../../tests/browser/page.mjs";
import { shippedWorkflows } from "./shipped.mjs";

const [out, ...options] = process.argv.slice(2);
const training = options.includes("--training") ? options[options.indexOf("--training") + 1] : null;
const only = options.includes("--only") ? options[options.indexOf("--only") + 1] : null;
const shipped = await shippedWorkflows();
const MARGIN = 26;
const RUN = ["first_film", "tiny_demo"];
const STEPS = 8; // of their 12, and shots of a second: enough to see what nodes show
/** Which workflow shows which node. */
const SHOWN = {
  first_film: ["Storyboard", "Sampler", "DemoModels", "DemoTextEncoder"],
  tiny_demo: ["Compress", "Retrieve", "RetrievalReport", "Save"],
  wan22_5b_film: ["EncoderNew", "SaveFilm"],
  two_memories: ["EncoderCombine"],
  continue_memory: ["Load", "Cut", "Join"],
  any_sampler: ["Apply", "Budget"],
  continue_video: ["Clip", "DemoClip"],
  pretrain: ["Dataset", "Train", "DatasetCombine"],
  finetune: ["EncoderLoader"],
  written_film: ["StoryboardPrompt"],
  judged_film: ["FilmReport"],
};

await mkdir(out, { recursive: true });
const browser = await openBrowser();
try {
  const settings = { "Comfy.Minimap.Visible": false };
  const { page, close } = await openPage(browser, { renderer: "nodes2", size: [1700, 1500], settings });
  for (const [name, nodes] of Object.entries(SHOWN).filter(([name]) => !only || name === only)) {
    const { workflow } = shipped.find((one) => one.name === name);
    if (name === "pretrain" && training) await showRun(workflow);
    await loadWorkflow(page, workflow, name);
    if (RUN.includes(name) && options.includes("--run")) await run(page);
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
  await queueAndWait(page, 3_600_000);
  await settle(page, 60);
  const lying = await overlaps(page);
  if (lying.length) throw new Error(`after the run nodes lie on each other: ${lying.join(", ")}`);
}

/** Puts a training run where the server looks for it, and sets the node to its length. */
async function showRun(workflow) {
  const steps = (await readFile(join(training, "losses.jsonl"), "utf8")).trim().split("\n").filter((line) => line.includes('"loss"'));
  const node = workflow.nodes.find((one) => one.type === "VideoMemoryTrain");
  node.widgets_values[node.widgets_values.indexOf(20000)] = JSON.parse(steps.at(-1)).step + 1;
  const target = join(process.env.VIDEO_MEMORY_WORK, "output", "video_memory_training", "my_memory");
  await mkdir(target, { recursive: true });
  for (const file of ["losses.jsonl", "recalled.png"]) {
    await cp(join(training, file), join(target, file)).catch((error) => console.log(`without ${file}: ${error.code}`));
  }
}

/** A node alone at its full size; one that the workflow does not have is added. */
async function nodePicture(page, type) {
  const id = await page.evaluate((wanted) => {
    const { graph, canvas } = window.app;
    let node = graph._nodes.find((candidate) => candidate.type === wanted);
    if (!node) graph.add((node = window.LiteGraph.createNode(wanted)));
    canvas.deselectAll?.();
    canvas.links_render_mode = window.LiteGraph.HIDDEN_LINK; // those of other nodes would run behind it
    Object.assign(canvas.ds, { scale: 1, offset: [500 - node.pos[0], 160 - node.pos[1]] });
    canvas.setDirty(true, true);
    return node.id;
  }, type);
  const others = await page.addStyleTag({ content: `[data-node-id]:not([data-node-id="${id}"]) { visibility: hidden !important; }` });
  await settle(page, 40);
  const box = await page.locator(`[data-node-id="${id}"]`).first().boundingBox();
  const clip = { x: box.x - MARGIN, y: box.y - MARGIN, width: box.width + 2 * MARGIN, height: box.height + 2 * MARGIN };
  await page.screenshot({ path: join(out, `${type}.jpg`), type: "jpeg", quality: 86, clip });
  await others.evaluate((element) => element.remove());
}

/** The whole graph, without what ComfyUI shows around it. */
async function graphPicture(page, name) {
  await page.setViewportSize({ width: 2600, height: 1500 });
  const [width, height] = await page.evaluate((margin) => {
    const { canvas, graph } = window.app;
    const [right, bottom] = [0, 1].map((i) => Math.max(...graph._groups.map((group) => group.pos[i] + group.size[i])));
    const scale = 2300 / right;
    Object.assign(canvas.ds, { scale, offset: [120 / scale, 100 / scale] });
    canvas.links_render_mode = window.LiteGraph.SPLINE_LINK;
    canvas.setDirty(true, true);
    return [right * scale + 2 * margin, bottom * scale + 2 * margin];
  }, MARGIN);
  await settle(page, 40);
  const clip = { x: 120 - MARGIN, y: 100 - MARGIN, width, height };
  await page.screenshot({ path: join(out, `${name}.jpg`), type: "jpeg", quality: 84, clip });
  await page.setViewportSize({ width: 1700, height: 1500 });
}
