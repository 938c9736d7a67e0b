import assert from "node:assert/strict";
import { test } from "node:test";

import { actionOf, takesKey } from "../../js/storyboard/keys.mjs";
import { setLanguage } from "../../js/i18n.mjs";
import { linesOf } from "../../js/storyboard/paste_panel.mjs";
import { readingWords } from "../../js/storyboard/reading.mjs";
import { clock, dropIndex, markEvery, pixelsPerSecond, visibleShots } from "../../js/storyboard/scale.mjs";

const press = (key, held = {}) => actionOf({ key, altKey: false, shiftKey: false, ctrlKey: false, metaKey: false, ...held });

test("a key means one thing, with Alt and with Shift another, and with Ctrl it is ComfyUI's", () => {
  assert.equal(press("ArrowRight"), "next");
  assert.equal(press("ArrowRight", { altKey: true }), "moveOn");
  assert.equal(press("ArrowRight", { shiftKey: true }), "longer");
  assert.equal(press("D"), "duplicate");
  assert.equal(press("Delete"), "delete");
  for (const key of ["z", "c", "v", "Enter", "d"]) assert.equal(press(key, { ctrlKey: true }), null);
  for (const key of ["q", "Tab", "Escape", " "]) assert.equal(press(key), null);
  assert.equal(press("d", { shiftKey: true }), null);
});

test("text fields keep all keys, buttons those that press them", () => {
  assert.ok(takesKey({ tagName: "TEXTAREA" }, "d"));
  assert.ok(takesKey({ tagName: "INPUT" }, "Delete"));
  assert.ok(takesKey({ tagName: "BUTTON" }, "Enter"));
  assert.ok(!takesKey({ tagName: "BUTTON" }, "Delete"));
  assert.ok(!takesKey({ tagName: "DIV" }, "Enter"));
});

test("a film fills the timeline until its shots become too narrow", () => {
  assert.equal(pixelsPerSecond(600, 15, 3, 1), 40);
  assert.equal(pixelsPerSecond(600, 15, 3, 2), 80);
  assert.equal(pixelsPerSecond(600, 1000, 1000, 1), 36, "a shot has room for its number and how it begins");
});

test("marks of the ruler keep their distance", () => {
  for (const scale of [0.01, 0.5, 3, 40, 700]) assert.ok(markEvery(scale) * scale >= 64, String(scale));
  assert.equal(markEvery(40), 2);
});

test("times read as people write them", () => {
  const shown = { 0: "0 s", 5: "5 s", 5.0625: "5.06 s", 59.5: "59.5 s", 60: "1:00", 65.25: "1:05.25", 3725: "1:02:05" };
  for (const [seconds, text] of Object.entries(shown)) assert.equal(clock(Number(seconds)), text);
});

test("only the shots in the window are drawn, the cut ones at its edges included", () => {
  const times = Array.from({ length: 10_001 }, (_, i) => i);
  assert.deepEqual(visibleShots(times, 99.5, 103.5), [99, 104]);
  assert.deepEqual(visibleShots(times, -50, 2.5), [0, 3]);
  assert.deepEqual(visibleShots(times, 9998.5, 20_000), [9998, 10_000]);
});

test("a shot is dropped where the middles of the others leave room", () => {
  const times = [0, 5, 10, 15];
  assert.equal(dropIndex(times, [0], 2.5), 0);
  assert.equal(dropIndex(times, [0], 7.6), 1);
  assert.equal(dropIndex(times, [0], 13), 2);
  assert.equal(dropIndex(times, [2], -4), 0);
});

test("how a text was read is said in the person's language, and nothing of our own JSON", () => {
  const said = { form: "keyframes", shots: 2, remarks: ["keys_frames", "common"], note: "of the server" };
  assert.equal(readingWords(said), "Read as 2 shots from keyframes. Keys without a unit are frames. The text before the shots was joined to every shot.");
  assert.equal(readingWords({ ...said, shots: 1, form: "plain", remarks: [] }), "Read as one shot from plain text.");
  setLanguage("zh-CN");
  assert.match(readingWords(said), /2 个镜头：关键帧。 没有单位的键按帧计。/);
  setLanguage("en");
  assert.equal(readingWords({ ...said, form: "later" }), "of the server");
  assert.equal(readingWords({ form: "json", shots: 2, remarks: [], note: "" }), "");
  assert.match(readingWords({ form: "json", shots: 2, remarks: ["left_out"], note: "" }), /own JSON. Words around/);
  assert.equal(readingWords(undefined), "");
});

test("a list of prompts is told by its lines, and what has a form of its own is not", () => {
  assert.deepEqual(linesOf("1. A kitchen\n\n- a street\n 12) a garden \nthe end"), ["A kitchen", "a street", "a garden", "the end"]);
  for (const text of ['{"shots": [\n1]}', "[0s: a]\n[5s: b]", '"0": "a",\n"5": "b"', ""]) assert.deepEqual(linesOf(text), []);
});
