import assert from "node:assert/strict";
import { test } from "node:test";

import { branchName, continueFrom, formatLocks, formatRedo, parseLocks, parseRedo, previousTake, redo, toggleLock, unlocked } from "../../js/film/takes.mjs";

const none = { takes: new Map(), locks: new Set() };
const texts = ({ takes, locks }) => [formatRedo(takes), formatLocks(locks)];

test("takes and locks are written as the sampler reads them and read back", () => {
  const takes = new Map([[4, 2], [0, 1]]);
  assert.equal(formatRedo(takes), '{"1":1,"5":2}');
  assert.deepEqual(parseRedo(formatRedo(takes)), new Map([[0, 1], [4, 2]]));
  assert.equal(formatLocks(new Set([5, 1, 3, 4])), "2, 4-6");
  assert.deepEqual(parseLocks("2, 4-6"), new Set([1, 3, 4, 5]));
  assert.deepEqual([formatRedo(new Map([[2, 0]])), formatLocks(new Set())], ["", ""]);
});

test("text that the sampler would refuse is not understood, and thus not overwritten", () => {
  for (const text of ["2", "[]", "null", "{2:1}", '{"0":1}', '{"2":-1}', '{"2":1.5}', '{"x":1}', '{"2":"1"}']) {
    assert.equal(parseRedo(text), null, text);
  }
  for (const text of ["a", "0", "3-2", "1;2", "1-"]) assert.equal(parseLocks(text), null, text);
});

test("redo takes another seed for one section and keeps the finished ones after it", () => {
  assert.deepEqual(texts(redo(none, 1, [0, 1, 2, 3])), ['{"2":1}', "3-4"]);
  const twice = redo(redo(none, 1, [0, 1, 2]), 1, [0, 1, 2]);
  assert.deepEqual(texts(twice), ['{"2":2}', "3"]);
});

test("redo of a locked section unlocks it, and unfinished sections are not locked", () => {
  assert.deepEqual(texts(redo({ takes: new Map(), locks: new Set([0, 1]) }, 1, [0, 1])), ['{"2":1}', "1"]);
});

test("continue from here gives every later section that was made another take and no lock", () => {
  const start = { takes: new Map([[3, 2]]), locks: new Set([0, 2, 3]) };
  assert.deepEqual(texts(continueFrom(start, 2, [0, 1, 2, 3])), ['{"3":1,"4":3}', "1"]);
  assert.deepEqual(texts(continueFrom(none, 1, [0, 1])), ['{"2":1}', ""], "what was never made has no take yet");
});

test("the locks that a change would take away are known before it is made", () => {
  const locked = { takes: new Map([[1, 1]]), locks: new Set([0, 1, 3]) };
  assert.deepEqual(unlocked(locked, redo(locked, 1, [0, 1, 2, 3])), [1]);
  assert.deepEqual(unlocked(locked, redo(locked, 2, [0, 1, 2, 3])), []);
  assert.deepEqual(unlocked(locked, previousTake(locked, 1)), [1]);
  assert.deepEqual(unlocked(locked, continueFrom(locked, 1, [0, 1, 2, 3])), [1, 3]);
});

test("a branch gets a name that is free", () => {
  assert.equal(branchName("my_film", []), "my_film 2");
  assert.equal(branchName("my_film 2", ["my_film", "my_film 2", "my_film 3"]), "my_film 4");
  assert.equal(branchName("a film of 1999", ["a film of 2000"]), "a film of 2001");
});

test("the previous take is one less, and the first has none before it", () => {
  const start = { takes: new Map([[1, 2]]), locks: new Set([1, 2]) };
  assert.deepEqual(texts(previousTake(start, 1)), ['{"2":1}', "3"]);
  assert.deepEqual(texts(previousTake(none, 1)), ["", ""]);
});

test("a lock is set and taken off, and nothing is changed in place", () => {
  const locked = toggleLock(none, 2);
  assert.deepEqual(texts(locked), ["", "3"]);
  assert.deepEqual(texts(toggleLock(locked, 2)), ["", ""]);
  redo(locked, 2, [2, 3]);
  assert.deepEqual(texts(locked), ["", "3"]);
  assert.deepEqual(texts(none), ["", ""]);
});
