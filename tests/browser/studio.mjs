/** Each of the pack's views in every state, filled without a model: what is looked at, by a test or by a person. */

import { readFile } from "node:fs/promises";

import { SERVER, addNode, fit, openPage, settle } from "./page.mjs";

export const PLANNED = 40;
const MADE = new URL("../../tools/workflows/first_film/", import.meta.url); // frames of the tiny family
const SHOTS = Array.from({ length: PLANNED }, (_, i) => ({
  start: 5 * i, end: 5 * i + 5, prompt: i === 3 ? "" : `Mira walks through street number ${i + 1} in the evening light`, transition: i % 3 === 1 ? "continue" : "cut",
  ...(i === 2 ? { name: "The pier" } : {}), ...(i === 1 ? { locked: true } : {}), ...(i % 9 === 0 ? { picture: "mira.png" } : {}),
})); // prettier-ignore
const CAST = [{ name: "Mira", look: "a girl with red hair", picture: "mira.png" }, { look: "watercolour" }];
const board = (count) => ({ version: 1, shots: SHOTS.slice(0, count), negative: "", cast: CAST });

/** What the server says of a film of which `made` sections are on disk, of every kind where it is not finished. */
function film(made, stills) {
  const kinds = made < PLANNED ? ["stored", "reused", "locked", "stored"] : ["reused"];
  const plan = SHOTS.map(({ prompt }, index) => ({
    index, shot: index, prompt, start_seconds: 5 * index, seconds: 5, frames: 80, locked: index === 1, kept: index < 6, take: 0,
  })); // prettier-ignore
  const sections = plan.slice(0, made).map((entry, i) => ({
    ...entry, key: String(i % 10).repeat(64), status: made < PLANNED && i === made - 1 ? "stale" : kinds[i % kinds.length], clip: true, versions: 1 + (i % 3 > 0),
  })); // prettier-ignore
  const pictures = [["0:1", -1, true], ["1:4", 0, true], ["2:9", 1, false]].map(([id, section, kept], i) => ({ id, section, frame: 4, kept, pinned: false, banned: false, image: stills[i] }));
  return { film: "studio", plan, sections, pictures, run: null };
}

const TAKES = [0, 1].map((take) => ({ key: String(take).repeat(64), take, made: 1_700_000_000 + 60 * take }));

/** A page with each of the pack's views. The studio's `film` is what the server says of the sampler's film from now on. */
export async function openStudio(browser, renderer, theme, size) {
  const opened = await openPage(browser, { renderer, size, settings: { "Comfy.ColorPalette": theme } });
  const { page } = opened;
  const files = await Promise.all([0, 1, 2, 3].map((i) => readFile(new URL(`section_${i}.webp`, MADE))));
  const stills = files.map((file) => `data:image/webp;base64,${file.toString("base64")}`);
  const studio = { ...opened, film: film(20, stills), stills, ids: {}, base: await page.evaluate(() => window.LiteGraph.NODE_DEFAULT_BGCOLOR) };
  await page.route(/\/video_memory\/film\//, (route) => {
    const { pathname, searchParams } = new URL(route.request().url());
    const [, what, index] = /\/(clip|takes)\/(\d+)$/.exec(pathname) ?? [];
    if (what === "clip") return route.fulfill({ body: files[(Number(index) + Number(searchParams.get("key")[0])) % 4], contentType: "image/webp" });
    return route.fulfill({ json: what ? { film: "studio", index: Number(index), takes: TAKES } : studio.film });
  });
  const picture = { name: "mira.png", mimeType: "image/webp", buffer: files[0] };
  await page.request.post(`${SERVER}/upload/image`, { multipart: { image: picture, overwrite: "true" } });
  const losses = Array.from({ length: 4000 }, (_, i) => [i, 0.06 + 1 / (i / 200 + 1)]);
  await page.route("**/video_memory/training/**", (route) => (route.request().url().includes("/recalled")
    ? route.fulfill({ body: files[2], contentType: "image/webp" })
    : route.fulfill({ json: { run: "memory", losses, heldout: losses.filter(([i]) => i % 400 === 399).map(([i, loss]) => [i, loss + 0.05]), without_memory: [[3999, 0.6]], nothing: 0.9, recalled: "step-4000" } }))); // prettier-ignore
  for (const [name, type, x, y] of [
    ["board", "VideoMemoryStoryboard", 0, 0], ["sampler", "VideoMemorySampler", 760, 0], ["retrieve", "VideoMemoryRetrieve", 1320, 0],
    ["recall", "VideoMemoryRetrievalReport", 1320, 520], ["train", "VideoMemoryTrain", 1760, 0], ["budget", "VideoMemoryBudget", 1760, 800],
  ]) studio.ids[name] = await addNode(page, type, [x, y]); // prettier-ignore
  await write(studio, "board", "storyboard", JSON.stringify(board(PLANNED)));
  await write(studio, "sampler", "film", "studio");
  await write(studio, "train", "run", "memory");
  await page.evaluate((all) => {
    const node = (name) => window.app.graph.getNodeById(all[name]);
    node("retrieve").onExecuted({ video_memory_timeline: [{ frames: 33, sections: [{ first: 0, last: 16, number: 0, prompt: "a red door" }, { first: 17, last: 32, number: 1, prompt: "a street" }], asked: [[1, 4]] }] });
    node("budget").onExecuted({ text: ["Memory of the whole film: 3,600 tokens"] });
  }, studio.ids);
  await page.locator(".vm-sb-sum").filter({ hasText: "sections" }).waitFor();
  return studio;
}

