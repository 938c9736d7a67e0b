/** How people, places and the whole film look: said once here, and put into every prompt that names them. */

import { t } from "../i18n.mjs";
import { formatCast, parseCast } from "./cast.mjs";
import { h, setAttribute } from "./dom.mjs";

export class CastField {
  /** `actions`: `type(cast)` while it is written, `finish()` when it is done, `leave()` on Escape. */
  constructor(actions) {
    const on = {
      input: (event) => actions.type(parseCast(event.target.value)),
      change: () => actions.finish(),
      keydown: (event) => {
        if (event.key !== "Escape") return;
        event.stopPropagation();
        actions.leave();
      },
    };
    this.field = h("textarea", { class: "vm-sb-prompt", rows: "3", spellcheck: "true", placeholder: t("storyboard.castPlaceholder"), "aria-label": t("storyboard.cast"), on });
    this.summary = h("summary");
    this.element = h("details", { class: "vm-sb-details vm-sb-cast" }, this.summary, this.field);
  }

  /** Shows a cast. What is being typed stays as it was typed while it means the same. */
  show(cast, editable) {
    const text = formatCast(cast);
    if (formatCast(parseCast(this.field.value)) !== text) this.field.value = text;
    this.summary.textContent = cast.length ? t("storyboard.castCount", { count: cast.length }) : t("storyboard.cast");
    this.summary.title = t("storyboard.castHint");
    setAttribute(this.field, "disabled", !editable);
  }
}
