import assert from "node:assert/strict";
import { test } from "node:test";

import {
  boundaries,
  changeShot,
  closeGaps,
  deleteShots,
  insertShots,
  insertShot,
  joinStoryboards,
  lengths,
  pickShots,
  moveBoundary,
  moveShots,
  resizeShot,
  setPicture,
  snap,
  splitShot,
} from "../../js/storyboard/edits.mjs";
import { formatCast, keepPictures, parseCast } from "../../js/storyboard/cast.mjs";
import { formatStoryboard, isSeed, makeShot, parseStoryboard } from "../../js/storyboard/shots.mjs";

const FILM = { sectionSeconds: 5, totalSeconds: 0, step: 0.25 };
const board = (...shots) => ({ shots: shots.map(makeShot), negative: "", cast: [] });
const three = () =>
  board({ start: 0, end: 5, prompt: "a" }, { start: 5, end: 8, prompt: "b", locked: true }, { start: 8, end: 10, prompt: "c" });
const duplicate = (storyboard, i, film) => insertShots(storyboard, i + 1, pickShots(storyboard, [i], film), film);
const times = (storyboard) => storyboard.shots.map((shot) => [shot.start, shot.end, shot.prompt]);

test("the canonical JSON is written to the character as the library writes it", () => {
  const text =
    '{"version": 1, "shots": [{"start": 0, "end": 5, "prompt": "a \\"b\\" é", "seed": 18446744073709551615, "transition": "cut", ' +
    '"name": "one", "locked": true}, {"start": 5.25, "prompt": "c\\nd", "transition": "continue"}], "negative": "blur"}';
  assert.equal(formatStoryboard(parseStoryboard(text)), text);
});

test("a seed that numbers cannot hold survives, and a prompt that looks like one is left alone", () => {
  const text = '{"shots": [{"start": 0, "prompt": "say \\"seed\\": 12345678901234567890, now", "seed": 12345678901234567890}]}';
  const { shots } = parseStoryboard(text);
  assert.equal(shots[0].seed, "12345678901234567890");
  assert.equal(shots[0].prompt, 'say "seed": 12345678901234567890, now');
  assert.match(formatStoryboard({ shots, negative: "" }), /"seed": 12345678901234567890}/);
});

test("whatever the editor could not write back without a loss is not read", () => {
  const shot = { start: 0, end: 5, prompt: "a" };
  const foreign = [
    "a | b", "", "[0s: a]", "[]", "null", "{}", '{"shots": []}', '{"shots": 3}', '{"scenes": []}',
    JSON.stringify({ version: 2, shots: [shot] }),
    JSON.stringify({ shots: [shot], extra: 1 }),
    JSON.stringify({ shots: [{ ...shot, camera: "low" }] }),
    JSON.stringify({ shots: [{ ...shot, end: 0 }] }),
    JSON.stringify({ shots: [{ ...shot, start: -1 }] }),
    JSON.stringify({ shots: [{ ...shot, start: "0" }] }),
    JSON.stringify({ shots: [{ ...shot, transition: "fade" }] }),
    JSON.stringify({ shots: [{ ...shot, seed: 1.5 }] }),
    JSON.stringify({ shots: [{ ...shot, seed: -1 }] }),
    JSON.stringify({ shots: [{ ...shot, locked: 1 }] }),
    JSON.stringify({ shots: [shot, { ...shot, start: 4 }] }),
    JSON.stringify({ shots: [shot, shot] }),
    '{"shots": [{"start": 0, "prompt": "a", "seed": 99999999999999999999}]}',
  ]; // prettier-ignore
  for (const text of foreign) assert.equal(parseStoryboard(text), null, text);
});

test("an empty prompt is read, since a new shot begins with one", () => {
  assert.equal(parseStoryboard('{"shots": [{"start": 0, "prompt": ""}]}').shots[0].prompt, "");
});

test("seeds are whole numbers up to 2^64-1", () => {
  for (const good of ["0", "7", "18446744073709551615"]) assert.ok(isSeed(good), good);
  for (const bad of ["", "-1", "1.5", "18446744073709551616", "x", "000000000000000000000"]) assert.ok(!isSeed(bad), bad);
});