/** Writes a widget of a node, by the studio's name of it. */
async function write({ page, ids }, name, widget, value) {
  await page.evaluate(([id, what, text]) => {
    const found = window.app.graph.getNodeById(id).widgets.find((one) => one.name === what);
    found.value = text;
    found.callback?.(text);
  }, [ids[name], widget, value]);
  await settle(page);
}

/** A message of the server about the film. */
export const tell = ({ page, ids }, message) => page.evaluate(
  ([node, data]) => window.app.api.dispatchCustomEvent("video_memory.section", { node: String(node), film: "studio", ...data }),
  [ids.sampler, { count: PLANNED, ...message }],
); // prettier-ignore
const event = ({ page, ids }, name, text) => page.evaluate(
  ([node, what, message]) => window.app.api.dispatchCustomEvent(what, { node_id: String(node), node_type: "VideoMemorySampler", exception_message: message, traceback: [] }),
  [ids.sampler, name, text],
); // prettier-ignore
const press = ({ page }, name, root = ".vm-film") => page.locator(root).getByRole("button", { name, exact: true }).first().click();

/** The film's answer is another one, and a run that ends makes the view read it. */
export async function reread(studio, made) {
  studio.film = film(made, studio.stills);
  await tell(studio, { state: "sampling", index: PLANNED - 1, left: 9 });
  await event(studio, "execution_success");
  await studio.page.locator(".vm-film-head").getByText(made < PLANNED ? `${made - 1} of ${PLANNED}` : `${PLANNED} sections`).waitFor();
}

