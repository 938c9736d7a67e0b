/** Where one is in a film that is played: sections one after the other, each with the frames of its preview clip. */

/** Where each tile begins, and where the last one ends: n+1 times from 0, whatever lies between the tiles in the film. */
export function startsOf(tiles) {
  const starts = [0];
  for (const { seconds } of tiles) starts.push(starts.at(-1) + Math.max(seconds, 0.04));
  return starts;
}

/** The tile at a time, and the share of it that has passed, below 1. */
export function placeOf(starts, time) {
  let at = 0;
  while (at + 2 < starts.length && starts[at + 1] <= time) at += 1;
  const share = (time - starts[at]) / (starts[at + 1] - starts[at]);
  return { at, share: Math.max(0, Math.min(share, 1 - 1e-9)) };
}

/** The frame of a clip at a share of it. */
export function frameAt(share, count) {
  return Math.max(0, Math.min(count - 1, Math.floor(share * count + 1e-6)));
}

/** The time one frame on or back: the next frame's beginning, in the next section where this one ends. */
export function stepped(starts, time, way, count) {
  const { at, share } = placeOf(starts, time);
  const length = starts[at + 1] - starts[at];
  const frame = frameAt(share, count) + way;
  if (frame < 0) return at ? Math.max(0, starts[at] - (starts[at] - starts[at - 1]) / Math.max(count, 1)) : 0;
  const next = starts[at] + (frame * length) / count;
  return frame < count ? next : Math.min(starts[at + 1], starts.at(-1) - 1e-6);
}