test("shots without an end and gaps lie as the planner lays them", () => {
  const open = board({ start: 1, prompt: "a" }, { start: 4, end: 6, prompt: "b" }, { start: 8, prompt: "c" });
  assert.deepEqual(boundaries(open, FILM), [0, 4, 7, 13]);
  assert.deepEqual(boundaries(open, { ...FILM, totalSeconds: 20 }), [0, 4, 7, 20]);
  assert.deepEqual(times(closeGaps(open, FILM)), [[0, 4, "a"], [4, 7, "b"], [7, 13, "c"]]); // prettier-ignore
});

test("editing a prompt moves no time, not even an open end", () => {
  const open = board({ start: 1, prompt: "a" }, { start: 4, prompt: "b" });
  assert.deepEqual(times(changeShot(open, 1, { prompt: "z" })), [[1, null, "a"], [4, null, "z"]]); // prettier-ignore
});

test("a longer shot pushes the later ones, and none gets shorter than a latent", () => {
  assert.deepEqual(times(resizeShot(three(), 0, 6.5, FILM)), [[0, 6.5, "a"], [6.5, 9.5, "b"], [9.5, 11.5, "c"]]); // prettier-ignore
  assert.deepEqual(lengths(resizeShot(three(), 1, -3, FILM), FILM), [5, 0.25, 2]);
  assert.equal(lengths(resizeShot(three(), 1, 1e9, FILM), FILM).reduce((a, b) => a + b), 86400);
});

test("moving a boundary changes only the two shots beside it", () => {
  assert.deepEqual(lengths(moveBoundary(three(), 0, 6, FILM), FILM), [6, 2, 2]);
  assert.deepEqual(lengths(moveBoundary(three(), 0, 99, FILM), FILM), [7.75, 0.25, 2]);
  assert.deepEqual(lengths(moveBoundary(three(), 0, -9, FILM), FILM), [0.25, 7.75, 2]);
  assert.deepEqual(lengths(moveBoundary(three(), 2, 12, FILM), FILM), [5, 3, 4]);
});

test("shots keep their length, seed and lock when they change places", () => {
  const moved = moveShots(three(), [2], 0, FILM);
  assert.deepEqual(times(moved), [[0, 2, "c"], [2, 7, "a"], [7, 10, "b"]]); // prettier-ignore
  assert.equal(moved.shots[2].locked, true);
  assert.deepEqual(times(moveShots(moved, [0], 2, FILM)), times(three()));
});

test("a split lies on a whole latent, goes on without a cut, and leaves the film's length", () => {
  const split = splitShot(three(), 1, 6.6, FILM);
  assert.deepEqual(times(split), [[0, 5, "a"], [5, 6.5, "b"], [6.5, 8, "b"], [8, 10, "c"]]); // prettier-ignore
  assert.deepEqual(split.shots.map((shot) => shot.transition), ["cut", "cut", "continue", "cut"]); // prettier-ignore
  const short = board({ start: 0, end: 0.25, prompt: "a" });
  assert.equal(splitShot(short, 0, 0.1, FILM), short);
  assert.equal(splitShot(three(), 0, 5, FILM).shots.length, 3);
});

test("a copy stands after its shot and is not locked", () => {
  const copied = duplicate(three(), 1, FILM);
  assert.deepEqual(lengths(copied, FILM), [5, 3, 3, 2]);
  assert.deepEqual(copied.shots.map((shot) => shot.locked), [false, true, false, false]); // prettier-ignore
});

test("a new shot lasts one section, and the last shot cannot be deleted", () => {
  assert.deepEqual(lengths(insertShot(three(), 1, FILM), FILM), [5, 5, 3, 2]);
  assert.deepEqual(times(deleteShots(three(), [0], FILM)), [[0, 3, "b"], [3, 5, "c"]]); // prettier-ignore
  const one = board({ start: 0, end: 5, prompt: "a" });
  assert.equal(deleteShots(one, [0], FILM), one);
});

