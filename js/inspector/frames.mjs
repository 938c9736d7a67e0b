/**
 * Frames of a memory as the input `frame_indices` names them ("0-16, 40"), and the latents that hold them: frame 0 is
 * latent 0, frames 4k-3 .. 4k are latent k. Ranges are [first, last], both included.
 */

const STEP = 4;

/** Ranges of frames of the text; null when it is not understood or lies outside of `frames`. */
export function parseFrames(text, frames) {
  const ranges = [];
  for (const entry of text.split(",").map((part) => part.trim())) {
    if (!entry) continue;
    const match = /^(\d{1,9})(?:\s*-\s*(\d{1,9}))?$/.exec(entry);
    if (!match) return null;
    const [first, last] = [Number(match[1]), Number(match[2] ?? match[1])];
    if (last < first || last >= frames) return null;
    ranges.push([first, last]);
  }
  return ranges.length ? ranges : null;
}

export function formatFrames(ranges) {
  return ranges.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(", ");
}

export function latentOf(frame) {
  return Math.ceil(frame / STEP);
}

export function framesOf([first, last]) {
  return [first === 0 ? 0 : STEP * (first - 1) + 1, STEP * last];
}

/** Range of latents between two frames, whichever comes first. */
export function latentsBetween(a, b) {
  const ends = [latentOf(a), latentOf(b)].sort((x, y) => x - y);
  return [ends[0], ends[1]];
}

/** A range moved by `start` and made longer by `more` latents, inside of `count` latents. */
export function moved([first, last], start, more, count) {
  const length = Math.max(0, Math.min(last - first + more, count - 1));
  const begin = Math.max(0, Math.min(first + start, count - 1 - length));
  return [begin, begin + length];
}

/**
 * The ranges with one more, as long as the first: entries of several lengths cannot share a batch. A place that is taken
 * already is left alone.
 */
export function added(ranges, latent, count) {
  if (!ranges.length) return [[latent, latent]];
  const length = ranges[0][1] - ranges[0][0];
  const begin = Math.max(0, Math.min(latent, count - 1 - length));
  return ranges.some(([first]) => first === begin) ? ranges : [...ranges, [begin, begin + length]].sort((a, b) => a[0] - b[0]);
}

/** Frame of the film for each frame of a batch that was drawn for `asked`. */
export function batchFrames(asked) {
  return asked.flatMap(([first, last]) => Array.from({ length: last - first + 1 }, (_, i) => first + i));
}
