import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { RENDERERS, SERVER, addAll, addNode, fit, heightOf, openBrowser, openPage, picture, queuedPrompt, settle } from "./page.mjs";

let browser;
let definitions;

before(async () => {
  browser = await openBrowser();
  const all = await (await fetch(`${SERVER}/object_info`)).json();
  definitions = Object.entries(all).filter(([name]) => name.startsWith("VideoMemory"));
});
after(() => browser?.close());

for (const renderer of RENDERERS) {
  test(`every node of the pack can be created without an error, ${renderer}`, async () => {
    const { page, quiet, close } = await openPage(browser, { renderer });
    assert.ok(definitions.length >= 13);
    const made = await addAll(page, definitions.map(([name]) => name));
    const queued = await queuedPrompt(page);
    for (const [name, definition] of definitions) {
      const id = made[name];
      const title = await page.evaluate((node) => window.app.graph.getNodeById(node).title, id);
      assert.equal(title, definition.display_name);
      await fit(page, id);
      if (renderer === "nodes2") await page.locator(`[data-node-id="${id}"]`).first().waitFor();
      await picture(page, `node-${name}-${renderer}`);
      assert.deepEqual(Object.keys(queued[String(id)].inputs).sort(), widgetNames(definition), `${name} sends its widgets and no others`);
    }
    quiet();
    await close();
  });
}

/** Names of the widgets that a node shows. */
function shownWidgets(page, id, renderer) {
  return page.evaluate(([number, nodes2]) => {
    const node = window.app.graph.getNodeById(number);
    const hidden = ({ hidden: classic, options }) => (nodes2 ? options.hidden || options.canvasOnly || (options.advanced && !node.showAdvanced) : classic);
    return node.widgets.filter((widget) => !hidden(widget)).map((widget) => widget.name);
  }, [id, renderer === "nodes2"]);
}

for (const renderer of RENDERERS) {
  test(`the sampler shows what a film needs, on a laptop at full size, and the rest when asked for, ${renderer}`, async () => {
    const { page, quiet, close } = await openPage(browser, { renderer, size: [1366, 768] });
    const id = await addNode(page, "VideoMemorySampler", [150, 60]);
    const own = async () => (await shownWidgets(page, id, renderer)).filter((name) => !["advanced_inputs", "control_after_generate", "fixed"].includes(name));
    const needed = ["cfg", "seed", "width", "height", "film", "render_view"];
    assert.deepEqual((await own()).sort(), [...needed].sort());
    await page.evaluate(() => Object.assign(window.app.canvas.ds, { scale: 1, offset: [0, 0] }));
    const heights = await heightOf(page, id);
    await picture(page, `sampler-laptop-${renderer}`);
    assert.ok(heights[0] <= 768, `the node is ${heights} high`);
    await fit(page, id);
    if (renderer === "nodes2") await page.getByTestId("advanced-inputs-button").click();
    else await clickWidget(page, id, "advanced_inputs");
    const more = await own();
    for (const name of ["strength", "history_guidance", "branch_film"]) assert.ok(more.includes(name), name);
    for (const name of ["boundary", "low_noise_memory", "branch_section"]) assert.ok(!more.includes(name), `${name} would change nothing`);
    await page.evaluate((number) => {
      const loader = window.LiteGraph.createNode("UNETLoader");
      window.app.graph.add(loader);
      loader.connect(0, window.app.graph.getNodeById(number), "model_low_noise");
    }, id);
    await settle(page);
    assert.ok((await own()).includes("boundary") && (await own()).includes("low_noise_memory"));
    await page.evaluate((number) => {
      const widget = window.app.graph.getNodeById(number).widgets.find((one) => one.name === "branch_film");
      widget.value = "an earlier film";
      widget.callback?.(widget.value);
    }, id);
    await settle(page);
    assert.ok((await own()).includes("branch_section"), "it belongs to branch_film");
    await picture(page, `sampler-advanced-${renderer}`);
    quiet();
    await close();
  });

  test(`names of films that exist are offered where one is typed, ${renderer}`, async () => {
    await mkdir(join(process.env.VIDEO_MEMORY_WORK, "output", "video_memory", "a film of before"), { recursive: true });
    const { page, quiet, close } = await openPage(browser, { renderer });
    const id = await addNode(page, "VideoMemorySampler", [300, 120]);
    await fit(page, id);
    if (renderer === "nodes2") await page.locator(`[data-node-id="${id}"] input[aria-label="film"]`).focus();
    else await clickWidget(page, id, "film");
    await page.waitForFunction(() => {
      const field = document.activeElement?.matches("input") ? document.activeElement : document.querySelector(".graphdialog input");
      return [...(field?.list?.options ?? [])].some((option) => option.value === "a film of before");
    });
    quiet();
    await close();
  });
}

/** Clicks a widget of the classic canvas, which draws it. */
async function clickWidget(page, id, name) {
  const [x, y] = await page.evaluate(([number, widgetName]) => {
    const { canvas, graph } = window.app;
    const node = graph.getNodeById(number);
    const widget = node.widgets.find((one) => one.name === widgetName);
    const { scale, offset } = canvas.ds;
    const { left, top } = canvas.canvas.getBoundingClientRect();
    return [left + (node.pos[0] + node.size[0] / 2 + offset[0]) * scale, top + (node.pos[1] + widget.last_y + 10 + offset[1]) * scale];
  }, [id, name]);
  await page.mouse.click(x, y);
  await settle(page);
}

/** Names of the inputs of a definition that are widgets, not sockets. */
function widgetNames({ input }) {
  const widgets = new Set(["STRING", "INT", "FLOAT", "BOOLEAN", "COMBO"]);
  const all = Object.entries({ ...input.required, ...input.optional });
  const isWidget = ([type, options]) => (Array.isArray(type) || widgets.has(type)) && !options?.forceInput;
  return all.filter(([, spec]) => isWidget(spec)).map(([name]) => name).sort();
}

test("every node has a help page, and its pictures come from this server", async () => {
  for (const [name] of definitions.filter(([id]) => !id.startsWith("VideoMemoryDemo"))) {
    const base = `${SERVER}/extensions/ComfyUI-VideoMemory/docs/`; // where the help panel looks
    const page = await (await fetch(`${base}${name}.md`)).text();
    const pictures = [...page.matchAll(/!\[[^\]]+\]\(([^)]+)\)/g)].map((match) => match[1]);
    assert.ok(page.startsWith("# ") && pictures.length > 0, name);
    for (const path of pictures) {
      const answer = await fetch(new URL(path, base));
      await answer.arrayBuffer();
      assert.ok(answer.ok && answer.headers.get("content-type") === "image/jpeg", `${name}: ${path}`);
    }
  }
});
