/** The blind page in a real browser, from a folder on the disk, as those who vote open it. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";

import { openBrowser } from "./page.mjs";

const ROOT = join(import.meta.dirname, "..", "..");
const CLIPS = join(ROOT, "demo", "nodes", "clips");
let browser, folder, page;
const outside = [];

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "blind-"));
  for (const [method, clip] of [["with", "max.mp4"], ["without", "mira.mp4"]]) {
    for (const story of ["one", "two"]) {
      await mkdir(join(folder, method), { recursive: true });
      await cp(join(CLIPS, clip), join(folder, method, `${story}.mp4`));
    }
  }
  const command = ["tools/environment.py", "run", "-m", "memory_encoder", "compare", join(folder, "with"), join(folder, "without"), "--out", join(folder, "study")];
  execFileSync("python3", command, { cwd: ROOT });
  browser = await openBrowser();
  page = await (await browser.newContext({ acceptDownloads: true, colorScheme: "dark" })).newPage();
  page.on("request", (request) => /^(file|data|blob):/.test(request.url()) || outside.push(request.url()));
  await page.goto(pathToFileURL(join(folder, "study", "index.html")).href);
});

after(async () => {
  await browser?.close();
  await rm(folder, { recursive: true, force: true });
});

const status = () => page.locator("#count").textContent();
const key = (name) => page.keyboard.press(name);

test("keys vote, a vote is taken back, a reload goes on, and the file tells what was chosen", async () => {
  assert.equal(await page.locator("h1").textContent(), "Which film do you like better?");
  assert.equal(await status(), "Pair 1 of 2");
  await page.waitForFunction(() => [...document.querySelectorAll("video")].every((video) => video.readyState >= 2 && video.videoWidth));
  if (process.env.VIDEO_MEMORY_SCREENSHOTS) await page.screenshot({ path: join(process.env.VIDEO_MEMORY_SCREENSHOTS, "blind_pair.png") });
  await key("2");
  assert.equal(await status(), "Pair 2 of 2");
  await key("Backspace");
  await key("3");
  await key("Control+1");
  assert.equal(await status(), "Pair 1 of 2", "only 1, 2 and 0 are votes");
  const [left] = await sources();
  await key("1");
  await page.reload();
  assert.equal(await status(), "Pair 2 of 2", "a reload keeps what was chosen");
  await page.locator("#choose0").click();
  assert.ok(await page.locator("#done").isVisible());
  assert.equal(await page.evaluate(() => document.activeElement.id), "save");
  await key("1"); // no vote any more
  const [download] = await Promise.all([page.waitForEvent("download"), page.locator("#save").click()]);
  const lines = (await readFile(await download.path(), "utf8")).trim().split("\r\n");
  assert.equal(lines[0], "rater,left,right,choice");
  assert.deepEqual(lines.slice(1).map((line) => line.split(",")[3]), ["1", "0"]);
  assert.equal(lines[1].split(",")[1], left);
  const films = JSON.parse(await readFile(join(folder, "study", "key.json"), "utf8")).films;
  for (const line of lines.slice(1)) for (const name of line.split(",").slice(1, 3)) assert.ok(films[name]);
  assert.deepEqual(outside, [], "nothing outside of the folder is asked for");
});

const sources = () => page.locator("video").evaluateAll((videos) => videos.map((video) => video.src.split("/").at(-1)));
