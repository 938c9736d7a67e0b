/**
 * Pictures of a film that a person pins or bans, as the sampler's input `pictures` holds them: "2:40, -3:16".
 *
 * Names are SECTION:FRAME, sections from 1; 0:N is the N-th picture before the film. Marks are a Map from name to
 * "pinned" or "banned". Nothing is changed in place.
 */

/** Marks of the text; null when it is not understood. */
export function parsePictures(text) {
  const marks = new Map();
  for (const entry of text.split(",").map((part) => part.trim())) {
    if (!entry) continue;
    const match = /^([+-]?)\s*(\d{1,6}):(\d{1,7})$/.exec(entry);
    if (!match) return null;
    const name = `${Number(match[2])}:${Number(match[3])}`;
    const mark = match[1] === "-" ? "banned" : "pinned";
    if ((marks.get(name) ?? mark) !== mark) return null;
    marks.set(name, mark);
  }
  return marks;
}

export function formatPictures(marks) {
  return [...marks]
    .sort(([a], [b]) => order(a, b))
    .map(([name, mark]) => (mark === "banned" ? `-${name}` : name))
    .join(", ");
}

/** The picture gets the mark, or loses it when it has it. */
export function toggled(marks, name, mark) {
  const changed = new Map(marks);
  if (changed.get(name) === mark) changed.delete(name);
  else changed.set(name, mark);
  return changed;
}

/**
 * What is shown: `{name, section, frame, image, kept, mark, changed}` of each picture that the server knows, then of those
 * that are marked and were not chosen yet, in the film's order. `changed`: the next run does something else with it.
 */
export function picturesOf(known, marks) {
  const shown = known.map((one) => {
    const before = one.pinned ? "pinned" : one.banned ? "banned" : "";
    const mark = marks.get(one.id) ?? "";
    return { name: one.id, section: one.section, frame: one.frame, image: one.image, kept: one.kept, mark, changed: mark !== before };
  });
  const names = new Set(known.map((one) => one.id));
  for (const [name, mark] of marks) {
    if (names.has(name)) continue;
    const [section, frame] = name.split(":").map(Number);
    shown.push({ name, section: section - 1, frame, image: "", kept: false, mark, changed: true });
  }
  return shown.sort((a, b) => order(a.name, b.name));
}

function order(a, b) {
  const [first, second] = [a, b].map((name) => name.split(":").map(Number));
  return first[0] - second[0] || first[1] - second[1];
}
