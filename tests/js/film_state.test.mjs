import assert from "node:assert/strict";
import { test } from "node:test";

import { oddText } from "../../js/film/odd.mjs";
import { setLanguage } from "../../js/i18n.mjs";
import { emptyFilm, finishedOf, pendingOf, tilesOf, withDisk, withEnd, withMessage, withSuccess } from "../../js/film/state.mjs";
import { progressOf, sectionsText, statusOf } from "../../js/film/status.mjs";
import { clock, place, roughly } from "../../js/film/time.mjs";

const plan = ["a door", "a street", "a garden"].map((prompt, index) => ({ index, prompt, start_seconds: index, seconds: 1, locked: index === 2 }));
const record = (index, status = "stored", take = 0) => ({ ...plan[index], locked: undefined, key: "abc"[index], status, take, clip: true });
const message = (state, values = {}) => ({ node: "4", film: "f", count: 3, state, ...values });
const states = (film) => tilesOf(film, new Map(), new Set()).map((tile) => tile.state);

function played(...messages) {
  return messages.reduce(withMessage, withDisk(emptyFilm("f"), { film: "f", plan: [], sections: [] }));
}

test("a film that was never begun has no tiles", () => {
  assert.deepEqual(states(emptyFilm("f")), []);
});

test("after a reload the strip is what plan and manifest say", () => {
  const film = withDisk(emptyFilm("f"), { film: "f", plan, sections: [record(0, "reused"), record(1)] });
  assert.deepEqual(states(film), ["reused", "stored", "waiting"]);
  assert.equal(tilesOf(film, new Map(), new Set())[2].prompt, "a garden");
  assert.deepEqual(finishedOf(film), [0, 1]);
  assert.equal(statusOf(film, tilesOf(film, new Map(), new Set()), ""), "2 of 3 sections done");
});

test("sections of an earlier run are shown as such and neither counted nor locked by a redo", () => {
  const film = withDisk(emptyFilm("f"), { film: "f", plan, sections: [record(0), record(1, "stale"), record(2, "stale")] });
  assert.deepEqual(states(film), ["stored", "stale", "stale"]);
  assert.deepEqual(finishedOf(film), [0]);
  assert.equal(statusOf(film, tilesOf(film, new Map(), new Set()), ""), "1 of 3 sections done");
});

test("a section that a report finds odd is marked until it is made anew", () => {
  const odd = [{ measure: "identity", said: "shot 2: the face differs from shots 1 and 3", value: 0.31, usual: 0.74 }];
  const sections = [record(0), { ...record(1), falls_out: odd }, record(2)];
  let film = withDisk(emptyFilm("f"), { film: "f", plan, sections });
  const marked = () => tilesOf(film, new Map(), new Set()).map((tile) => oddText(tile));
  assert.deepEqual(marked(), ["", "shot 2: the face differs from shots 1 and 3", ""]);
  setLanguage("ja");
  assert.deepEqual(marked()[1], "顔が映画のものと違います（0.31、通常 0.74）");
  setLanguage("en");
  film = withMessage(film, message("started", { sections: plan.map((entry, index) => ({ ...entry, kept: index === 0 })) }));
  assert.deepEqual(marked(), ["", "", ""], "what is being made anew has not been judged");
});

test("a run goes from waiting over sampling to what the manifest says", () => {
  let film = played(message("started", { sections: plan }));
  assert.deepEqual(states(film), ["waiting", "waiting", "waiting"]);
  film = withMessage(film, message("sampling", { index: 0, left: null }));
  film = withMessage(film, message("step", { index: 0, step: 2, steps: 4, left: 90 }));
  film = withMessage(film, message("preview", { index: 0, image: "data:x" }));
  assert.deepEqual(states(film), ["sampling", "waiting", "waiting"]);
  assert.equal(tilesOf(film, new Map(), new Set())[0].live, "data:x");
  assert.equal(progressOf(film), 0.5 / 3);
  assert.match(statusOf(film, tilesOf(film, new Map(), new Set()), ""), /Section 1 of 3 · step 2 of 4 · 2 min left/);
  film = withMessage(film, message("step", { index: 0, step: 3, steps: 4, left: 60 }));
  assert.equal(tilesOf(film, new Map(), new Set())[0].live, "data:x", "a step keeps the picture");
  assert.equal(tilesOf(withMessage(film, message("done", { index: 0 })), new Map(), new Set())[0].live, "data:x", "not the take before");
  film = withDisk(withMessage(film, message("done", { index: 0, left: 50 })), { film: "f", plan, sections: [record(0)] });
  assert.deepEqual(states(film), ["stored", "waiting", "waiting"]);
  assert.equal(tilesOf(film, new Map(), new Set())[0].live, null, "the stored clip takes its place");
  assert.equal(tilesOf(film, new Map(), new Set())[1].live, null, "the next section does not show the last one's picture");
});

