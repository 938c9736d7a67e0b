/**
 * What a person can do to a storyboard. Each function takes a storyboard and gives a new one.
 *
 * `film` is `{ sectionSeconds, totalSeconds, step }`: the numbers of the Storyboard node (`totalSeconds` 0 means that the
 * shots decide) and the length of one latent in seconds, the smallest piece that the model can make.
 */

import { MAX_SECONDS, makeShot } from "./shots.mjs";

/** A time without the dust of floating point. */
export function tidy(seconds) {
  return Math.round(seconds * 1e6) / 1e6;
}

/** The nearest whole number of steps, at least one. */
export function snap(seconds, step) {
  return tidy(Math.max(1, Math.round(seconds / step)) * step);
}

/** Where each shot begins, and where the film ends: n+1 times, by the rules of the library's planner. */
export function boundaries({ shots }, { sectionSeconds, totalSeconds }) {
  const meet = shots.slice(0, -1).map((shot, i) => {
    const next = shots[i + 1].start;
    return shot.end === null ? next : tidy((shot.end + next) / 2);
  });
  const last = shots[shots.length - 1];
  const end = totalSeconds > last.start ? totalSeconds : (last.end ?? last.start + sectionSeconds);
  return [0, ...meet, tidy(end)];
}

/** The same film with every shot beginning where the one before ends, as the planner sees it. */
export function closeGaps(storyboard, film) {
  const times = boundaries(storyboard, film);
  const shots = storyboard.shots.map((shot, i) => ({ ...shot, start: times[i], end: times[i + 1] }));
  return { ...storyboard, shots };
}

/** Length of each shot in seconds. */
export function lengths(storyboard, film) {
  const times = boundaries(storyboard, film);
  return storyboard.shots.map((_, i) => tidy(times[i + 1] - times[i]));
}

/** Other values for some fields of a shot; no time changes. */
export function changeShot(storyboard, index, values) {
  return { ...storyboard, shots: storyboard.shots.map((shot, i) => (i === index ? { ...shot, ...values } : shot)) };
}

/** Another picture for a shot ("" for none). A shot that begins with a picture is a cut. */
export function setPicture(storyboard, index, picture) {
  const cut = picture && storyboard.shots[index].transition === "continue" ? { transition: "cut" } : {};
  return changeShot(storyboard, index, { picture, ...cut });
}

/** The same storyboard with some words where a prompt is missing. */
export function withPrompts(storyboard, words) {
  return { ...storyboard, shots: storyboard.shots.map((shot) => (shot.prompt.trim() ? shot : { ...shot, prompt: words })) };
}

/** Another length for a shot; all later ones move along. */
export function resizeShot(storyboard, index, seconds, film) {
  const all = lengths(storyboard, film);
  const others = all.reduce((sum, length, i) => (i === index ? sum : sum + length), 0);
  all[index] = Math.min(Math.max(seconds, film.step), MAX_SECONDS - others);
  return inARow(storyboard, storyboard.shots, all);
}

/** Moves the boundary after a shot; only the two shots beside it change. */
export function moveBoundary(storyboard, index, time, film) {
  const times = boundaries(storyboard, film);
  if (index + 1 >= storyboard.shots.length) return resizeShot(storyboard, index, time - times[index], film);
  const low = times[index] + film.step;
  const high = times[index + 2] - film.step;
  if (high < low) return storyboard;
  times[index + 1] = tidy(Math.min(Math.max(time, low), high));
  const shots = storyboard.shots.map((shot, i) => ({ ...shot, start: times[i], end: times[i + 1] }));
  return { ...storyboard, shots };
}

/** Takes shots out and puts them back, in their order, so that the first of them has the index `to`; each keeps its length. */
export function moveShots(storyboard, chosen, to, film) {
  const order = storyboard.shots.map((_, i) => i).filter((i) => !chosen.includes(i));
  order.splice(to, 0, ...chosen);
  if (order.every((from, at) => from === at)) return storyboard;
  const all = lengths(storyboard, film);
  return inARow(
    storyboard,
    order.map((i) => storyboard.shots[i]),
    order.map((i) => all[i]),
  );
}

/**
 * Cuts a shot in two at a time of the film, on a whole latent; the second part goes on from the first.
 * Gives the storyboard back as it is when a part would have no latent.
 */
export function splitShot(storyboard, index, time, film) {
  const times = boundaries(storyboard, film);
  const [start, end] = [times[index], times[index + 1]];
  const at = tidy(start + Math.round((time - start) / film.step) * film.step);
  if (at - start < film.step * 0.99 || end - at < film.step * 0.99) return storyboard;
  const all = lengths(storyboard, film);
  const shot = storyboard.shots[index];
  const second = { ...shot, transition: "continue", name: "", picture: "" };
  const shots = storyboard.shots.toSpliced(index, 1, shot, second);
  return inARow(storyboard, shots, all.toSpliced(index, 1, tidy(at - start), tidy(end - at)));
}

/** A storyboard of some shots of another, each with its length. */
export function pickShots(storyboard, chosen, film) {
  const all = lengths(storyboard, film);
  return inARow(storyboard, chosen.map((i) => storyboard.shots[i]), chosen.map((i) => all[i]));
}

/** Copies of another storyboard's shots at an index, not locked, with those of its cast who are not there yet. */
export function insertShots(storyboard, index, others, film) {
  const alone = { ...film, totalSeconds: 0 };
  const shots = storyboard.shots.toSpliced(index, 0, ...others.shots.map((shot) => ({ ...shot, locked: false })));
  const all = lengths(storyboard, film).toSpliced(index, 0, ...lengths(others, alone));
  return { ...inARow(storyboard, shots, all), cast: withCast(storyboard.cast, others.cast) };
}

/** A new shot of one section at an index. */
export function insertShot(storyboard, index, film, values = {}) {
  const all = lengths(storyboard, film);
  const length = snap(film.sectionSeconds, film.step);
  return inARow(storyboard, storyboard.shots.toSpliced(index, 0, makeShot(values)), all.toSpliced(index, 0, length));
}

/** Without some shots; later ones move up. Where all are chosen the first one stays, since a film has at least one. */
export function deleteShots(storyboard, chosen, film) {
  if (storyboard.shots.length < 2) return storyboard;
  const left = storyboard.shots.map((_, i) => i).filter((i) => !chosen.includes(i));
  return pickShots(storyboard, left.length ? left : [0], film);
}

/** Two storyboards one after the other; the first one's negative prompt counts unless it has none. */
export function joinStoryboards(first, second, film) {
  const alone = { ...film, totalSeconds: 0 };
  const all = [...lengths(first, film), ...lengths(second, alone)];
  const joined = inARow(first, [...first.shots, ...second.shots], all);
  return { ...joined, negative: first.negative || second.negative, cast: withCast(first.cast, second.cast) };
}

/** A cast with those of another who are not there yet. */
function withCast(cast, more) {
  return [...cast, ...more.filter(({ name, look }) => !cast.some((line) => (name ? line.name === name : line.look === look)))];
}

/** Shots one after the other, each with its length. */
export function inARow(storyboard, shots, all) {
  let start = 0;
  const placed = shots.map((shot, i) => {
    const end = tidy(start + all[i]);
    const result = { ...shot, start, end };
    start = end;
    return result;
  });
  return { ...storyboard, shots: placed };
}
