/** How people, places and the whole film look: said once here, and put into every prompt that names them. */

import { t } from "../i18n.mjs";
import { formatCast, keepPictures, parseCast } from "./cast.mjs";
import { h, setAttribute } from "./dom.mjs";
import { PictureButton } from "./picture_button.mjs";
import { TextUndo } from "./text_undo.mjs";

export class CastField {
  /**
   * `actions`: `type(cast)` while it is written, `finish()` when it is done, `leave()` on Escape, `picture(index)` to choose
   * the picture of a line. `url(name)` is where an image is.
   */
  constructor(actions, url) {
    Object.assign(this, { actions, url, cast: [], faces: [] });
    const type = () => actions.type(keepPictures(parseCast(this.field.value), this.cast));
    const on = {
      input: type,
      change: () => actions.finish(),
      keydown: (event) => {
        if (event.key !== "Escape") return;
        event.stopPropagation();
        actions.leave();
      },
    };
    this.field = h("textarea", { class: "vm-sb-prompt", rows: "3", spellcheck: "true", placeholder: t("storyboard.castPlaceholder"), "aria-label": t("storyboard.cast"), on });
    new TextUndo(this.field, type);
    this.summary = h("summary");
    this.row = h("div", { class: "vm-sb-row vm-sb-faces", role: "group", "aria-label": t("storyboard.castPictures") });
    this.element = h("details", { class: "vm-sb-details vm-sb-cast" }, this.summary, this.field, this.row);
  }

  /** Shows a cast. What is being typed stays as it was typed while it means the same. */
  show(cast, editable) {
    const text = formatCast(cast);
    if (formatCast(parseCast(this.field.value)) !== text) this.field.value = text;
    this.summary.textContent = cast.length ? t("storyboard.castCount", { count: cast.length }) : t("storyboard.cast");
    this.summary.title = t("storyboard.castHint");
    setAttribute(this.field, "disabled", !editable);
    this.#showPictures(cast, editable);
  }

  /** A button for each line, kept as long as there are as many. */
  #showPictures(cast, editable) {
    this.cast = cast;
    const whose = ({ name }) => name || t("storyboard.wholeFilm");
    if (this.faces.map(({ label }) => label).join("\n") !== cast.map(whose).join("\n")) {
      this.faces = cast.map((line, index) => ({ label: whose(line), button: new PictureButton(() => this.actions.picture(index), this.url, { label: whose(line) }) }));
      this.faces.forEach(({ button }, index) => (button.element.dataset.cast = index));
      this.row.replaceChildren(...this.faces.map(({ button }) => button.element));
    }
    this.faces.forEach(({ label, button }, index) => {
      button.show(cast[index].picture, t(cast[index].picture ? "storyboard.castPicture" : "storyboard.noCastPicture", { name: label }));
      setAttribute(button.element, "disabled", !editable);
    });
  }
}
