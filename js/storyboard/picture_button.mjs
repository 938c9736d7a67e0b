/** A button that shows a picture, or where one could be; a press chooses another. */

import { h, icon, setAttribute } from "./dom.mjs";

export class PictureButton {
  /** `label`: words beside it, if any; `keys` that press it. `url(name)` is where an image is. */
  constructor(choose, url, { label = null, keys = null } = {}) {
    Object.assign(this, { url, keys });
    this.image = h("img", { class: "vm-sb-thumb", alt: "", decoding: "async", draggable: "false", hidden: true });
    this.image.addEventListener("error", () => this.image.classList.add("vm-sb-gone"));
    this.none = icon("picture");
    const words = label === null ? null : h("span", { text: label });
    this.element = h("button", { type: "button", class: "vm-sb-button vm-sb-picture", "aria-keyshortcuts": keys, on: { click: choose } }, this.image, this.none, words);
  }

  /** Shows an image by its name, "" for none; `title` says whose it is. */
  show(name, title) {
    if (name !== this.name) {
      this.name = name;
      this.image.classList.remove("vm-sb-gone");
      setAttribute(this.image, "src", name ? this.url(name) : null);
      this.image.hidden = !name;
      setAttribute(this.none, "hidden", Boolean(name));
    }
    const words = name ? `${title}: ${name}` : title;
    this.element.title = this.keys ? `${words} (${this.keys})` : words;
    setAttribute(this.element, "aria-label", words);
  }
}