test("finished sections stay finished while one is redone, and those that will be made anew are told apart", () => {
  const disk = withDisk(emptyFilm("f"), { film: "f", plan, sections: [0, 1, 2].map((index) => record(index)) });
  const expected = (...kept) => plan.map((entry, index) => ({ ...entry, kept: kept[index], take: kept[index] ? 0 : 1 }));
  let film = withMessage(disk, message("started", { sections: expected(true, true, false) }));
  assert.deepEqual(states(film), ["reading", "kept", "again"]);
  assert.match(statusOf(film, tilesOf(film, new Map(), new Set()), ""), /^Section 1 of 3 · made before, going into the memory$/);
  film = withMessage(film, message("done", { index: 0 }));
  assert.deepEqual(states(film), ["stored", "reading", "again"]);
  film = withMessage(withMessage(film, message("done", { index: 1 })), message("sampling", { index: 2 }));
  assert.deepEqual(states(film), ["stored", "stored", "sampling"]);
  const tile = tilesOf(film, new Map([[2, 1]]), new Set())[2];
  assert.deepEqual([tile.take, tile.nextTake], [1, 1], "the take that is made now is not one for the next run");
  film = withMessage(disk, message("started", { sections: expected(false, false, true) }));
  assert.deepEqual(states(withEnd(film, "stopped")), ["stopped", "stored", "stored"], "what is on disk is there after a stop");
});

test("a page that heard nothing of a run shows what the server says of it", () => {
  const sections = [record(0)];
  const step = message("step", { index: 1, step: 2, steps: 4, left: 9 });
  const begun = message("started", { sections: plan.map((entry) => ({ ...entry, kept: entry.index === 0 })) });
  for (const [run, expected] of [[step, ["stored", "sampling", "waiting"]], [begun, ["reading", "waiting", "waiting"]], [null, ["stored", "waiting", "waiting"]]]) {
    const film = withDisk(emptyFilm("f"), { film: "f", plan, sections, run });
    assert.deepEqual(states(film), expected);
    assert.equal(film.run?.state ?? null, run && "running");
  }
  const running = withMessage(emptyFilm("f"), step);
  assert.equal(withDisk(running, { film: "f", plan, sections, run: null }).run, null, "a run that ended unheard");
  assert.equal(withDisk(running, { film: "f", plan, sections }).run.index, 1, "what is not said changes nothing");
  const failed = withEnd(running, "failed", "out of memory");
  assert.equal(withDisk(failed, { film: "f", plan, sections, run: null }).run.state, "failed", "an error stays to be read");
});

test("a page that is loaded in the middle of a run finds its place with the next step", () => {
  const disk = withDisk(emptyFilm("f"), { film: "f", plan, sections: [record(0)] });
  const film = withMessage(disk, message("step", { index: 1, step: 1, steps: 4, left: 9 }));
  assert.deepEqual(states(film), ["stored", "sampling", "waiting"]);
});

