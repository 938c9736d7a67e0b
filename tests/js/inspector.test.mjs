import assert from "node:assert/strict";
import { test } from "node:test";

import { added, batchFrames, formatFrames, framesOf, latentOf, latentsBetween, moved, parseFrames } from "../../js/inspector/frames.mjs";
import { bounds, curve, nearestPair, summary } from "../../js/inspector/quality.mjs";

test("frames are read as the node reads them, and text that it refuses is not", () => {
  assert.deepEqual(parseFrames("0-16, 20", 33), [[0, 16], [20, 20]]);
  for (const text of ["", "a", "5-2", "0-33", "-1", "1.5"]) assert.equal(parseFrames(text, 33), null, text);
  assert.equal(formatFrames([[0, 16], [20, 20]]), "0-16, 20");
});

test("frame 0 is latent 0, frames 4k-3 to 4k are latent k", () => {
  assert.deepEqual([0, 1, 4, 5, 8].map(latentOf), [0, 1, 1, 2, 2]);
  assert.deepEqual([[0, 0], [1, 1], [0, 2], [2, 3]].map(framesOf), [[0, 0], [1, 4], [0, 8], [5, 12]]);
});

test("dragging either way chooses whole latents", () => {
  assert.deepEqual(latentsBetween(10, 2), [1, 3]);
  assert.deepEqual(framesOf(latentsBetween(2, 10)), [1, 12]);
});

test("a range moves and grows inside of the memory only", () => {
  assert.deepEqual(moved([1, 3], 1, 0, 9), [2, 4]);
  assert.deepEqual(moved([6, 8], 1, 0, 9), [6, 8]);
  assert.deepEqual(moved([0, 1], -1, 0, 9), [0, 1]);
  assert.deepEqual(moved([1, 3], 0, -5, 9), [1, 1]);
  assert.deepEqual(moved([1, 3], 0, 20, 9), [0, 8]);
});

test("an added range is as long as the first, since a batch needs equal lengths", () => {
  assert.deepEqual(added([[0, 2]], 5, 9), [[0, 2], [5, 7]]);
  assert.deepEqual(added([[4, 6]], 8, 9), [[4, 6], [6, 8]]);
  assert.deepEqual(added([[4, 6]], 4, 9), [[4, 6]]);
  assert.deepEqual(added([], 4, 9), [[4, 4]]);
});

test("every frame of a batch has its number in the film", () => {
  assert.deepEqual(batchFrames([[1, 3], [9, 10]]), [1, 2, 3, 9, 10]);
});

test("mean and worst leave identical frames out", () => {
  assert.deepEqual(summary([20, null, 10]), { mean: 15, worst: 10, frame: 2 });
  assert.equal(summary([null]), null);
});

test("the curve spans the box and puts identical frames on top", () => {
  assert.equal(curve([10, 20, null], 100, 50), "0.00,50.00 50.00,0.00 100.00,0.00");
  assert.deepEqual(bounds([12.3, 12.4]), { low: 12, high: 13 });
  assert.deepEqual(bounds([12]), { low: 12, high: 13 });
});

test("the nearest pair is found among the frames that have pictures", () => {
  const pairs = [0, 4, 9].map((frame) => ({ frame }));
  assert.deepEqual([0, 1, 3, 7, 100].map((frame) => nearestPair(pairs, frame)), [0, 0, 1, 2, 2]);
});
