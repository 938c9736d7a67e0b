/** A page of the real ComfyUI in a real browser, for tests: nothing leaves the machine, nothing goes wrong unseen. */

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

export const SERVER = process.env.VIDEO_MEMORY_TEST_URL;
export const RENDERERS = ["classic", "nodes2"];
export const PATIENCE = 300_000; // for whatever comes: a busy machine takes its time, and only what hangs is given up
const PLAYWRIGHT = process.env.VIDEO_MEMORY_PLAYWRIGHT;
const PICTURES = process.env.VIDEO_MEMORY_SCREENSHOTS;

/** Settings of every test page: no tours, no news, and the frontend's own check of workflow files. */
const SETTINGS = {
  "Comfy.ColorPalette": "dark",
  "Comfy.InstalledVersion": "1.0.0",
  "Comfy.TutorialCompleted": true,
  "Comfy.Notification.ShowVersionUpdates": false,
  "Comfy.Release.Status": "skipped",
  "Comfy.Validation.Workflows": true,
  "Comfy.Workflow.Persist": false,
  "Comfy.Workflow.WarnBlueprintOverwrite": false,
};

/** What ComfyUI's own pages log as errors; each with its reason. */
const NOT_OURS = [
  // Optional files of the user that ComfyUI asks for and that a fresh installation lacks.
  /Failed to load resource: .*404.*\/(userdata|user\.css|api\/userdata)/,
  // With --disable-api-nodes the server forbids other hosts; core's front end tries them all the same.
  // Whether it was ours is seen by `watchPolicy`.
  /(Refused to connect|violates the following Content Security Policy|Content Security Policy directive)/,
  // Core gives up its own question after a while, as on a busy machine.
  /Failed to fetch remote config: AbortError/,
  // Core's own stores look at the graph before core has made it.
  /ComfyApp graph accessed before initialization/,
];

/** The browser; one for a test file is enough. Close it in `after`. */
export async function openBrowser() {
  const { chromium } = await import(pathToFileURL(join(PLAYWRIGHT, "index.mjs")).href);
  return chromium.launch({
    executablePath: process.env.VIDEO_MEMORY_CHROMIUM,
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--force-color-profile=srgb", "--lang=en-US"],
  });
}

/** Changes settings on the server, as the settings dialog does. Pages opened afterwards have them. */
export async function setSettings(values) {
  const answer = await fetch(`${SERVER}/api/settings`, { method: "POST", body: JSON.stringify(values) });
  const text = await answer.text(); // an unread answer keeps its connection, and with it the test process
  if (!answer.ok) throw new Error(`settings were refused: HTTP ${answer.status} ${text}`);
}

/** Pages that a test is done with, by how they were opened: to load ComfyUI takes longer than most tests. */
const idle = new Map();

/**
 * A page with ComfyUI ready to use and an empty graph; one that an earlier test has closed, unless it is to be `fresh`.
 *
 * `renderer` is "classic" or "nodes2". Returns `{ page, errors, outside, quiet, close }`: `errors` collects console
 * errors and uncaught exceptions, `outside` the requests to other hosts, each aborted; `quiet()` throws when there are any.
 */
export async function openPage(browser, { fresh = false, ...how } = {}) {
  const key = JSON.stringify(how);
  if (!idle.has(key)) idle.set(key, []);
  const opened = (fresh ? null : idle.get(key).pop()) ?? (await loadPage(browser, how));
  return { ...opened, close: () => putBack(opened, idle.get(key)) };
}

/** Empties a page for the next test; one that cannot be emptied is closed. */
async function putBack(opened, others) {
  const { page, errors, outside } = opened;
  if (others.length) return page.context().close();
  await page.unrouteAll({ behavior: "ignoreErrors" });
  await guard(page, outside);
  await page.mouse.move(0, 0);
  await newWorkflow(page);
  errors.length = outside.length = 0;
  others.push(opened);
}

/** An empty workflow, with an undo of its own, in the place of all that are open. */
async function newWorkflow(page) {
  await page.evaluate(async () => {
    const { command, workflow } = window.app.extensionManager;
    const old = [...workflow.openWorkflows];
    await command.execute("Comfy.NewBlankWorkflow");
    for (const one of old) if (one !== workflow.activeWorkflow) await workflow.closeWorkflow(one);
    document.activeElement?.blur();
  });
  await clear(page);
}