test("joined storyboards follow each other in time", () => {
  const joined = joinStoryboards(three(), board({ start: 0, prompt: "d" }), FILM);
  assert.deepEqual(times(joined).at(-1), [10, 15, "d"]);
});

test("lengths snap to whole latents, whatever the frame rate", () => {
  assert.equal(snap(5.1, 0.25), 5);
  assert.equal(snap(0.01, 0.25), 0.25);
  assert.equal(snap(5.1, 4 / 24), 5.166667);
});

test("no edit leaves times that the editor could not read again", () => {
  let storyboard = three();
  let draw = 1;
  const next = (n) => (draw = (draw * 48271) % 2147483647) % n;
  const film = { ...FILM, step: 4 / 24 };
  const edits = [
    (s, i) => resizeShot(s, i, snap(next(900) / 100, film.step), film),
    (s, i) => moveBoundary(s, i, next(2000) / 100, film),
    (s, i) => moveShots(s, [i], next(s.shots.length), film),
    (s, i) => splitShot(s, i, boundaries(s, film)[i] + next(500) / 100, film),
    (s, i) => duplicate(s, i, film),
    (s, i) => insertShot(s, i, film, { prompt: "new" }),
    (s, i) => deleteShots(s, [i], film),
  ];
  for (let round = 0; round < 400; round += 1) {
    storyboard = edits[next(edits.length)](storyboard, next(storyboard.shots.length));
    if (storyboard.shots.length > 20) storyboard = deleteShots(storyboard, [0], film);
    assert.deepEqual(parseStoryboard(formatStoryboard(storyboard)), storyboard, `round ${round}`);
  }
});

test("a first shot of which no transition is said stays so, and may be told one", () => {
  const text = '{"version": 1, "shots": [{"start": 0, "prompt": "a"}, {"start": 5, "prompt": "b", "transition": "cut"}], "negative": ""}';
  const read = parseStoryboard(text);
  assert.equal(read.shots[0].transition, null);
  assert.equal(formatStoryboard(read), text);
  for (const transition of ["cut", "continue"]) {
    const said = formatStoryboard(changeShot(read, 0, { transition }));
    assert.match(said, new RegExp(`"prompt": "a", "transition": "${transition}"`));
    assert.equal(parseStoryboard(said).shots[0].transition, transition);
  }
});

test("cast and look are read as lines and written as the library writes them", () => {
  const cast = parseCast("Mira: a girl with red hair\n\n the kitchen：green tiles \nStyle: watercolour\nsoft light\nMira: a yellow coat");
  assert.deepEqual(cast, [
    { name: "Mira", look: "a girl with red hair, a yellow coat" }, { name: "the kitchen", look: "green tiles" },
    { name: "", look: "watercolour" }, { name: "", look: "soft light" },
  ]); // prettier-ignore
  const text = formatStoryboard({ ...board({ prompt: "Mira waves" }), cast: cast.slice(0, 3) });
  assert.match(text, /"negative": "", "cast": \[{"name": "Mira", "look": "a girl with red hair, a yellow coat"}, .*, {"look": "watercolour"}]}$/);
  assert.deepEqual(parseStoryboard(text).cast, cast.slice(0, 3).map((line) => ({ ...line, picture: "" })));
  assert.equal(formatStoryboard(parseStoryboard(text)), text);
  assert.equal(parseStoryboard(text.replace('"look": "watercolour"', '"lok": "watercolour"')), null, "nothing is lost");
  for (const lines of [cast, [{ name: "", look: "from 5:00 to 6:00" }]]) assert.deepEqual(parseCast(formatCast(lines)), lines);
});

test("a colon inside of a look is no name's, and a look with a line break stays one line", () => {
  for (const look of ["16:9 film grain", "Neon at 9:30pm, rain", "35mm film, 2.39:1"]) {
    assert.deepEqual(parseCast(look), [{ name: "", look }]);
    assert.equal(formatCast([{ name: "", look }]), look);
  }
  const broken = formatCast([{ name: "Mira", look: "short red hair\n yellow raincoat" }]);
  assert.deepEqual(parseCast(broken), [{ name: "Mira", look: "short red hair yellow raincoat" }]);
});

