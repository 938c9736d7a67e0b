/** The negative prompt of the whole film, which takes the place of the sampler's. */

import { t } from "../i18n.mjs";
import { h, setAttribute, setValue } from "./dom.mjs";
import { TextUndo } from "./text_undo.mjs";

export class NegativeField {
  /** `actions`: `type(text)` while it is written, `finish()` when it is done. */
  constructor(actions) {
    const on = { input: (event) => actions.type(event.target.value), change: () => actions.finish() };
    this.field = h("input", { type: "text", class: "vm-sb-name", maxlength: "10000", placeholder: t("storyboard.negativePlaceholder"), on });
    new TextUndo(this.field, () => actions.type(this.field.value));
    this.element = h("label", { class: "vm-sb-field vm-sb-negative" }, h("span", { text: t("storyboard.negative") }), this.field);
  }

  show(text, editable) {
    setValue(this.field, text);
    setAttribute(this.field, "disabled", !editable);
  }
}
