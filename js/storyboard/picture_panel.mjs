/** Chooses the picture of a shot or of a line of the cast: a file, what is dropped or pasted, or one of the input folder. */

import { t } from "../i18n.mjs";
import { h, setAttribute } from "./dom.mjs";

let count = 0;

export class PicturePanel {
  /** `pictures` are those of pictures.mjs; `closed()` gives the focus back. */
  constructor(pictures, closed) {
    Object.assign(this, { pictures, closed, target: null });
    const list = `vm-sb-pictures-${(count += 1)}`;
    this.title = h("b", { class: "vm-sb-panel-title" });
    this.hint = h("div", { class: "vm-sb-dim", text: t("storyboard.pictureHint") });
    this.image = h("img", { class: "vm-sb-large", alt: "", hidden: true });
    this.file = h("input", { type: "file", accept: "image/*", hidden: true, on: { change: () => this.#chosen() } });
    this.field = h("input", { type: "text", class: "vm-sb-name", list, placeholder: t("storyboard.pictureName"), "aria-label": t("storyboard.pictureName"), on: { change: () => this.#take(this.field.value.trim()) } });
    this.names = h("datalist", { id: list });
    this.message = h("div", { class: "vm-sb-advice", role: "alert" });
    this.upload = this.#button("storyboard.pictureUpload", () => this.file.click());
    this.remove = this.#button("storyboard.pictureRemove", () => this.#take(""));
    const row = h("div", { class: "vm-sb-row" }, this.upload, this.field, this.names, this.remove, this.#button("storyboard.close", () => this.close()));
    this.element = h("div", { class: "vm-sb-panel vm-sb-picture-panel", role: "group", hidden: true }, this.title, this.hint, this.image, row, this.message, this.file);
    this.element.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      this.close();
    });
  }

  /** Opens the panel for a `target`: `{ title, name, take(name) }`. */
  open(target) {
    Object.assign(this, { target });
    this.title.textContent = target.title;
    this.element.setAttribute("aria-label", target.title);
    this.message.textContent = "";
    this.#show(target.name);
    this.element.hidden = false;
    this.upload.focus();
    this.element.scrollIntoView?.({ block: "nearest" });
    this.#offer();
  }

  close() {
    this.element.hidden = true;
    this.target = null;
    this.closed();
  }

  /** Uploads a file for a target; by default the one that the panel is open for. */
  async take(file, target = this.target) {
    try {
      target.take(await this.pictures.upload(file));
    } catch (error) {
      if (this.element.hidden) this.open(target);
      this.message.textContent = t("storyboard.noUpload", { reason: error.message });
      return;
    }
    if (target === this.target) this.close();
  }

  #show(name) {
    this.field.value = name;
    this.image.hidden = this.remove.hidden = !name;
    setAttribute(this.image, "src", name ? this.pictures.url(name) : null);
  }

  async #offer() {
    const names = await this.pictures.names().catch(() => []); // without a list one can still write a name
    this.names.replaceChildren(...names.map((value) => h("option", { value })));
  }

  #chosen() {
    const [file] = this.file.files;
    if (file) this.take(file);
    this.file.value = ""; // the same file may be chosen once more
  }

  #take(name) {
    const target = this.target;
    if (!target) return;
    target.take(name);
    this.close();
  }

  #button(key, click) {
    return h("button", { type: "button", class: "vm-sb-button", text: t(key), on: { click } });
  }
}