test("a storyboard that is added brings those of its cast who are not there yet", () => {
  const first = { ...board({ prompt: "a" }), cast: [{ name: "Mira", look: "red" }, { name: "", look: "ink" }] };
  const second = { ...board({ prompt: "b" }), cast: [{ name: "Mira", look: "blue" }, { name: "Leo", look: "tall" }, { name: "", look: "ink" }] };
  const film = { fps: 16, sectionSeconds: 5, totalSeconds: 0, step: 0.25 };
  const names = joinStoryboards(first, second, film).cast.map(({ name, look }) => `${name}:${look}`);
  assert.deepEqual(names, ["Mira:red", ":ink", "Leo:tall"]);
});

test("pictures are written as the library writes them, and stay with their line while its text is changed", () => {
  const text = '{"version": 1, "shots": [{"start": 0, "end": 5, "prompt": "Mira waves", "locked": true, "picture": "faces/a \\"1\\".png [output]"}], "negative": "", "cast": [{"name": "Mira", "look": "a girl", "picture": "m.png"}, {"look": "ink"}]}';
  const { cast } = parseStoryboard(text);
  assert.equal(formatStoryboard(parseStoryboard(text)), text);
  assert.equal(parseStoryboard(text.replace('"m.png"', "3")), null);
  const pictures = (lines) => keepPictures(parseCast(lines), cast).map(({ name, picture }) => `${name}:${picture}`);
  assert.deepEqual(pictures("ink\nLeo: a boy\nMira: a tall girl"), [":", "Leo:", "Mira:m.png"], "moved and described anew");
  assert.deepEqual(pictures("Mirab: a girl\nink"), ["Mirab:m.png", ":"], "a name that is being typed");
  assert.deepEqual(pictures("ink"), [":"]);
});

test("a shot with a picture is a cut, and only the first part of it begins with the picture", () => {
  const film = { fps: 16, sectionSeconds: 5, totalSeconds: 0, step: 0.25 };
  const first = board({ prompt: "a", end: 4 }, { prompt: "b", start: 4, end: 8, transition: "continue" });
  const [, shot] = setPicture(first, 1, "b.png").shots;
  assert.deepEqual([shot.picture, shot.transition], ["b.png", "cut"]);
  assert.equal(setPicture(first, 1, "").shots[1].transition, "continue");
  assert.deepEqual(splitShot(setPicture(first, 1, "b.png"), 1, 6, film).shots.map(({ picture }) => picture), ["", "b.png", ""]);
});

test("several shots move, go and are copied at once, each with its length", () => {
  const film = board({ prompt: "a", end: 1 }, { prompt: "b", start: 1, end: 3, locked: true }, { prompt: "c", start: 3, end: 6 }, { prompt: "d", start: 6, end: 10 });
  assert.deepEqual(times(moveShots(film, [1, 3], 0, FILM)), [[0, 2, "b"], [2, 6, "d"], [6, 7, "a"], [7, 10, "c"]]); // prettier-ignore
  assert.deepEqual(times(deleteShots(film, [0, 2], FILM)), [[0, 2, "b"], [2, 6, "d"]]); // prettier-ignore
  assert.deepEqual(times(deleteShots(film, [0, 1, 2, 3], FILM)), [[0, 1, "a"]], "a film has at least one shot"); // prettier-ignore
  const copy = { ...pickShots(film, [1, 2], FILM), cast: [{ name: "Mira", look: "a girl", picture: "m.png" }] };
  assert.deepEqual(times(copy), [[0, 2, "b"], [2, 5, "c"]]); // prettier-ignore
  const both = insertShots(three(), 1, copy, { ...FILM, totalSeconds: 10 });
  assert.deepEqual(times(both).map(([start]) => start), [0, 5, 7, 10, 13]);
  assert.deepEqual([both.shots[1].locked, both.cast[0].name], [false, "Mira"], "nothing has been made for a copy yet");
});
