/** Descriptions of workflows to the files that ComfyUI's own frontend makes of them: node convert.mjs PLANS OUT. */

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { SERVER, openBrowser, openPage, queuedPrompt, settle } from "../../tests/browser/page.mjs";

const [plansFile, out] = process.argv.slice(2);
/** Where a workflow opens: at its first note, large enough to read. */
const VIEW = { scale: 0.8, offset: [110, 110] };
const plans = JSON.parse(await readFile(plansFile, "utf8"));
await mkdir(join(out, "api"), { recursive: true });
const definitions = await (await fetch(`${SERVER}/object_info`)).json();
for (const plan of plans) {
  plan.linked = Object.fromEntries(Object.entries(plan.prompt).map(([id, entry]) => [id, withDefaults(entry)]));
}
const browser = await openBrowser();
try {
  await measure();
  await convert();
} finally {
  await browser.close();
}

/**
 * Writes the default of every widget that the description leaves out. Without it the frontend may take the value that a
 * node of the same number had in the workflow before. Gives those that a link leads to, which keep theirs beside it.
 */
function withDefaults({ class_type: type, inputs }) {
  const { required, optional } = definitions[type].input;
  const linked = {};
  for (const [name, [kind, options]] of Object.entries({ ...required, ...optional })) {
    const first = Array.isArray(kind) ? kind[0] : options?.options?.[0];
    const value = options?.default ?? (kind === "COMBO" || Array.isArray(kind) ? first : undefined);
    if (!["string", "number", "boolean"].includes(typeof value)) continue;
    if (Array.isArray(inputs[name])) linked[name] = value;
    else inputs[name] ??= value;
  }
  return linked;
}

/**
 * Notes the height that each node takes in Nodes 2.0, which draws widgets with more room than the canvas. The plans share a
 * page, where a node keeps the height of the node that had its number before: so each has numbers of its own.
 */
async function measure() {
  const { page, quiet, close } = await openPage(browser, { renderer: "nodes2" });
  for (const [place, plan] of plans.entries()) {
    const by = 10_000 * (place + 1);
    await page.evaluate(build, numberedFrom(plan, by));
    // At full size: nodes that are far away are drawn without their contents.
    await page.evaluate(() => Object.assign(window.app.canvas.ds, { scale: 1, offset: [0, 0] }));
    await settle(page, 20);
    const found = await page.evaluate(heights);
    plan.heights = Object.fromEntries(Object.entries(found).map(([id, height]) => [Number(id) - by, height]));
  }
  quiet();
  await close();
}

/** The plan with other numbers of nodes; `by` is added. */
function numberedFrom(plan, by) {
  const moved = (entries) => Object.fromEntries(Object.entries(entries).map(([id, entry]) => [Number(id) + by, entry]));
  const link = (value) => (Array.isArray(value) ? [String(Number(value[0]) + by), value[1]] : value);
  const inputs = (entry) => Object.fromEntries(Object.entries(entry.inputs).map(([name, value]) => [name, link(value)]));
  const prompt = Object.entries(plan.prompt).map(([id, entry]) => [id, { ...entry, inputs: inputs(entry) }]);
  const notes = plan.notes.map((note) => ({ ...note, id: note.id + by }));
  const [nodes, linked] = [moved(plan.nodes), moved(plan.linked)];
  return { ...plan, prompt: moved(Object.fromEntries(prompt)), nodes, linked, notes };
}

/** Writes both files of each plan from the classic canvas, whose files both renderers read. */
async function convert() {
  const { page, quiet, close } = await openPage(browser);
  for (const plan of plans) {
    await page.evaluate(build, plan);
    await settle(page, 12);
    await page.evaluate(arrange, plan);
    await settle(page);
    const workflow = await page.evaluate(async () => (await window.app.graphToPrompt()).workflow);
    const extra = { ...workflow.extra, ds: VIEW, name: plan.name };
    await save(join(out, `${plan.file}.json`), { ...workflow, ...plan.stamp, extra });
    await save(join(out, "api", `${plan.name}.json`), await queuedPrompt(page));
  }
  quiet();
  await close();
}

function save(path, value) {
  return writeFile(path, `${JSON.stringify(value, null, 2)}\n`);
}

/** In the page: the nodes with their values, links, sizes and models, and the notes. */
function build(plan) {
  const { app, LiteGraph } = window;
  app.loadApiJson(plan.prompt, plan.name);
  for (const [id, { size, models }] of Object.entries(plan.nodes)) {
    const node = app.graph.getNodeById(Number(id));
    if (!node) throw new Error(`${plan.name}: node ${id} was not made`);
    const least = node.computeSize();
    node.setSize(size ? [Math.max(size[0], least[0]), Math.max(size[1], least[1])] : [Math.max(least[0], 300), least[1]]);
    if (models.length) node.properties.models = models;
    Object.assign(node.properties, plan.packs[node.type.startsWith("VideoMemory") ? "ours" : "core"]);
    for (const widget of node.widgets ?? []) {
      if (widget.name === "control_after_generate") widget.value = "fixed"; // another seed is another film
      if (widget.name in plan.linked[id]) widget.value = plan.linked[id][widget.name];
    }
  }
  for (const { id, title, text, size } of plan.notes) {
    const note = LiteGraph.createNode("MarkdownNote");
    note.id = id;
    note.title = title;
    note.widgets[0].value = text;
    app.graph.add(note);
    note.setSize(size);
    note.color = "#432";
    note.bgcolor = "#653";
  }
}

/** In the page: heights of the nodes as they are drawn, in units of the graph, without the title; of a note, what its text takes. */
function heights() {
  const found = {};
  for (const element of document.querySelectorAll("[data-node-id]")) {
    const text = element.querySelector(".comfy-markdown-content");
    const words = document.createRange();
    if (text) words.selectNodeContents(text);
    // The classic canvas, and other languages, take a line more here and there.
    found[element.dataset.nodeId] = text ? words.getBoundingClientRect().height + 60 : element.offsetHeight - 30;
  }
  return found;
}

/** In the page: columns of nodes from left to right, each group in its frame. */
function arrange(plan) {
  const { app, LiteGraph } = window;
  const [gap, title, pad, between] = [36, 30, 24, 60];
  let left = 0;
  for (const { title: name, color, columns } of plan.groups) {
    let [right, bottom] = [left + pad, 0];
    for (const column of columns) {
      const nodes = column.map((id) => app.graph.getNodeById(id));
      const width = Math.max(...nodes.map((node) => node.size[0]));
      let top = 60;
      for (const node of nodes) {
        node.pos = [right, top + title];
        node.setSize([width, Math.max(node.size[1], Math.ceil(plan.heights[node.id] ?? 0))]);
        top += title + node.size[1] + gap;
      }
      right += width + gap;
      bottom = Math.max(bottom, top - gap + (plan.nodes[column.at(-1)]?.grows ?? 0));
    }
    const group = new LiteGraph.LGraphGroup(name);
    group.color = color;
    group.pos = [left, 0];
    group.size = [right - gap + pad - left, bottom + pad];
    app.graph.add(group);
    left = right - gap + pad + between;
  }
}
