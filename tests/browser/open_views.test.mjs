import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { RENDERERS, addAll, addNode, clear, openBrowser, openPage, settle } from "./page.mjs";

const SAMPLER = "VideoMemorySampler";
const WATCHED = { [SAMPLER]: "vm-film-strip", VideoMemoryTrain: "vm-train-curve", VideoMemoryStoryboard: "vm-sb-timeline" };
const FILM = "a film of copies";
const NONE = { "vm-film-strip": 0, "vm-train-curve": 0, "vm-sb-timeline": 0, wheel: 0 };
const ONE = { "vm-film-strip": 1, "vm-train-curve": 1, "vm-sb-timeline": 1, wheel: 2 }; // the strip's and the timeline's

let browser;

before(async () => {
  browser = await openBrowser();
});
after(() => browser?.close());

/** Counts what views watch by themselves from now on: their sizes, and the wheel of the whole window. */
function countWatching(page) {
  return page.evaluate((classes) => {
    const [watchers, wheels] = [new Map(), new Set()];
    const { observe, disconnect } = ResizeObserver.prototype;
    ResizeObserver.prototype.observe = function (target, ...more) {
      const name = classes.find((one) => target.classList?.contains(one));
      if (name) watchers.set(this, name);
      return observe.call(this, target, ...more);
    };
    ResizeObserver.prototype.disconnect = function () {
      watchers.delete(this);
      return disconnect.call(this);
    };
    const { addEventListener, removeEventListener } = window;
    window.addEventListener = function (type, listen, ...more) {
      if (type === "wheel") wheels.add(listen);
      return addEventListener.call(this, type, listen, ...more);
    };
    window.removeEventListener = function (type, listen, ...more) {
      wheels.delete(listen);
      return removeEventListener.call(this, type, listen, ...more);
    };
    window.watching = () => ({
      ...Object.fromEntries(classes.map((one) => [one, [...watchers.values()].filter((name) => name === one).length])),
      wheel: wheels.size,
    });
  }, Object.values(WATCHED));
}

/** What is watched once each view has heard something. */
async function watching(page) {
  await page.evaluate(() => {
    const { api, graph } = window.app;
    document.dispatchEvent(new Event("visibilitychange"));
    api.dispatchEvent(new CustomEvent("video_memory.training", { detail: { node: "0", run: "another", state: "started", steps: 1, first_step: 0 } }));
    api.dispatchEvent(new CustomEvent("graphChanged", { detail: graph.serialize() }));
  });
  return page.evaluate(() => window.watching());
}

/** Tells of a section that is done: so often is the run interrupted upon it, and so often the film read. */
async function sectionDone(page, seen, expected, why) {
  // The page's own clock: views ask 150 ms after they have heard something, however busy the machine is.
  const wait = () => page.evaluate(() => new Promise((done) => setTimeout(done, 500)));
  await wait(); // for what was to be read before
  await settle(page);
  seen.length = 0;
  await page.evaluate((film) => {
    const sections = [0, 1, 2].map((index) => ({ index, shot: index, prompt: "", start_seconds: index, seconds: 1, frames: 16, locked: false, kept: false, take: 0 }));
    for (const said of [{ state: "started", sections, before: 0 }, { state: "sampling", index: 0, left: null }, { state: "done", index: 0, took: 3, left: null }])
      window.app.api.dispatchEvent(new CustomEvent("video_memory.section", { detail: { node: "1", film, count: 3, ...said } }));
  }, FILM);
  await wait();
  await settle(page);
  const count = (what) => seen.filter((one) => one === what).length;
  assert.deepEqual({ interrupts: count("interrupt"), reads: count("read") }, expected, why);
}

/** Notes requests; a run that another test has going is not interrupted. */
async function noteRequests(page) {
  const seen = [];
  await page.route("**/api/interrupt", (route) => (seen.push("interrupt"), route.fulfill({ status: 200 })));
  page.on("request", (request) => {
    if (request.url().endsWith(`/video_memory/film/${encodeURIComponent(FILM)}`)) seen.push("read");
  });
  return seen;
}

/** The film's name and its switch, wherever the sampler is. */
function setFilm(page, review) {
  return page.evaluate(([type, film, on]) => {
    const { graph } = window.app;
    const node = [graph, ...graph.subgraphs.values()].flatMap(({ _nodes }) => _nodes).find((one) => one.type === type);
    node.widgets.find(({ name }) => name === "film").value = film;
    node.properties["film.review"] = on;
  }, [SAMPLER, FILM, review]);
}

/** Copies everything that is in the root graph, as Ctrl+C does. */
function copyAll(page) {
  return page.evaluate(() => {
    const { canvas, graph } = window.app;
    canvas.selectItems(graph._nodes);
    canvas.copyToClipboard();
    canvas.deselectAll();
  });
}

for (const renderer of RENDERERS) {
  test(`a copied sampler in no graph interrupts no run, nor does one that was deleted ask for its film, ${renderer}`, async () => {
    const { page, quiet } = await openPage(browser, { renderer, fresh: true });
    const seen = await noteRequests(page);
    const id = await addNode(page, SAMPLER);
    await setFilm(page, true);
    await sectionDone(page, seen, { interrupts: 1, reads: 1 }, "the review of the node itself");
    await copyAll(page);
    await sectionDone(page, seen, { interrupts: 1, reads: 1 }, "that of its copy is not another one");
    await setFilm(page, false);
    await sectionDone(page, seen, { interrupts: 0, reads: 1 }, "the one node says that there is none");
    await page.evaluate((node) => window.app.graph.remove(window.app.graph.getNodeById(node)), id);
    await sectionDone(page, seen, { interrupts: 0, reads: 0 });
    quiet();
    await page.context().close();
  });

  test(`a view in a subgraph acts once, and ends with its workflow, ${renderer}`, async () => {
    const { page, quiet } = await openPage(browser, { renderer, fresh: true });
    const seen = await noteRequests(page);
    await countWatching(page);
    await addAll(page, Object.keys(WATCHED));
    await setFilm(page, true);
    await copyAll(page);
    assert.deepEqual(await watching(page), ONE);
    await page.evaluate(() => {
      const { graph } = window.app;
      for (const node of [...graph._nodes]) graph.remove(node), graph.add(node);
    });
    assert.deepEqual(await watching(page), ONE, "a node that comes back has its view again");
    await page.evaluate(() => window.app.graph.convertToSubgraph(new Set(window.app.graph._nodes)));
    await settle(page);
    assert.deepEqual(await watching(page), ONE, "in a subgraph");
    await sectionDone(page, seen, { interrupts: 1, reads: 1 });
    await copyAll(page);
    assert.deepEqual(await watching(page), ONE, "the copy of a subgraph is in no workflow");
    for (let time = 0; time < 3; time += 1) {
      await page.evaluate(() => window.app.loadGraphData(window.app.graph.serialize(), true, false, window.app.extensionManager.workflow.activeWorkflow));
      await settle(page);
    }
    assert.deepEqual(await watching(page), ONE, "loaded again, as by an undo");
    await sectionDone(page, seen, { interrupts: 1, reads: 1 });
    await setFilm(page, false);
    await sectionDone(page, seen, { interrupts: 0, reads: 1 });
    await clear(page);
    assert.deepEqual(await watching(page), NONE, "the workflow is gone");
    await sectionDone(page, seen, { interrupts: 0, reads: 0 });
    quiet();
    await page.context().close();
  });
}
