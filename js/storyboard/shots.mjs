/**
 * A storyboard as the editor holds it, read from and written as the canonical JSON of the Storyboard node.
 *
 * `{ shots: [{ start, end, prompt, seed, transition, name, locked, picture }], negative, cast: [{ name, look, picture }] }`;
 * times are seconds, `end` may be null; a line of the cast without a name ("") is the look of the whole film. `picture` is
 * the name of an image file as ComfyUI's image loader has it, "" for none.
 * `transition` is null for a first shot of which nothing is said: it goes on from a clip that opens the film, if any.
 * `seed` is a text of digits or null: seeds go up to 2^64-1, which numbers here cannot hold. Values are never changed in
 * place. Other formats are read by the server, which has the one parser for them.
 */

export const MAX_SECONDS = 86400;
export const MAX_SHOTS = 10_000;
export const MAX_SEED = 2n ** 64n - 1n;

const FIELDS = new Set(["start", "end", "prompt", "seed", "transition", "name", "locked", "picture"]);
const TOLERANCE = 1e-6;

/** A shot with every field. */
export function makeShot(values) {
  return { start: 0, end: null, prompt: "", seed: null, transition: "cut", name: "", locked: false, picture: "", ...values };
}

/** What one begins with: a shot of which nothing is said yet. */
export function emptyStoryboard() {
  return { shots: [makeShot({ transition: null })], negative: "", cast: [] };
}

/**
 * Reads the canonical JSON; null for any text that the editor could not write back without a loss.
 * An empty prompt is accepted, since a new shot begins with one; the server says that it is missing.
 */
export function parseStoryboard(text) {
  let data;
  try {
    data = JSON.parse(withTextSeeds(text));
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
  if (!isObject(data) || Object.keys(data).some((key) => !["version", "shots", "negative", "cast"].includes(key))) return null;
  if ((data.version ?? 1) !== 1 || typeof (data.negative ?? "") !== "string") return null;
  if (!Array.isArray(data.shots) || !data.shots.length || data.shots.length > MAX_SHOTS) return null;
  const shots = data.shots.map((shot, index) => readShot(shot, index ? "cut" : null));
  const cast = Array.isArray(data.cast ?? []) ? (data.cast ?? []).map(readCastLine) : [null];
  return [...shots, ...cast].every(Boolean) && inOrder(shots) ? { shots, negative: data.negative ?? "", cast } : null;
}

/** The canonical JSON, to the character as the library writes it, so that no edit looks like a change of everything. */
export function formatStoryboard({ shots, negative, cast = [] }) {
  const list = shots.map((shot, index) => {
    const fields = [`"start": ${shot.start}`];
    if (shot.end !== null) fields.push(`"end": ${shot.end}`);
    fields.push(`"prompt": ${JSON.stringify(shot.prompt)}`);
    if (shot.seed !== null) fields.push(`"seed": ${shot.seed}`);
    if (index > 0 || shot.transition) fields.push(`"transition": "${shot.transition ?? "cut"}"`);
    if (shot.name) fields.push(`"name": ${JSON.stringify(shot.name)}`);
    if (shot.locked) fields.push('"locked": true');
    if (shot.picture) fields.push(`"picture": ${JSON.stringify(shot.picture)}`);
    return `{${fields.join(", ")}}`;
  });
  const lines = cast.map((line) => `{${["name", "look", "picture"].filter((field) => line[field]).map((field) => `"${field}": ${JSON.stringify(line[field])}`).join(", ")}}`);
  const looks = lines.length ? `, "cast": [${lines.join(", ")}]` : "";
  return `{"version": 1, "shots": [${list.join(", ")}], "negative": ${JSON.stringify(negative)}${looks}}`;
}

/** Whether a text is a seed: a whole number from 0 to 2^64-1. */
export function isSeed(text) {
  return /^\d{1,20}$/.test(text) && BigInt(text) <= MAX_SEED;
}

/** Quotes long seeds before JSON.parse would round them. Inside of a JSON text, quotes are escaped and never match. */
function withTextSeeds(text) {
  return text.replace(/"seed"(\s*:\s*)(\d{16,})(?=\s*[,}])/g, '"seed"$1"$2"');
}

/** `unsaid`: the transition of a shot that has none. */
function readShot(data, unsaid) {
  if (!isObject(data) || Object.keys(data).some((key) => !FIELDS.has(key))) return null;
  const { start, end = null, prompt, seed = null, transition = unsaid, name = "", locked = false, picture = "" } = data;
  const good =
    isTime(start) &&
    (end === null || (isTime(end) && end > start)) &&
    typeof prompt === "string" &&
    typeof name === "string" &&
    typeof picture === "string" &&
    typeof locked === "boolean" &&
    ["cut", "continue", unsaid].includes(transition) &&
    (seed === null || isSeed(String(seed)));
  return good ? { start, end, prompt, seed: seed === null ? null : String(seed), transition, name, locked, picture } : null;
}

function readCastLine(data) {
  if (!isObject(data) || Object.keys(data).some((key) => !["name", "look", "picture"].includes(key))) return null;
  const { name = "", look, picture = "" } = data;
  return [name, look, picture].every((text) => typeof text === "string") ? { name, look, picture } : null;
}

function inOrder(shots) {
  return shots.every((shot, i) => {
    const next = shots[i + 1];
    return !next || (next.start > shot.start && (shot.end === null || shot.end <= next.start + TOLERANCE));
  });
}

function isTime(value) {
  return typeof value === "number" && value >= 0 && value <= MAX_SECONDS;
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
