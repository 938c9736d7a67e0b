/**
 * Undo inside of a text field, a word at a time. The browser's own takes back letters or whole paragraphs, as it likes, and
 * loses all when the value is set; ComfyUI leaves its undo to text fields while one writes in them.
 */

const MOST = 200; // steps back

export class TextUndo {
  /** `change()` is called after the field got another value, as after typing. */
  constructor(field, change) {
    Object.assign(this, { field, change });
    this.#begin();
    field.addEventListener("beforeinput", () => this.#meet());
    field.addEventListener("input", (event) => this.#typed(event.inputType ?? ""));
    field.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Another shot's text, or an edit elsewhere, is where all begins anew. */
  #meet() {
    if (this.field.value !== this.now) this.#begin();
  }

  #begin() {
    Object.assign(this, { back: [], on: [], now: this.field.value, kind: "" });
  }

  /** A step begins with a word, with another kind of change (writing, deleting, pasting), and after an undo. */
  #typed(inputType) {
    const { value } = this.field;
    const kind = inputType === "insertText" || inputType === "insertCompositionText" ? "write" : inputType.startsWith("delete") ? "delete" : inputType;
    const word = kind === "write" && /\s$/.test(this.now.slice(0, this.field.selectionStart - 1)) && !/\s$/.test(value.slice(0, this.field.selectionStart));
    const wrote = value.length - this.now.length;
    if (kind !== this.kind || word || Math.abs(wrote) > 1 || !this.back.length) this.back.push(this.now);
    if (this.back.length > MOST) this.back.shift();
    Object.assign(this, { on: [], now: value, kind });
  }

  #key(event) {
    if (!(event.ctrlKey || event.metaKey) || event.altKey) return;
    const key = event.key.toLowerCase();
    const way = key === "z" ? (event.shiftKey ? "on" : "back") : key === "y" ? "on" : null;
    if (!way) return;
    event.preventDefault();
    event.stopPropagation();
    this.#meet();
    const [from, to] = way === "back" ? [this.back, this.on] : [this.on, this.back];
    if (!from.length) return;
    to.push(this.now);
    this.now = this.field.value = from.pop();
    this.kind = "";
    this.change();
  }
}