async function loadPage(browser, { renderer = "classic", locale = "en", settings = {}, size = [1600, 950] }) {
  const nodes2 = { "Comfy.VueNodes.Enabled": renderer === "nodes2" };
  await setSettings({ ...SETTINGS, "Comfy.Locale": locale, ...nodes2, ...settings });
  // Without a graphics card, what moves all the time in Nodes 2.0 costs more than what the tests do.
  const reducedMotion = "reduce";
  const context = await browser.newContext({ viewport: { width: size[0], height: size[1] }, serviceWorkers: "block", reducedMotion });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  const watched = watch(page);
  await guard(page, watched.outside);
  await watchPolicy(page, watched.outside);
  await page.goto(SERVER, { waitUntil: "domcontentloaded" });
  await ready(page);
  await clear(page);
  return { page, ...watched };
}

/** Lets no request leave the machine. */
function guard(page, outside) {
  return page.route("**/*", (route) => {
    const url = route.request().url();
    if (isLocal(url)) return route.continue();
    outside.push(url);
    return route.abort();
  });
}

function isLocal(url) {
  return url.startsWith(`${SERVER}/`) || /^(data|blob|about):/.test(url);
}

function watch(page) {
  const errors = [];
  const outside = [];
  page.on("console", (message) => {
    if (message.type() !== "error") return;
    const text = `${message.text()} (${message.location().url})`;
    if (!NOT_OURS.some((pattern) => pattern.test(text))) errors.push(text);
  });
  page.on("pageerror", (error) => errors.push(error.stack ?? String(error)));
  /** Throws when anything was logged as an error or sent to another host so far. */
  const quiet = () => {
    if (errors.length) throw new Error(`errors in the page:\n${errors.join("\n")}`);
    if (outside.length) throw new Error(`requests left the machine:\n${outside.join("\n")}`);
  };
  return { errors, outside, quiet };
}

/** Adds what the pack's own scripts tried to reach and the server's policy stopped, which no route sees. */
async function watchPolicy(page, outside) {
  await page.exposeFunction("reportViolation", (url, source) => {
    if (source.includes("/extensions/") && !isLocal(url)) outside.push(`${url} from ${source}`);
  });
  await page.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) => {
      window.reportViolation(event.blockedURI, event.sourceFile ?? "");
    });
  });
}

/** Waits until the graph and all extensions are there. */
export async function ready(page) {
  await page.waitForFunction(() => window.app?.isGraphReady && window.app.extensionManager && window.app.canvas);
  await page.locator("#graph-canvas").waitFor();
  await settle(page);
}

/** Waits for the next frames, so that layout and drawing are done. */
export async function settle(page, frames = 6) {
  await page.evaluate(
    (count) =>
      new Promise((done) => {
        const step = () => (count-- > 0 ? requestAnimationFrame(step) : done());
        step();
      }),
    frames,
  );
}

/** Empties the graph; with a number of its own, as a new workflow has, or core gives its nodes the values of those before. */
export async function clear(page) {
  await page.evaluate(() => {
    window.app.graph.clear();
    window.app.graph.id = crypto.randomUUID();
    window.app.canvas.ds.reset(); // what lies outside of the view is hidden
  });
  await settle(page);
}

/** Adds a node by its id and returns its number in the graph. */
export async function addNode(page, type, position = [100, 120]) {
  const id = await page.evaluate(
    ([name, place]) => {
      const node = window.LiteGraph.createNode(name);
      if (!node) return null;
      node.pos = place;
      window.app.graph.add(node);
      return node.id;
    },
    [type, position],
  );
  if (id === null) throw new Error(`there is no node ${type}`);
  await settle(page);
  return id;
}

/** Adds a node of each type, side by side; returns their ids by type. */
export async function addAll(page, types) {
  const ids = await page.evaluate((all) => Object.fromEntries(all.map((type, place) => {
    const node = window.LiteGraph.createNode(type);
    node.pos = [800 * place, 120];
    window.app.graph.add(node);
    return [type, node.id];
  })), types);
  await settle(page);
  return ids;
}

/** Loads a workflow in UI form, as opening the file does. */
export async function loadWorkflow(page, workflow, name = "test") {
  await page.evaluate(([data, title]) => window.app.loadGraphData(data, true, true, title), [workflow, name]);
  await settle(page, 12);
}

/** Loads a prompt in API form. */
export async function loadPrompt(page, prompt, name = "test") {
  await page.evaluate(([data, title]) => window.app.loadApiJson(data, title), [prompt, name]);
  await settle(page, 12);
}

