/** Times to pixels and back, and the marks of the ruler. */

const NICE = [0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];
const LEAST_SHOT = 36; // pixels of an average shot, for its number and how it begins; for more shots the timeline scrolls

/** Pixels for a second: the film fills `width`, times `zoom`, unless its shots became too narrow. */
export function pixelsPerSecond(width, seconds, shots, zoom) {
  return Math.max(width * zoom, shots * LEAST_SHOT) / Math.max(seconds, 0.001);
}

/** Times between ruler marks, so that these stand at least `apart` pixels from each other. */
export function markEvery(perSecond, apart = 64) {
  return NICE.find((seconds) => seconds * perSecond >= apart) ?? 7200;
}

/** A time for people: 5 s, 5.25 s, 1:05, 1:02:05. */
export function clock(seconds) {
  if (seconds < 60) return `${Number(seconds.toFixed(2))} s`;
  const whole = Math.floor(seconds + 1e-6);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const rest = Number((seconds - whole).toFixed(2));
  const tail = String(whole % 60).padStart(2, "0") + (rest > 0 ? String(rest).slice(1) : "");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${tail}` : `${minutes}:${tail}`;
}

/** Indexes [first, end) of the shots between two times; `times` are n+1 boundaries. */
export function visibleShots(times, from, to) {
  const after = (time) => {
    let [low, high] = [0, times.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (times[middle] <= time) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  return [Math.max(after(from) - 1, 0), Math.min(after(to), times.length - 1)];
}

/** The index that dragged shots take when they are dropped at a time: as many of the others have their middle before it. */
export function dropIndex(times, dragged, time) {
  let index = 0;
  for (let i = 0; i + 1 < times.length; i += 1) if (!dragged.includes(i) && (times[i] + times[i + 1]) / 2 < time) index += 1;
  return index;
}
