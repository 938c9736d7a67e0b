import assert from "node:assert/strict";
import { test } from "node:test";

import { frameAt, placeOf, startsOf, stepped } from "../../js/film/playing.mjs";

const starts = startsOf([{ seconds: 1 }, { seconds: 2 }, { seconds: 1 }]);

test("a time lies in one section, and the end of the film in its last", () => {
  assert.deepEqual(starts, [0, 1, 3, 4]);
  assert.deepEqual([0, 0.99, 1, 2.9, 3, 4].map((time) => placeOf(starts, time).at), [0, 0, 1, 1, 2, 2]);
  assert.equal(placeOf(starts, 2).share, 0.5);
  assert.ok(placeOf(starts, 4).share < 1);
  assert.equal(frameAt(placeOf(starts, 4).share, 24), 23, "the last frame is seen at the end");
});

test("single frames lead through the whole film and back", () => {
  const seen = [];
  let time = 0;
  for (let n = 0; n < 12; n += 1) {
    const { at, share } = placeOf(starts, time);
    seen.push([at, frameAt(share, 4)].join("."));
    time = stepped(starts, time, 1, 4);
  }
  assert.deepEqual(seen, ["0.0", "0.1", "0.2", "0.3", "1.0", "1.1", "1.2", "1.3", "2.0", "2.1", "2.2", "2.3"]);
  const back = [];
  time = starts[1];
  for (let n = 0; n < 5; n += 1) {
    time = stepped(starts, time, -1, 4);
    const { at, share } = placeOf(starts, time);
    back.push([at, frameAt(share, 4)].join("."));
  }
  assert.deepEqual(back, ["0.3", "0.2", "0.1", "0.0", "0.0"]);
});