/** What would be queued now: the prompt in API form. */
export function queuedPrompt(page) {
  return page.evaluate(async () => {
    const { output } = await window.app.graphToPrompt();
    // Core's Load Video queues its preview too, as soon as the video has come; it is no input of the node.
    for (const { inputs } of Object.values(output)) delete inputs["video-preview"];
    // From 0.33 on core's Save Video asks for the codec inside of the format; both places say the same.
    for (const { inputs } of Object.values(output)) if (inputs["format.codec"] === inputs.codec) delete inputs["format.codec"];
    return output;
  });
}

/** The value of a widget. */
export function widgetValue(page, nodeId, name) {
  return page.evaluate(
    ([id, widget]) => window.app.graph.getNodeById(id)?.widgets?.find((w) => w.name === widget)?.value,
    [nodeId, name],
  );
}

/** Queues the graph; returns the prompt's id. */
export async function queue(page) {
  const answer = await page.evaluate(async () => {
    const prompt = await window.app.graphToPrompt();
    return window.app.api.queuePrompt(0, prompt);
  });
  if (!answer.prompt_id) throw new Error(`not queued: ${JSON.stringify(answer)}`);
  return answer.prompt_id;
}

/** Queues the graph and waits for its end; returns the history entry. Throws when a node failed. */
export async function queueAndWait(page) {
  const id = await queue(page);
  const end = Date.now() + PATIENCE;
  while (Date.now() < end) {
    const entry = (await (await fetch(`${SERVER}/history/${id}`)).json())[id];
    if (entry?.status?.status_str === "error") throw new Error(JSON.stringify(entry.status.messages.at(-1)));
    if (entry) return entry;
    await new Promise((done) => setTimeout(done, 250));
  }
  throw new Error(`not done after ${PATIENCE / 1000} s`);
}

/** Height of a node in the graph, and as Nodes 2.0 draws it; the latter is null on the classic canvas. */
export async function heightOf(page, nodeId) {
  await settle(page);
  return page.evaluate((id) => {
    const drawn = document.querySelector(`[data-node-id="${id}"]`);
    return [window.app.graph.getNodeById(id).size[1], drawn?.offsetHeight ?? null];
  }, nodeId);
}

/** Shows the whole graph, or one node, with some space around it. */
export async function fit(page, nodeId = null) {
  await page.evaluate((id) => {
    const { canvas, graph } = window.app;
    const nodes = id === null ? graph._nodes : [graph.getNodeById(id)];
    const [left, top] = [0, 1].map((i) => Math.min(...nodes.map((n) => n.pos[i] - (i ? 40 : 0))));
    const [right, bottom] = [0, 1].map((i) => Math.max(...nodes.map((n) => n.pos[i] + n.size[i])));
    canvas.ds.fitToBounds([left, top, right - left, bottom - top], { zoom: 0.9 });
    canvas.setDirty(true, true);
  }, nodeId);
  await settle(page, 12);
}

/** A node at 100 %, below ComfyUI's own bars. */
export async function at100(page, id) {
  await page.evaluate((node) => {
    const { canvas, graph } = window.app;
    const [x, y] = graph.getNodeById(node).pos;
    Object.assign(canvas.ds, { scale: 1, offset: [90 - x, 130 - y] });
    canvas.setDirty(true, true);
  }, id);
  await settle(page, 12);
}

/** Pairs of nodes whose rectangles meet, titles included, as they are drawn. */
export function overlaps(page) {
  return page.evaluate(() => {
    const boxes = window.app.graph._nodes.map((node) => {
      const element = document.querySelector(`[data-node-id="${node.id}"]`); // in Nodes 2.0 only
      const drawn = element?.getBoundingClientRect();
      const [x, y, width, height] = drawn ? [drawn.x, drawn.y, drawn.width, drawn.height] : node.getBounding();
      return { title: node.title, x, y, right: x + width, bottom: y + height };
    });
    const meet = (a, b) => a.x < b.right && b.x < a.right && a.y < b.bottom && b.y < a.bottom;
    return boxes.flatMap((a, i) => boxes.slice(i + 1).filter((b) => meet(a, b)).map((b) => `${a.title} / ${b.title}`));
  });
}

/** Saves a picture of the page, or of `clip`, where VIDEO_MEMORY_SCREENSHOTS names a folder. */
export async function picture(page, name, options = {}) {
  if (!PICTURES) return;
  await mkdir(PICTURES, { recursive: true });
  await page.screenshot({ path: join(PICTURES, `${name}.png`), ...options });
}