/** States in their order, as [name, node, selector of its view, what a person or the server does to come there from the one before]. */
export const STATES = [
  ["board-forty", "board", ".vm-sb", async ({ page }) => page.locator(".vm-sb-cast summary").click()],
  ["board-locked", "board", ".vm-sb", async ({ page }) => {
    await page.locator(".vm-sb-timeline").focus();
    for (const key of ["Alt+Shift+ArrowRight", "Delete"]) await page.keyboard.press(key); // a locked shot: a notice
  }],
  ["board-paste", "board", ".vm-sb", async ({ page }) => {
    const panel = page.locator(".vm-sb-paste");
    await page.locator('.vm-sb [data-action="paste"]').click();
    await panel.locator("textarea").fill("- a kitchen\n- a street");
    await panel.getByRole("button", { name: "Replace: each line a shot" }).click();
    await panel.getByText("is locked; unlock it first").waitFor();
  }],
  ["board-picture", "board", ".vm-sb", async ({ page }) => {
    await page.keyboard.press("Escape"); // which closes the pasting
    await page.locator(".vm-sb-timeline").focus();
    await page.keyboard.press("p");
  }],
  ["board-plan", "board", ".vm-sb", async ({ page }) => {
    for (const key of ["Escape", "Home"]) await page.keyboard.press(key);
    for (const summary of await page.locator(".vm-sb-plan summary").all()) await summary.click();
  }],
  ["board-three", "board", ".vm-sb", async (studio) => {
    for (const summary of await studio.page.locator(".vm-sb-plan summary").all()) await summary.click();
    await write(studio, "board", "storyboard", JSON.stringify(board(3)));
    await studio.page.locator(".vm-sb-sum").filter({ hasText: "3 sections" }).waitFor();
  }],
  ["board-foreign", "board", ".vm-sb", async (studio) => {
    await write(studio, "board", "storyboard", "[0s: a kitchen] [5s-10s: a street]");
    await studio.page.getByText("This text is in another format").waitFor();
  }],
  ["board-error", "board", ".vm-sb", async (studio) => {
    await write(studio, "board", "storyboard", '{"version": 1, "shots": [{"start": 0, "prompt": "a", "camera": 1}]}');
    await studio.page.locator(".vm-sb-error").getByText("camera").waitFor();
  }],
  ["board-linked", "board", ".vm-sb", async (studio) => {
    await studio.page.evaluate((id) => {
      const text = window.LiteGraph.createNode("StringConcatenate");
      text.pos = [-500, 0];
      window.app.graph.add(text);
      const board = window.app.graph.getNodeById(id);
      text.connect(0, board, board.inputs.findIndex((input) => input.name === "storyboard"));
    }, studio.ids.board);
    await studio.page.getByText("What it says is known after a run.").waitFor();
    await studio.page.locator(".vm-sb-error").waitFor({ state: "hidden" }); // which was of the text before
  }],
  ["sampler-rest", "sampler", ".vm-film", async () => {}],
  ["sampler-bad", "sampler", ".vm-film", async (studio) => {
    await write(studio, "sampler", "redo", "second");
    await studio.page.locator(".vm-film-pending").getByText("not understood").waitFor();
  }],
  ["sampler-redo", "sampler", ".vm-film", async (studio) => {
    await write(studio, "sampler", "redo", "");
    await studio.page.locator(".vm-film-tile").nth(4).click();
    await press(studio, "Redo");
  }],
  ["sampler-question", "sampler", ".vm-film", async ({ page }) => {
    await page.locator(".vm-film-tile").nth(5).click();
    await page.keyboard.press("r");
  }],
  ["sampler-running", "sampler", ".vm-film", async (studio) => {
    await studio.page.keyboard.press("Escape");
    await tell(studio, { state: "sampling", index: 6, left: 90 });
    await tell(studio, { state: "step", index: 6, step: 3, steps: 20, left: 80 });
  }],
  ["sampler-interrupted", "sampler", ".vm-film", async (studio) => {
    await tell(studio, { state: "sampling", index: 7, left: 90 });
    await event(studio, "execution_interrupted");
  }],
  ["sampler-review", "sampler", ".vm-film", async (studio) => {
    await studio.page.evaluate(() => (window.app.api.interrupt = async () => {}));
    await press(studio, "Review");
    await tell(studio, { state: "sampling", index: 17, left: 90 });
    await tell(studio, { state: "done", index: 17, took: 4, left: 80 });
    await event(studio, "execution_interrupted");
  }],
  ["sampler-grid", "sampler", ".vm-film", async (studio) => press(studio, "Grid")],
  ["sampler-pictures", "sampler", ".vm-film", async ({ page }) => {
    await page.getByRole("button", { name: /^Pictures/ }).click();
    await page.getByRole("button", { name: "Ban frame 4 of section 2" }).click();
  }],
  ["sampler-finished", "sampler", ".vm-film", async (studio) => {
    await studio.page.getByRole("button", { name: "Ban frame 4 of section 2" }).click();
    await studio.page.getByRole("button", { name: /^Pictures/ }).click();
    for (const name of ["Grid", "Clear takes and locks", "Unlock and go on"]) await press(studio, name);
    await reread(studio, PLANNED);
  }],
  ["sampler-player", "sampler", ".vm-film", async ({ page }) => {
    await page.getByRole("button", { name: /Play film/ }).click();
    await page.locator(".vm-film-player").getByRole("button", { name: /^Pause/ }).click();
    await page.waitForFunction(() => document.querySelector(".vm-film-screen").width === 128);
  }],
  ["sampler-compare", "sampler", ".vm-film", async (studio) => {
    await studio.page.keyboard.press("Escape");
    await studio.page.locator(".vm-film-tile").nth(4).click();
    await press(studio, "Compare");
    await studio.page.waitForFunction(() => [...document.querySelectorAll(".vm-film-side canvas")].every(({ width }) => width === 128));
  }],
  ["inspector", "retrieve", ".vm-inspect", async ({ page }) => page.keyboard.press("Escape")],
  ["recall", "recall", ".vm-inspect", async () => {}, 1],
  ["recall-lost", "recall", ".vm-inspect", async ({ page, ids }) => {
    await page.route("**/view?*lost*", (route) => route.fulfill({ body: "no picture" }));
    await page.evaluate((id) => window.app.graph.getNodeById(id).onExecuted({
      video_memory_recall: [{ subfolder: "", type: "temp", psnr: [30, 31], pairs: [0, 1].map((frame) => ({ frame, original: "lost.webp", recalled: "lost.webp" })) }],
    }), ids.recall);
    await page.getByText("The pictures are gone").locator("visible=true").waitFor();
  }, 1],
  ["training", "train", ".vm-train", async () => {}],
  ["training-phase", "train", ".vm-train", async ({ page, ids }) => {
    const pace = { seconds_a_step: 1.5, clips_a_second: 2.7, learning_rate: 1e-4, gradient_norm: 0.4, seconds_left: 9000 };
    await page.evaluate((messages) => {
      for (const detail of messages) window.app.api.dispatchCustomEvent("video_memory.training", detail);
    }, [{ state: "losses", losses: [[4000, 0.1]], pace }, { state: "phase", phase: "saving" }].map((one) => ({ node: String(ids.train), run: "memory", steps: 5000, ...one })));
    await page.getByText("saving").waitFor();
  }],
  ["budget", "budget", ".vm-report", async () => {}],
  ["sampler-failed", "sampler", ".vm-film", async (studio) => { // at the end: core's notice of it stays
    await studio.page.keyboard.press("Escape");
    await reread(studio, 20);
    await tell(studio, { state: "sampling", index: 6, left: 90 });
    await event(studio, "execution_error", "out of memory");
  }],
]; // prettier-ignore

/** Brings a studio into one state after the other; `look(name, root, node)` is called in each. */
export async function eachState(studio, look) {
  for (const [name, node, selector, act, which = 0] of STATES) {
    await fit(studio.page, studio.ids[node]);
    await act(studio);
    const root = studio.page.locator(selector).nth(which);
    await root.waitFor();
    await settle(studio.page);
    await look(name, root, studio.ids[node]);
  }
}