test("an error marks the section that ran as failed, a stop as stopped, a late one marks nothing", () => {
  const film = played(message("started", { sections: plan }), message("sampling", { index: 1 }));
  const failed = withEnd(film, "failed", "out of memory");
  assert.equal(states(failed)[1], "failed");
  assert.equal(statusOf(failed, tilesOf(failed, new Map(), new Set()), ""), "Failed in section 2: out of memory");
  const stopped = withEnd(film, "stopped");
  assert.equal(states(stopped)[1], "stopped");
  assert.equal(statusOf(stopped, tilesOf(stopped, new Map(), new Set()), ""), "Stopped in section 2");
  const over = withMessage(film, message("done", { index: 2 }));
  assert.equal(withEnd(over, "failed", "other").run, null);
  assert.equal(withSuccess(film).run, null);
});

test("a run that was stopped for a review says which section is ready", () => {
  const disk = withDisk(emptyFilm("f"), { film: "f", plan, sections: [record(0)] });
  const film = withEnd(withMessage(disk, message("sampling", { index: 1 })), "paused");
  assert.deepEqual(states(film), ["stored", "waiting", "waiting"]);
  assert.match(statusOf(film, tilesOf(film, new Map(), new Set()), ""), /^Section 1 is ready/);
});

test("a run whose sampler has not begun is in the queue until it is heard of", () => {
  const line = (film) => statusOf(film, tilesOf(film, new Map(), new Set()), "");
  const answer = { film: "f", plan, sections: [record(0), record(1), record(2)], run: null };
  const film = withDisk(emptyFilm("f"), { ...answer, queue: { own: "loading", pending: 2 } });
  assert.equal(line(film), "Queued: models are loading");
  assert.equal(line(withDisk(emptyFilm("f"), { ...answer, queue: { own: "waiting", pending: 2 } })), "In the queue: other work comes first");
  const begun = withMessage(film, message("started", { sections: plan }));
  assert.deepEqual([begun.queue, line(begun)], [{ own: "", pending: 2 }, "Section 1 of 3"]);
  assert.equal(line(withDisk(film, { ...answer, queue: { own: "", pending: 0 } })), "3 sections, 0:03");
});

test("a film that goes on from others knows how many, from its run or from the disk", () => {
  const begun = withMessage(emptyFilm("f"), message("started", { sections: plan, before: 3 }));
  assert.equal(withMessage(begun, message("sampling", { index: 0 })).before, 3);
  assert.equal(withDisk(emptyFilm("f"), { film: "f", plan, before: 2, sections: [], run: null }).before, 2);
  assert.equal(withDisk(emptyFilm("f"), { film: "f", plan, before: 2, sections: [], run: message("started", { sections: plan, before: 2 }) }).before, 2);
  assert.equal(withDisk(begun, { film: "f", plan, sections: [] }).before, 0, "films of before say nothing");
});

test("sections are named as sections, since a bare number could be a take", () => {
  assert.equal(sectionsText([7]), "section 8");
  assert.equal(sectionsText([1, 3, 4, 5]), "sections 2, 4-6");
});

test("a chosen take is pending until it is on disk, and never on a locked section", () => {
  const film = withDisk(emptyFilm("f"), { film: "f", plan, sections: [record(0), record(1, "stored", 1), record(2)] });
  const takes = new Map([[0, 1], [1, 1], [2, 4]]);
  assert.deepEqual(pendingOf(tilesOf(film, takes, new Set())), [0], "section 2 has the take, section 3 is locked by its shot");
  assert.deepEqual(pendingOf(tilesOf(film, takes, new Set([0]))), []);
  assert.deepEqual(pendingOf(tilesOf(film, new Map(), new Set())), [1], "back to the first take");
});

test("an error of the server is said in place of the state", () => {
  assert.equal(statusOf(emptyFilm("f"), [], "film: bad"), "The film cannot be read: film: bad");
});

test("times are written as people read them", () => {
  assert.deepEqual([0, 75.4, 3675].map(clock), ["0:00", "1:15", "1:01:15"]);
  assert.deepEqual([0.2, 9.6, 42, 89, 100, 3599, 11400].map(roughly), ["1 s", "10 s", "40 s", "90 s", "2 min", "1 h 0 min", "3 h 10 min"]);
  assert.deepEqual([0, 2.54, 61.06, 59.96].map(place), ["0:00.0", "0:02.5", "1:01.1", "1:00.0"]);
});
