/** Losses of a training run as points [step, value]: kept in order, thinned, smoothed and scaled for a curve. */

export const MOST = 3000;

export function emptyRun(run = "") {
  return { run, steps: 0, losses: [], heldout: [], withoutMemory: [], nothing: null, recalled: null, message: "", pace: {}, phase: "", parts: null };
}

/** The run with the server's answer in it. */
export function withDisk(state, { run, losses, heldout, without_memory: withoutMemory = [], nothing = null, recalled }) {
  return { ...state, run, losses: thinned(losses), heldout, withoutMemory, nothing, recalled };
}

/** The run after its prompt has ended: well, or with an error's message. */
export function withEnd(state, message = "") {
  return { ...state, message, phase: "", pace: { ...state.pace, seconds_left: 0 } };
}

/** The run after one message `video_memory.training`. */
export function withMessage(state, message) {
  const base = { ...state, steps: message.steps ?? state.steps, message: "", phase: "" };
  switch (message.state) {
    case "started":
      // A run that goes on from a checkpoint makes the steps after it once more.
      return { ...base, ...Object.fromEntries(["losses", "heldout", "withoutMemory"].map((name) => [name, before(state[name], message.first_step)])) };
    case "losses":
      return { ...base, losses: thinned(appended(state.losses, message.losses)), pace: message.pace ?? {} };
    case "phase":
      return { ...base, phase: message.phase };
    case "parts":
      return {
        ...base,
        phase: state.phase,
        parts: message.parts,
        withoutMemory: appended(state.withoutMemory, message.without_memory ?? []),
        nothing: message.nothing ?? state.nothing,
      };
    case "heldout":
      return { ...base, phase: state.phase, heldout: appended(state.heldout, message.heldout) };
    case "recalled":
      return { ...base, recalled: `step-${message.step}` };
    default:
      return base;
  }
}

function before(points, step) {
  return points.filter(([at]) => at < step);
}

/** Later points win over earlier ones of the same step, which a page that was loaded meanwhile has twice. */
function appended(points, more) {
  return more.length ? [...before(points, more[0][0]), ...more] : points;
}

/** At most `most` points: means over stretches, when there are twice as many. */
export function thinned(points, most = MOST) {
  if (points.length < 2 * most) return points;
  const size = Math.ceil(points.length / most);
  const groups = [];
  for (let i = 0; i < points.length; i += size) groups.push(points.slice(i, i + size));
  return groups.map((group) => [group.at(-1)[0], group.reduce((sum, [, value]) => sum + value, 0) / group.length]);
}

/** Exponentially smoothed values, without the bias of the first ones. */
export function smoothed(points, decay = 0.95) {
  let [mean, weight] = [0, 0];
  return points.map(([step, value]) => {
    mean = decay * mean + (1 - decay) * value;
    weight = decay * weight + 1 - decay;
    return [step, mean / weight];
  });
}

/**
 * Ends of both axes: `{first, last, low, high}`. The rare loss far above the others would press the curve flat, so the
 * top leaves out the highest hundredth where there are many. What predicting nothing has may lie far above all of them
 * and is left out.
 */
export function extent({ losses, heldout, withoutMemory = [], steps = 0 }) {
  const values = [...losses, ...heldout, ...withoutMemory].map(([, value]) => value).sort((a, b) => a - b);
  if (!values.length) return null;
  const low = values[0];
  const top = values[Math.min(values.length - 1, Math.floor(values.length * (values.length > 100 ? 0.99 : 1)))];
  const room = (top - low || Math.abs(top) || 1) * 0.06;
  const last = Math.max(steps - 1, losses.at(-1)?.[0] ?? 0, heldout.at(-1)?.[0] ?? 0, 1);
  return { first: 0, last, low: Math.max(low - room, low >= 0 ? 0 : -Infinity), high: top + room };
}

/** Points that are level up to the first of them and from the last one on: a baseline from `first` to `last`. */
export function levelled(points, { first, last }) {
  return points.length ? [[first, points[0][1]], ...points, [last, points.at(-1)[1]]] : [];
}

/** Whether what predicting nothing has lies on the scale of the run's curve. */
export function nothingShown(state) {
  const ends = extent(state);
  return ends !== null && state.nothing !== null && state.nothing >= ends.low && state.nothing <= ends.high;
}

/** Round numbers from `low` to `high`, about `count` of them. */
export function ticks(low, high, count) {
  const rough = (high - low) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const result = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) {
    result.push({ value: i * step || 0, text: (i * step).toFixed(digits) });
  }
  return result;
}

