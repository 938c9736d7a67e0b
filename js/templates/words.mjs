/** Titles and notes of a workflow in another language: what is in the pack's own words is replaced, all else stays. */

const BETWEEN = /(\n\n|\n(?=\d\. |- ))/; // paragraphs, and points of a list
const NUMBER = /^(?:\d\. |- |\d {2})?/; // of a point, or of a group

/** The texts of a workflow that are translated, each without its number and in one line. */
export function textsOf(workflow) {
  const found = [];
  visit(workflow, (text) => {
    found.push(text);
    return text;
  });
  return found;
}

/** Replaces in `workflow`, as ComfyUI saves it, every text that is a key of `words`. */
export function translate(workflow, words) {
  visit(workflow, (text) => words[text] ?? text);
}

function visit(workflow, change) {
  const titled = [...(workflow.nodes ?? []), ...(workflow.groups ?? [])];
  for (const one of titled) if (one.title) one.title = changed(one.title, change);
  for (const { type, widgets_values: values } of workflow.nodes ?? []) {
    if (type !== "MarkdownNote" || typeof values?.[0] !== "string") continue;
    values[0] = values[0].split(BETWEEN).map((piece, i) => (i % 2 ? piece : changed(piece, change))).join("");
  }
}

/** A text keeps its number, and its own line breaks as long as its words stay. */
function changed(text, change) {
  const [number] = NUMBER.exec(text);
  const line = text.slice(number.length).split(/\s+/).join(" ").trim();
  const now = change(line);
  return now === line ? text : number + now;
}
