import assert from "node:assert/strict";
import { rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { held, tinyFilm } from "./demo_film.mjs";
import {
  RENDERERS, SERVER, clear, fit, heightOf, loadPrompt, loadWorkflow, openBrowser, openPage, picture, queue, queueAndWait, ready, settle, widgetValue,
} from "./page.mjs";

const PROMPTS = ["Leo waves in the garden", "Max talks on the beach", "Mira in the kitchen"];
const RUN = Date.now(); // a film of an earlier run would be reused
const HOLD = join(process.env.VIDEO_MEMORY_WORK, "input", "hold.json"); // where tests/integration/hold_node.py stops

let browser;

before(async () => {
  browser = await openBrowser();
});
after(() => browser?.close());

/** Where the sampler stops from now on; the node reads the file all the time, and never half of it. */
async function hold(place) {
  await writeFile(`${HOLD}.new`, place);
  await rename(`${HOLD}.new`, HOLD);
}

/** A film of three sections of half a second. */
const film = (name) => tinyFilm(name, PROMPTS);
const NAME = `film ${RUN}`; // of the one that is made once, for both renderers
const prompt = film(NAME);

/** Loads the film and shows the sampler, since ComfyUI hides what lies outside of the window; returns its number. */
async function open(page, prompt) {
  await loadPrompt(page, prompt);
  const id = await page.evaluate(() => window.app.graph._nodes.find((node) => node.type === "VideoMemorySampler").id);
  await fit(page, id);
  return id;
}

/** What the server has on disk of a film: states of its finished sections. */
async function stored(name) {
  const answer = await fetch(`${SERVER}/video_memory/film/${encodeURIComponent(name)}`);
  return (await answer.json()).sections.map((section) => [section.index, section.status, section.key]);
}

async function states(page) {
  return page.locator(".vm-film-tile").evaluateAll((tiles) => tiles.map((tile) => tile.dataset.state));
}

async function shows(page, expected) {
  await page.waitForFunction(
    (wanted) => JSON.stringify([...document.querySelectorAll(".vm-film-tile")].map((tile) => tile.dataset.state)) === wanted,
    JSON.stringify(expected),
  ).catch(async () => assert.deepEqual(await states(page), expected));
}

/** Both takes of section 2 beside each other: they play in step, one is chosen, and the other again. */
async function compareTakes(page, renderer, choices) {
  const height = await page.locator(".vm-film").evaluate((view) => view.offsetHeight);
  const open = page.getByRole("button", { name: "Compare", exact: true });
  assert.equal(await open.isVisible(), true);
  const pair = page.getByRole("group", { name: "Compare", exact: true });
  const [left, right] = [pair.locator(".vm-film-side").nth(0), pair.locator(".vm-film-side").nth(1)];
  const drawn = () => pair.locator("canvas").evaluateAll((all) => all.map((one) => one.toDataURL()));
  for (const [side, use, expected] of [[left, "take 1", ["", "3"]], [right, "take 2", ['{"2":1}', "3"]]]) {
    await open.click();
    await page.waitForFunction(() => [...document.querySelectorAll(".vm-film-side canvas")].every(({ width }) => width > 32));
    await pair.getByRole("button", { name: /^Pause/ }).click();
    await pair.getByRole("slider", { name: "Place in the section" }).fill("0.3");
    assert.match(await side.getByRole("img").getAttribute("aria-label"), new RegExp(`^${use}, made at`));
    await picture(page, `film-compare-${renderer}`);
    await side.getByRole("button", { name: "Use this take" }).click();
    await pair.waitFor({ state: "hidden" });
    assert.deepEqual(await choices(), expected);
  }
  await open.click();
  await page.waitForFunction(() => [...document.querySelectorAll(".vm-film-side canvas")].every(({ width }) => width > 32));
  assert.equal(await left.getByRole("button", { name: "Use this take" }).isEnabled(), true);
  assert.equal(await right.getByRole("button", { name: "Use this take" }).isEnabled(), false, "the next run makes it anyway");
  const [a, b] = await drawn();
  assert.notEqual(a, b, "two takes are two pictures");
  await left.getByRole("combobox", { name: "Take on the left" }).selectOption({ index: 1 });
  await pair.getByRole("button", { name: /^Pause/ }).click();
  await pair.getByRole("slider").fill("0");
  await page.waitForFunction(() => new Set([...document.querySelectorAll(".vm-film-side canvas")].map((one) => one.toDataURL())).size === 1);
  assert.equal(await page.locator(".vm-film").evaluate((view) => view.offsetHeight), height, "and no more room");
  await page.keyboard.press("Escape");
  await pair.waitFor({ state: "hidden" });
}

/** Runs the film, and sees every state that a tile goes through, and whether a live picture was in it, noted in the page itself. */
async function make(page) {
  const id = await open(page, prompt);
  await page.evaluate(() => {
    window.seen = new Set();
    new MutationObserver(() => {
      for (const tile of document.querySelectorAll(".vm-film-tile")) window.seen.add(tile.dataset.state);
      if (document.querySelector('.vm-film-tile img[src^="data:image/webp"]')) window.seen.add("live picture");
    }).observe(document.querySelector(".vm-film"), { subtree: true, childList: true, attributes: true });
  });
  await queueAndWait(page);
  await shows(page, ["stored", "stored", "stored"]);
  const seen = await page.evaluate(() => [...window.seen]);
  for (const state of ["waiting", "sampling", "live picture", "stored"]) assert.ok(seen.includes(state), `${state}: ${seen}`);
  await fit(page, id);
  await picture(page, "film-finished");
}

/** Runs it with another take of section 2. */
async function makeAgain(page, id) {
  await shows(page, ["stored", "stored", "stored"]);
  await page.getByText("to be made anew: section 2 · locked: section 3").waitFor();
  await fit(page, id);
  await picture(page, "film-redo");
  await page.evaluate(() => {
    window.seen = new Set();
    new MutationObserver(() => {
      window.seen.add([...document.querySelectorAll(".vm-film-tile")].map((tile) => tile.dataset.state).join());
    }).observe(document.querySelector(".vm-film"), { subtree: true, childList: true, attributes: true });
  });
  await queueAndWait(page);
  await shows(page, ["reused", "stored", "locked"]);
  const passed = await page.evaluate(() => [...window.seen]);
  assert.ok(passed.includes("reading,again,kept"), `what stays is told from what is made anew: ${passed}`);
  assert.ok(passed.some((states) => states.endsWith("sampling,kept")), `a finished section stays finished: ${passed}`);
}

for (const renderer of RENDERERS) {
  test(`a film is made, seen after a reload, redone and locked, ${renderer}`, async () => {
    let { page, quiet, close } = await openPage(browser, { renderer });
    let id = await open(page, film(`none ${RUN}`));
    await page.getByText("Not rendered yet").waitFor();
    const drawn = async () => (await heightOf(page, id)).findLast((height) => height !== null);
    const height = await drawn();
    if (renderer === RENDERERS[0]) { // once: the other one shows the same film
      await make(page);
      quiet();
      await close();
      ({ page, quiet, close } = await openPage(browser, { renderer, fresh: true }));
    }
    id = await open(page, prompt);
    await page.waitForFunction(() => document.querySelectorAll(".vm-film-tile img:not([hidden])").length === 3);
    await page.locator(".vm-film-tile").nth(1).click();
    await page.getByRole("button", { name: "Redo", exact: true }).click();
    assert.equal(await widgetValue(page, id, "redo"), '{"2":1}');
    assert.equal(await widgetValue(page, id, "locks"), "3");
    if (renderer === RENDERERS[0]) await makeAgain(page, id);
    await shows(page, ["reused", "stored", "locked"]);
    assert.equal(await drawn(), height, "the view had its room before there was a film");

    await compareTakes(page, renderer, async () => [await widgetValue(page, id, "redo"), await widgetValue(page, id, "locks")]);
    await page.locator(".vm-film-tile").nth(2).click();
    await page.keyboard.press("r");
    await page.getByRole("alertdialog", { name: "Locked: section 3. Make anew all the same?" }).waitFor();
    assert.equal(await widgetValue(page, id, "locks"), "3", "a key does not take a lock away");
    await page.keyboard.press("Escape");
    assert.ok(await page.locator(".vm-film-tile").nth(2).evaluate((tile) => tile === document.activeElement), "the focus comes back");
    await page.getByRole("button", { name: "Redo", exact: true }).click();
    await page.getByRole("button", { name: "Unlock and go on" }).click();
    assert.deepEqual([await widgetValue(page, id, "redo"), await widgetValue(page, id, "locks")], ['{"2":1,"3":1}', ""]);
    await page.getByRole("button", { name: "Previous take" }).click();
    await page.getByRole("button", { name: "Lock", exact: true }).click();
    assert.deepEqual([await widgetValue(page, id, "redo"), await widgetValue(page, id, "locks")], ['{"2":1}', "3"]);

    await page.locator(".vm-film-tile").nth(1).focus();
    await page.keyboard.press("l");
    assert.equal(await widgetValue(page, id, "locks"), "2-3", "a key locks the chosen section");
    await page.keyboard.press("ArrowLeft");
    await page.getByRole("button", { name: "Continue from here" }).click();
    await page.getByRole("alertdialog", { name: "Locked: sections 2-3." }).waitFor();
    await page.getByRole("button", { name: "Unlock and go on" }).click();
    assert.equal(await widgetValue(page, id, "redo"), '{"1":1,"2":2,"3":1}');
    assert.equal(await widgetValue(page, id, "locks"), "");
    await page.getByRole("button", { name: "Clear takes and locks" }).click();
    assert.equal(await widgetValue(page, id, "redo"), "");

    const player = page.getByRole("group", { name: "Player" });
    await page.getByRole("button", { name: /Play film/ }).click();
    await page.waitForFunction(() => document.querySelector(".vm-film-screen").width > 32);
    assert.equal(await drawn(), height, "neither locks nor the player take more room");
    await player.getByRole("button", { name: /^Pause/ }).click();
    const slider = page.getByRole("slider", { name: "Place in the film" });
    await slider.fill("0");
    await slider.fill("1.2");
    await page.locator(".vm-film-caption").getByText(PROMPTS[2]).waitFor();
    await player.press("ArrowLeft");
    assert.ok(Number(await slider.inputValue()) < 1.2, "a frame back");
    await fit(page, id);
    await picture(page, `film-playing-${renderer}`);
    await page.getByRole("button", { name: /^Play \(K\)/ }).click();
    await player.getByRole("button", { name: /^Play \(K\)/ }).waitFor(); // it stops at the end by itself
    await page.keyboard.press("Escape");
    await player.waitFor({ state: "hidden" });
    quiet();
    await close();
  });

  test(`locks and takes are steps of ComfyUI's own undo, ${renderer}`, async () => {
    const { page, quiet, close } = await openPage(browser, { renderer });
    await open(page, prompt);
    // As a saved workflow: one from an API file has no identity yet, and ComfyUI's undo stops at its first change.
    const saved = await page.evaluate(() => ({ ...window.app.graph.serialize(), id: crypto.randomUUID() }));
    await loadWorkflow(page, saved);
    const id = saved.nodes.find((node) => node.type === "VideoMemorySampler").id;
    await fit(page, id);
    await shows(page, ["reused", "stored", "locked"]);
    const values = async () => [await widgetValue(page, id, "redo"), await widgetValue(page, id, "locks")];
    await page.locator(".vm-film-tile").nth(0).click();
    await page.getByRole("button", { name: "Lock", exact: true }).click();
    await page.locator(".vm-film-tile").nth(1).click();
    await page.getByRole("button", { name: "Redo", exact: true }).click();
    assert.deepEqual(await values(), ['{"2":1}', "1, 3"]);
    // On disk section 2 is at take 2, so that without `redo` the next run goes back to take 1.
    for (const [keys, expected, line] of [
      ["Control+z", ["", "1"], "to be made anew: section 2 · locked: section 1"],
      ["Control+z", ["", ""], "to be made anew: section 2"],
      ["Control+Shift+z", ["", "1"], "to be made anew: section 2 · locked: section 1"],
      ["Control+Shift+z", ['{"2":1}', "1, 3"], "locked: sections 1, 3"],
    ]) {
      await page.keyboard.press(keys);
      await settle(page);
      await page.locator(".vm-film-pending").getByText(line, { exact: true }).waitFor();
      assert.deepEqual(await values(), expected, `${keys} to ${line}`);
    }
    await page.locator(".vm-film-pending").getByRole("status").getByText("locked: sections 1, 3").waitFor(); // which is read aloud
    const question = page.getByRole("alertdialog", { name: "Locked: sections 1, 3. Take the locks away too?" });
    for (const [answer, expected] of [["Keep", ['{"2":1}', "1, 3"]], ["Unlock and go on", ["", ""]]]) {
      await page.getByRole("button", { name: "Clear takes and locks" }).click();
      await question.waitFor();
      await page.getByRole("button", { name: answer, exact: true }).click();
      assert.deepEqual(await values(), expected, answer);
    }
    const branch = async () => Promise.all(["film", "branch_film", "branch_section"].map((widget) => widgetValue(page, id, widget)));
    const started = () => page.evaluate((node) => window.app.graph.getNodeById(node).inputs.find(({ name }) => name === "start_image").link != null, id);
    await page.evaluate((node) => {
      const [image, sampler] = [window.LiteGraph.createNode("EmptyImage"), window.app.graph.getNodeById(node)];
      window.app.graph.add(image);
      image.connect(0, sampler, sampler.inputs.findIndex(({ name }) => name === "start_image"));
    }, id);
    assert.ok(await started());
    await page.locator(".vm-film-tile").nth(1).click();
    await page.getByRole("button", { name: "Branch", exact: true }).click();
    await page.getByText("Not rendered yet").waitFor();
    assert.ok(!(await started()), "the start picture comes along with the sections, and would be a second opening");
    assert.deepEqual(await branch(), [`${NAME} 2`, NAME, 2], "another film with the first two sections of this one");
    await page.locator("#graph-canvas").focus();
    await page.keyboard.press("Control+z");
    await shows(page, ["reused", "stored", "locked"]);
    assert.deepEqual((await branch()).slice(0, 2), [NAME, ""], "one step takes it back");
    quiet();
    await close();
  });

  test(`the render view is no part of the workflow and says when it cannot read takes, ${renderer}`, async () => {
    const { page, quiet, close } = await openPage(browser, { renderer });
    const id = await open(page, prompt);
    await page.waitForFunction(() => document.querySelectorAll(".vm-film-tile").length === 3);
    await fit(page, id);
    const saved = await page.evaluate((node) => window.app.graph.getNodeById(node).serialize().widgets_values, id);
    assert.ok(saved.every((value) => value === null || typeof value !== "object"), JSON.stringify(saved));
    await page.evaluate((node) => {
      const widget = window.app.graph.getNodeById(node).widgets.find((w) => w.name === "redo");
      widget.value = "second";
      widget.callback?.("second");
    }, id);
    await page.getByText("not understood").waitFor();
    assert.ok(await page.getByRole("button", { name: "Redo", exact: true }).isDisabled());
    assert.equal(await widgetValue(page, id, "redo"), "second", "nothing is overwritten without a click");
    await clear(page);
    quiet();
    await close();
  });
}

// What a run does to the view is the same in both renderers: once in each.
test("a film that is interrupted keeps what it has and goes on from there", async () => {
  const name = `interrupted ${RUN}`;
  const prompt = held(film(name));
  let { page, quiet, close } = await openPage(browser);
  let id = await open(page, prompt);
  await hold("[1, 0]");
  await queue(page);
  await shows(page, ["stored", "sampling", "waiting"]);
  // Another tab hears nothing of the run, and a reload or a change of the workflow's tab has missed what was said.
  const other = await openPage(browser);
  await open(other.page, prompt);
  await shows(other.page, ["stored", "sampling", "waiting"]);
  await clear(other.page);
  await open(other.page, prompt);
  await shows(other.page, ["stored", "sampling", "waiting"]);
  await other.page.getByText(/Section 2 of 3/).waitFor();
  await page.evaluate(() => window.app.api.interrupt());
  await page.getByText("Stopped in section 2").waitFor();
  await rm(HOLD);
  await shows(page, ["stored", "stopped", "waiting"]);
  await shows(other.page, ["stored", "waiting", "waiting"]);
  other.quiet();
  await other.close();
  const kept = await stored(name);
  assert.deepEqual(kept.map(([index, state]) => [index, state]), [[0, "stored"]]);
  await fit(page, id);
  await picture(page, "film-interrupted");
  quiet();
  await close();

  ({ page, quiet, close } = await openPage(browser, { fresh: true }));
  id = await open(page, prompt);
  await shows(page, ["stored", "waiting", "waiting"]);
  await page.getByText("1 of 3 sections done").waitFor();
  await page.locator(".vm-film-tile").nth(2).click();
  assert.equal(await page.getByRole("button", { name: "Redo", exact: true }).isDisabled(), true);
  assert.equal(await page.getByRole("button", { name: "Redo", exact: true }).getAttribute("title"), "Not made yet, so there is no take to redo");
  await page.keyboard.press("r");
  assert.equal(await widgetValue(page, id, "redo"), "", "a key does what its button does");
  await queueAndWait(page);
  await shows(page, ["reused", "stored", "stored"]);
  assert.equal((await stored(name))[0][2], kept[0][2], "the section that was there is the one in the film");
  quiet();
  await close();
});

test("a run stops for a review after each new section and goes on from there", async () => {
  const name = `review ${RUN}`;
  const { page, quiet, close } = await openPage(browser, { renderer: "nodes2" });
  const prompt = held(film(name));
  const id = await seesThatModelsLoad(page, await open(page, prompt), prompt);
  await page.getByRole("button", { name: "Review", exact: true }).click();
  assert.equal(await page.evaluate((node) => window.app.graph.getNodeById(node).properties["film.review"], id), true);
  await hold("[0, 0]");
  await shows(page, ["sampling", "waiting", "waiting"]);
  await queue(page);
  await page.getByText("1 more in the queue; they go on").waitFor();
  await page.getByRole("button", { name: "Empty the queue" }).click();
  await page.getByText("1 more in the queue; they go on").waitFor({ state: "hidden" });
  await rm(HOLD);
  await page.getByText("Section 1 is ready").waitFor();
  await shows(page, ["stored", "waiting", "waiting"]);
  assert.deepEqual((await stored(name)).map(([index]) => index), [0], "what was taken out of the queue does not go on");
  await page.getByRole("option", { name: `Section 1, new: ${PROMPTS[0]}`, selected: true }).waitFor();
  await fit(page, id);
  await picture(page, "film-review");
  // Another take of it, and other words for the next one.
  const [[, , key]] = await stored(name);
  await page.getByRole("button", { name: "Redo", exact: true }).click();
  await page.evaluate(() => {
    const board = window.app.graph._nodes.find((node) => node.type === "VideoMemoryStoryboard").widgets.find((widget) => widget.name === "storyboard");
    board.value = board.value.replace("Max talks on the beach", "Max talks in the garden");
    board.callback?.(board.value);
  });
  await page.locator(".vm-film-head").getByRole("button", { name: "Go on", exact: true }).click();
  await page.getByText("Section 1 is ready").waitFor({ state: "hidden" });
  await page.getByText("Section 1 is ready").waitFor();
  assert.notEqual((await stored(name))[0][2], key);
  await page.locator(".vm-film-head").getByRole("button", { name: "Go on", exact: true }).click();
  await page.getByRole("option", { name: "Section 2, new: Max talks in the garden" }).waitFor();
  await page.getByText("Section 2 is ready").waitFor();
  await page.locator(".vm-film-head").getByRole("button", { name: "Go on", exact: true }).click();
  await shows(page, ["reused", "reused", "stored"]);
  quiet();
  await close();
});

/** Before the sampler begins nothing is heard of the film, and a page that is loaded meanwhile has heard nothing at all. */
async function seesThatModelsLoad(page, id, prompt) {
  await hold('"before"');
  await queue(page);
  const loading = page.locator(".vm-film-empty").getByText("Queued: models are loading");
  await loading.waitFor();
  await page.evaluate(async () => {
    const { command } = window.app.extensionManager;
    for (const name of ["Comfy.NewBlankWorkflow", "Workspace.PreviousOpenedWorkflow"]) await command.execute(name);
  });
  await fit(page, id);
  await loading.waitFor();
  await page.reload();
  await ready(page);
  const again = await open(page, prompt);
  await loading.waitFor();
  assert.equal(await page.locator(".vm-film-head").getByRole("button", { name: "Run", exact: true }).isVisible(), false);
  return again;
}
