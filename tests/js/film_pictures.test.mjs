import assert from "node:assert/strict";
import { test } from "node:test";

import { formatPictures, parsePictures, picturesOf, toggled } from "../../js/film/picture_marks.mjs";
import { emptyFilm, withDisk, withMessage } from "../../js/film/state.mjs";

const known = (id, values = {}) => {
  const [section, frame] = id.split(":").map(Number);
  return { id, section: section - 1, frame, kept: true, pinned: false, banned: false, image: `data:${id}`, ...values };
};

test("marks are written as the sampler reads them and read back", () => {
  const marks = new Map([["10:3", "pinned"], ["2:40", "pinned"], ["2:7", "banned"], ["0:1", "banned"]]);
  assert.equal(formatPictures(marks), "-0:1, -2:7, 2:40, 10:3");
  assert.deepEqual(new Map([...parsePictures(formatPictures(marks))].sort()), new Map([...marks].sort()));
  assert.deepEqual(parsePictures(" +02:040 ,, - 3:16"), new Map([["2:40", "pinned"], ["3:16", "banned"]]));
  assert.equal(formatPictures(parsePictures("")), "");
});

test("text that the sampler would refuse is not understood, and thus not overwritten", () => {
  for (const text of ["2", "2:", "a:1", "2-3", "2:4;3:1", "2:40, -2:40", "--2:4", "2:40:1"]) assert.equal(parsePictures(text), null, text);
});

test("a mark is set, changed for the other one, and taken off again", () => {
  const none = new Map();
  const pinned = toggled(none, "2:40", "pinned");
  assert.equal(formatPictures(pinned), "2:40");
  assert.equal(formatPictures(toggled(pinned, "2:40", "banned")), "-2:40");
  assert.equal(formatPictures(toggled(pinned, "2:40", "pinned")), "");
  assert.equal(none.size, 0, "nothing is changed in place");
});

test("what the next run does otherwise is told from what the last one did", () => {
  const shown = picturesOf([known("1:8", { pinned: true }), known("2:40"), known("2:7", { banned: true, kept: false })], parsePictures("1:8, -2:40"));
  assert.deepEqual(shown.map((one) => [one.name, one.mark, one.changed]), [["1:8", "pinned", false], ["2:7", "", true], ["2:40", "banned", true]]);
});

test("a picture that is marked and was never chosen is shown in its place", () => {
  const shown = picturesOf([known("1:8"), known("3:1")], parsePictures("2:40"));
  assert.deepEqual(shown.map((one) => [one.name, one.section, one.image]), [["1:8", 0, "data:1:8"], ["2:40", 1, ""], ["3:1", 2, "data:3:1"]]);
});

test("pictures come with the film on disk and as they are chosen", () => {
  const answer = { film: "a", plan: [], sections: [], run: null };
  assert.deepEqual(withDisk(emptyFilm("a"), answer).pictures, [], "of a film without such a memory");
  const read = withDisk(emptyFilm("a"), { ...answer, pictures: [known("1:8")] });
  const told = withMessage(read, { state: "pictures", count: 2, pictures: [known("1:8"), known("2:3")] });
  assert.deepEqual([read.pictures.length, told.pictures.length], [1, 2]);
  const next = withMessage(told, { state: "sampling", index: 1, count: 2, left: null });
  assert.equal(next.pictures.length, 2, "they stay while the run goes on");
});
