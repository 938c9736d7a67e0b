/** Cast and look as a person writes them, a line each: "Mira: a girl with red hair", or words for the whole film. */

const ALL = /^(style|look|film|风格|画风|整体|スタイル|画風|全体)$/i; // "Style: watercolour" is no one's name
const LINE = /^([^:：]{1,100}?)(?::(?=\s)|：)\s*(.+)$/; // "16:9 film grain" names no one, here and on the server; a wide colon needs no space

/** The lines of a text as `[{ name, look }]`; empty lines are left out. A name that stands twice has both looks. */
export function parseCast(text) {
  const cast = [];
  for (const line of text.split("\n").map((words) => words.trim())) {
    if (!line) continue;
    const match = LINE.exec(line);
    const name = match && !ALL.test(match[1].trim()) ? match[1].trim() : "";
    const look = match ? match[2].trim() : line;
    const same = name && cast.find((other) => other.name === name);
    if (same) same.look += `, ${look}`;
    else cast.push({ name, look });
  }
  return cast;
}

/** The lines with the pictures that they had before: those of the same name or look, else of the same place. */
export function keepPictures(cast, before) {
  const same = cast.map((line) => before.find((other) => (line.name ? other.name === line.name : !other.name && other.look === line.look)));
  return cast.map((line, i) => {
    const was = same[i] ?? (same.includes(before[i]) ? undefined : before[i]);
    return { ...line, picture: was?.picture ?? "" };
  });
}

/** The text of a cast. */
export function formatCast(cast) {
  const line = (look) => look.replace(/\s*[\r\n]+\s*/g, " ");
  return cast.map(({ name, look }) => (name ? `${name}: ${line(look)}` : LINE.test(line(look)) ? `Style: ${line(look)}` : line(look))).join("\n");
}
