/**
 * Takes and locks of a film's sections, as the sampler's inputs `redo` and `locks` hold them: {"2": 1} and "2, 4-6".
 *
 * In the texts sections are counted from 1, here from 0. Takes are a Map from section to take above 0, locks a Set.
 * Nothing is changed in place.
 */

const MAX_TAKE = 9999;

/** Takes of the text; null when it is not understood. */
export function parseRedo(text) {
  if (!text.trim()) return new Map();
  let data;
  try {
    data = JSON.parse(text);
  } catch {
    return null;
  }
  if (data === null || typeof data !== "object" || Array.isArray(data)) return null;
  const takes = new Map();
  for (const [name, take] of Object.entries(data)) {
    if (!/^[1-9]\d{0,5}$/.test(name) || !Number.isInteger(take) || take < 0 || take > MAX_TAKE) return null;
    if (take) takes.set(Number(name) - 1, take);
  }
  return takes;
}

export function formatRedo(takes) {
  const entries = [...takes].filter(([, take]) => take > 0).sort(([a], [b]) => a - b);
  return entries.length ? JSON.stringify(Object.fromEntries(entries.map(([index, take]) => [String(index + 1), take]))) : "";
}

/** Locked sections of the text; null when it is not understood. */
export function parseLocks(text) {
  const locks = new Set();
  for (const entry of text.split(",").map((part) => part.trim())) {
    if (!entry) continue;
    const match = /^([1-9]\d{0,5})(?:\s*-\s*([1-9]\d{0,5}))?$/.exec(entry);
    if (!match) return null;
    const [first, last] = [Number(match[1]), Number(match[2] ?? match[1])];
    if (last < first) return null;
    for (let number = first; number <= last; number += 1) locks.add(number - 1);
  }
  return locks;
}

export function formatLocks(locks) {
  return runs([...locks])
    .map(([first, last]) => (first === last ? `${first + 1}` : `${first + 1}-${last + 1}`))
    .join(", ");
}

/** Runs [first, last] of neighbouring numbers. */
export function runs(numbers) {
  const result = [];
  for (const number of [...new Set(numbers)].sort((a, b) => a - b)) {
    const open = result.at(-1);
    if (open && open[1] === number - 1) open[1] = number;
    else result.push([number, number]);
  }
  return result;
}

/** Another take of one section; the finished sections after it are locked, since they would be made anew otherwise. */
export function redo({ takes, locks }, index, finished) {
  const changed = new Map(takes).set(index, Math.min((takes.get(index) ?? 0) + 1, MAX_TAKE));
  const kept = new Set([...locks, ...finished.filter((other) => other > index)]);
  kept.delete(index);
  return { takes: changed, locks: kept };
}

/** A certain take of one section, which is on disk; the finished sections after it stay, as with `redo`. */
export function takeOf(choices, index, take, finished) {
  const { takes, locks } = redo(choices, index, finished);
  if (take) takes.set(index, take);
  else takes.delete(index);
  return { takes, locks };
}

/** The take before; what it made is still on disk. */
export function previousTake({ takes, locks }, index) {
  const changed = new Map(takes);
  const take = (changed.get(index) ?? 0) - 1;
  if (take > 0) changed.set(index, take);
  else changed.delete(index);
  const kept = new Set(locks);
  kept.delete(index); // a locked section would stay at the take it has
  return { takes: changed, locks: kept };
}

export function toggleLock({ takes, locks }, index) {
  const kept = new Set(locks);
  if (!kept.delete(index)) kept.add(index);
  return { takes: new Map(takes), locks: kept };
}

/** The film is made anew from a section on: another take of it and of all that were `made` after it, none locked. */
export function continueFrom({ takes, locks }, index, made) {
  const changed = new Map(takes);
  for (const i of made) if (i >= index) changed.set(i, Math.min((takes.get(i) ?? 0) + 1, MAX_TAKE));
  return { takes: changed, locks: new Set([...locks].filter((other) => other < index)) };
}

/** A name for a film that goes on from another one: "film 2", or the next number that is free. */
export function branchName(film, taken) {
  const [, stem, number] = /^(.*?)(?: (\d{1,6}))?$/.exec(film);
  for (let next = Number(number ?? 1) + 1; ; next += 1) if (!taken.includes(`${stem} ${next}`)) return `${stem} ${next}`;
}

/** Sections whose lock a change would take away; none where locks are not understood. */
export function unlocked(before, after) {
  return [...(before.locks ?? [])].filter((index) => !after.locks.has(index)).sort((a, b) => a - b);
}
