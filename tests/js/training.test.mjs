import assert from "node:assert/strict";
import { test } from "node:test";

import { drawCurve } from "../../js/training/curve.mjs";
import { emptyRun, extent, nothingShown, smoothed, thinned, ticks, withDisk, withEnd, withMessage } from "../../js/training/losses.mjs";

const message = (state, values) => ({ node: "7", run: "r", steps: 10, state, ...values });

test("live losses go on where the disk ends, and points that came twice stay once", () => {
  const disk = withDisk(emptyRun("r"), { run: "r", losses: [[0, 1], [1, 0.9]], heldout: [[0, 2]], recalled: null });
  const run = withMessage(disk, message("losses", { losses: [[1, 0.9], [2, 0.8]] }));
  assert.deepEqual(run.losses, [[0, 1], [1, 0.9], [2, 0.8]]);
  assert.equal(run.steps, 10);
});

test("a run that goes on from a checkpoint drops the steps that it makes again", () => {
  const run = { ...emptyRun("r"), losses: [[0, 1], [5, 0.5], [6, 0.4]], heldout: [[5, 1]], message: "stopped" };
  const again = withMessage(run, message("started", { first_step: 5 }));
  assert.deepEqual([again.losses, again.heldout, again.message], [[[0, 1]], [], ""]);
});

test("new recalled frames change the picture's address", () => {
  assert.equal(withMessage(emptyRun("r"), message("recalled", { step: 20 })).recalled, "step-20");
});

test("a long run is thinned to means that end at its last step", () => {
  const points = Array.from({ length: 1000 }, (_, step) => [step, step % 2]);
  const few = thinned(points, 100);
  assert.ok(few.length <= 100);
  assert.deepEqual(few.at(-1), [999, 0.5]);
  assert.equal(thinned(points.slice(0, 199), 100).length, 199, "nothing is lost before there are twice as many");
});

test("smoothing begins at the first value and follows the others", () => {
  const line = smoothed([[0, 4], [1, 4], [2, 0]]);
  assert.equal(line[0][1], 4);
  assert.ok(Math.abs(line[1][1] - 4) < 1e-9 && line[2][1] < 4 && line[2][1] > 2);
});

test("the axes hold all points but for a rare loss far above the others", () => {
  const plain = extent({ losses: [[0, 1], [9, 3]], heldout: [[4, 5]], steps: 20 });
  assert.ok(plain.low <= 1 && plain.high >= 5 && plain.last === 19);
  const points = Array.from({ length: 500 }, (_, step) => [step, step === 3 ? 1e6 : 1 + (step % 5)]);
  assert.ok(extent({ losses: points, heldout: [] }).high < 10);
  assert.equal(extent(emptyRun()), null);
  const one = extent({ losses: [[0, 0.5]], heldout: [] });
  assert.ok(one.high > one.low, "one point has room");
});

test("axis labels are round and inside of the axis", () => {
  assert.deepEqual(ticks(0.31, 1.42, 3).map((tick) => tick.text), ["0.5", "1.0"]);
  assert.deepEqual(ticks(0, 1999, 4).map((tick) => tick.value), [0, 500, 1000, 1500]);
  assert.deepEqual(ticks(0.001, 0.0042, 3).map((tick) => tick.text), ["0.002", "0.004"]);
});

test("the page hears how fast a run goes, what it does beside its steps, and what the held-out loss is made of", () => {
  const pace = { seconds_a_step: 1.5, seconds_left: 3700 };
  const steps = withMessage(emptyRun("r"), message("losses", { losses: [[0, 1]], pace }));
  assert.deepEqual(steps.pace, pace);
  const busy = withMessage(steps, message("phase", { phase: "heldout" }));
  const parts = withMessage(busy, message("parts", { parts: { continuation: 0.5 } }));
  assert.deepEqual([busy.phase, parts.phase, parts.parts, parts.pace], ["heldout", "heldout", { continuation: 0.5 }, pace]);
  assert.equal(withMessage(parts, message("losses", { losses: [[1, 1]], pace })).phase, "", "the next step ends it");
});

test("a run that is over does nothing more, and says why it ended", () => {
  const busy = withMessage({ ...emptyRun("r"), losses: [[0, 1]], pace: { seconds_left: 9 } }, message("phase", { phase: "pictures" }));
  assert.deepEqual([withEnd(busy).phase, withEnd(busy).pace.seconds_left, withEnd(busy).message], ["", 0, ""]);
  assert.deepEqual([withEnd(busy, "out of memory").phase, withEnd(busy, "out of memory").message], ["", "out of memory"]);
  assert.equal(withMessage(withEnd(busy, "out of memory"), message("started", { first_step: 0 })).message, "");
});

/** Lines that a curve draws, as `{colour, dashed, points}`. */
function linesOf(run) {
  const [lines, state] = [[], { dashed: false, points: [] }];
  const drawn = {
    setLineDash: (dashes) => { state.dashed = dashes.length > 0; },
    beginPath: () => { state.points = []; },
    moveTo: (x, y) => state.points.push([x, y]),
    lineTo: (x, y) => state.points.push([x, y]),
    stroke() { lines.push({ ...state, colour: this.strokeStyle }); },
  }; // prettier-ignore
  const context = new Proxy(drawn, { get: (target, name) => target[name] ?? (() => {}) });
  const canvas = { clientWidth: 400, clientHeight: 200, getContext: () => context };
  const names = ["loss", "heldout", "without", "nothing", "grid", "text"];
  drawCurve(canvas, run, Object.fromEntries(names.map((name) => [name, name])), 1);
  return lines;
}

test("what no memory and no prediction have are lines over the whole curve, from one measurement on", () => {
  const losses = withMessage(emptyRun("r"), message("losses", { losses: [[0, 2.2], [4, 0.5], [9, 0.4]] }));
  assert.ok(!linesOf(losses).some(({ dashed }) => dashed), "there is nothing to compare with yet");
  const baselines = { parts: { "without memory": 1.5, "predicting nothing": 2 }, without_memory: [[4, 1.5]], nothing: 2 };
  const run = withMessage(losses, message("parts", baselines));
  const dashed = linesOf(run).filter((line) => line.dashed);
  assert.deepEqual(dashed.map(({ colour }) => colour), ["without", "nothing"]);
  const [axis] = linesOf(run).filter(({ colour }) => colour === "grid");
  for (const { points } of dashed) {
    assert.equal(new Set(points.map(([, y]) => y)).size, 1, "level");
    assert.deepEqual([points[0][0], points.at(-1)[0]], axis.points.map(([x]) => x), "from end to end");
  }
  assert.ok(dashed[0].points[0][1] > dashed[1].points[0][1], "the larger loss is higher up");
  const later = withMessage(run, message("parts", { ...baselines, without_memory: [[9, 1.2]] }));
  assert.deepEqual(later.withoutMemory, [[4, 1.5], [9, 1.2]], "it changes as the model does");
  assert.deepEqual(withMessage(later, message("started", { first_step: 5 })).withoutMemory, [[4, 1.5]]);
});

test("a loss of predicting nothing far above the curve does not press it flat, and is said to be off the scale", () => {
  const disk = { run: "r", losses: [[0, 0.3], [9, 0.2]], heldout: [], without_memory: [[9, 0.25]], nothing: 2, recalled: null };
  const run = withDisk(emptyRun("r"), disk);
  assert.ok(extent(run).high < 0.4 && !nothingShown(run));
  assert.deepEqual(linesOf(run).filter((line) => line.dashed).map(({ colour }) => colour), ["without"]);
  assert.ok(nothingShown({ ...run, losses: [[0, 2.5], [9, 0.2]] }));
});
