/** One section in the strip: a still that moves under the pointer, or the live preview while it is sampled. */

import { element, svg, update, updateAttribute } from "../dom.mjs";
import { t } from "../i18n.mjs";
import { ICONS } from "./icons.mjs";
import { oddText } from "./odd.mjs";
import { place } from "./time.mjs";

const PADLOCK = "M4 7V5a4 4 0 0 1 8 0v2a2 2 0 0 1 2 2v5a1 1 0 0 1-1 1H3a1 1 0 0 1-1-1V9a2 2 0 0 1 2-2zm2 0h4V5a2 2 0 0 0-4 0z";

export class Tile {
  /** `address(tile, still)` gives the address of a section's clip. `chosen(index)` is called on a click. */
  constructor(index, address, chosen) {
    this.address = address;
    this.moving = false;
    this.image = element("img", { alt: "", draggable: false, hidden: true });
    this.none = element("span", { class: "vm-film-dim", textContent: t("film.nopreview"), hidden: true });
    this.lock = element("span", { class: "vm-film-lock", hidden: true }, svg(PADLOCK));
    this.odd = element("span", { class: "vm-film-odd", hidden: true }, svg(ICONS.odd));
    this.next = element("span", { class: "vm-film-next", hidden: true });
    this.progress = element("div", { class: "vm-film-progress" });
    this.state = element("div", { class: "vm-film-state" });
    this.prompt = element("div", { class: "vm-film-dim" });
    const number = element("span", { class: "vm-film-number", textContent: String(index + 1) });
    const picture = element("div", { class: "vm-film-picture" }, this.none, this.image, number, this.odd, this.lock, this.next, this.progress);
    const text = element("div", { class: "vm-film-text" }, this.state, this.prompt);
    this.root = element("button", { type: "button", class: "vm-film-tile", role: "option", onclick: () => chosen(index) }, picture, text);
    this.root.onpointerenter = () => this.move(true);
    this.root.onfocus = () => {
      this.move(true);
      if (this.root.tabIndex < 0) chosen(index); // keys act on the section that has the focus
    };
    this.root.onpointerleave = this.root.onblur = () => this.move(false);
    // The clip of a section that was made anew meanwhile is gone; the next answer of the server names the new one.
    this.image.onerror = () => update(this.image, "hidden", true);
    this.image.onload = () => update(this.image, "hidden", false);
  }

  show(tile, selected) {
    this.tile = tile;
    const state = t(`film.state.${tile.state}`);
    update(this.root.dataset, "state", tile.state);
    updateAttribute(this.root, "aria-selected", String(selected));
    update(this.root, "tabIndex", selected ? 0 : -1);
    const odd = oddText(tile);
    const name = t("film.tile", { number: tile.index + 1, state, prompt: tile.prompt });
    updateAttribute(this.root, "aria-label", odd ? t("film.tile.odd", { tile: name, odd }) : name);
    update(this.odd, "hidden", !odd);
    update(this.state, "textContent", tile.start ? `${state} · ${place(tile.start)}` : `${state} · 0:00`);
    update(this.prompt, "textContent", tile.prompt);
    update(this.root, "title", odd ? `${tile.prompt}\n${odd}` : tile.prompt);
    update(this.lock, "hidden", !tile.locked);
    const again = tile.key !== "" && !tile.locked && tile.take !== tile.nextTake;
    update(this.next, "hidden", !again);
    update(this.next, "textContent", `↻ ${t("film.take", { take: tile.nextTake + 1 })}`);
    update(this.progress.style, "width", `${tile.state === "sampling" ? 100 * tile.progress : 0}%`);
    this.picture();
  }

  move(moving) {
    this.moving = moving;
    if (this.tile) this.picture();
  }

  picture() {
    const tile = this.tile;
    const source = tile.live ?? (tile.clip ? this.address(tile, !this.moving) : "");
    update(this.none, "hidden", source !== "" || tile.state === "waiting" || tile.state === "sampling");
    if (this.source === source) return;
    this.source = source;
    if (source) this.image.src = source;
    else {
      this.image.removeAttribute("src");
      this.image.hidden = true;
    }
  }
}
