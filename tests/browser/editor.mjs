/** A Storyboard node in a page, and what a person does with its editor. */

import { addNode, fit, openPage, settle, widgetValue } from "./page.mjs";

export const SHOTS = [
  { start: 0, end: 5, prompt: "a kitchen" },
  { start: 5, end: 10, prompt: "a street" },
  { start: 10, end: 15, prompt: "a garden" },
];

/** A page with one Storyboard node that shows `text`, and what a test does with it. */
export async function openEditor(browser, renderer, text = JSON.stringify({ version: 1, shots: SHOTS }), options = {}) {
  const opened = await openPage(browser, { renderer, ...options });
  const { page } = opened;
  const id = await addNode(page, "VideoMemoryStoryboard");
  const editor = page.locator(".vm-sb");
  const write = (value) => setWidget(page, id, "storyboard", value);
  const read = () => widgetValue(page, id, "storyboard");
  await write(text);
  await fit(page, id);
  await editor.locator(".vm-sb-sum").filter({ hasText: options.frames ?? "241" }).waitFor();
  const shots = async () => JSON.parse(await read()).shots;
  const times = async () => (await shots()).map((shot) => [shot.start, shot.end, shot.prompt]);
  const timeline = editor.locator(".vm-sb-timeline");
  const focus = () => timeline.focus();
  const keys = async (...names) => {
    for (const name of names) await page.keyboard.press(name);
    await settle(page);
  };
  return { ...opened, id, editor, write, read, shots, times, focus, keys };
}

/** Sets a widget as one step of undo, as a person's edit would be. */
export async function setWidget(page, id, name, value) {
  await page.evaluate(
    ([node, widget, text]) => {
      const { canvas, graph } = window.app;
      const found = graph.getNodeById(node).widgets.find((w) => w.name === widget);
      canvas.emitBeforeChange();
      found.value = text;
      found.callback?.(text);
      canvas.emitAfterChange();
    },
    [id, name, value],
  );
  await settle(page);
}

export const undoSteps = (page) => page.evaluate(() => window.app.extensionManager.workflow.activeWorkflow.changeTracker.undoQueue.length);

/** Drags from the middle of an element, or its right edge, by pixels of the screen. */
export async function drag(page, locator, dx, { edge = false, shift = false, cancel = false } = {}) {
  await page.locator(".vm-sb:not(.vm-sb-busy)").waitFor();
  await locator.waitFor();
  await settle(page);
  const box = await locator.boundingBox();
  const [x, y] = [edge ? box.x + box.width - 3 : box.x + box.width / 2, box.y + box.height / 2];
  await page.mouse.move(x, y);
  await page.mouse.down();
  if (shift) await page.keyboard.down("Shift");
  for (const part of [0.3, 0.7, 1]) await page.mouse.move(x + dx * part, y);
  await settle(page, 2);
  if (cancel) await page.keyboard.press("Escape");
  await page.mouse.up();
  if (shift) await page.keyboard.up("Shift");
  await settle(page);
}
