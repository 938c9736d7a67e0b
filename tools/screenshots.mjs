/**
 * Pictures of all views in all their states, as a person sees them: make screenshots, or
 * python tools/environment.py run -m tools.browser_server node tools/screenshots.mjs OUT
 *
 * Both renderers, both themes, on a large screen (the node fitted) and on a laptop at 100 %, where what lies outside of
 * the window is what a person would not see. With --only WORDS those whose name has one of the comma-separated words.
 */

import { mkdir } from "node:fs/promises";
import { join } from "node:path";

import { RENDERERS, at100, fit, loadWorkflow, openBrowser, openPage, settle } from "../tests/browser/page.mjs";
import { eachState, openStudio } from "../tests/browser/studio.mjs";
import { shippedWorkflows } from "./workflows/shipped.mjs";

const [out, ...options] = process.argv.slice(2);
const only = options[0] === "--only" ? options[1].split(",") : [""];
const SIZES = [[1600, 1000], [1366, 768]]; // prettier-ignore
const LAPTOP = 1366;

await mkdir(out, { recursive: true });
const browser = await openBrowser();
try {
  for (const renderer of RENDERERS) {
    for (const theme of ["dark", "light"]) {
      for (const size of SIZES) await all([size[0], renderer, theme].join("-"), renderer, theme, size);
    }
  }
} finally {
  await browser.close();
}

async function all(place, renderer, theme, size) {
  const shoot = async (page, name) => {
    const file = `${name}-${place}`;
    if (only.some((word) => file.includes(word))) await page.screenshot({ path: join(out, `${file}.png`) });
  };
  if (!only.some((word) => place.includes(word) || !/^\d/.test(word))) return;
  const studio = await openStudio(browser, renderer, theme, size);
  const show = size[0] === LAPTOP ? (id) => at100(studio.page, id) : (id) => fit(studio.page, id);
  await eachState(studio, async (name, _, id) => {
    await show(id);
    await studio.page.mouse.move(size[0] - 2, size[1] / 2);
    await shoot(studio.page, name);
  }); // prettier-ignore
  await studio.close();
  const { page, close } = await openPage(browser, { renderer, size, settings: { "Comfy.ColorPalette": theme } });
  const shipped = await shippedWorkflows();
  const { workflow, file } = shipped.find(({ name }) => name === "first_film");
  await loadWorkflow(page, workflow, file);
  await shoot(page, "first-film-opened");
  await page.evaluate(() => window.app.extensionManager.command.execute("Comfy.BrowseTemplates"));
  const ours = page.getByText("ComfyUI-VideoMemory", { exact: true }).first();
  await ours.click();
  await page.getByText(file, { exact: true }).first().waitFor();
  await settle(page, 30);
  await shoot(page, "templates");
  await page.keyboard.press("Escape");
  await close();
}
