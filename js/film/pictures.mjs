/** The pictures that a film's memory keeps: seen, pinned so that they stay, banned so that they go. */

import { element, update } from "../dom.mjs";
import { t } from "../i18n.mjs";
import { parsePictures, picturesOf, toggled } from "./picture_marks.mjs";

export const PICTURES_STYLE = `
.vm-pictures { flex: 1; min-height: 0; display: flex; flex-direction: column; gap: 6px; }
.vm-pictures-list { flex: 1; min-height: 0; overflow-y: auto; display: flex; flex-wrap: wrap; align-content: flex-start;
  gap: 6px; padding: 2px; scrollbar-width: thin; scrollbar-color: var(--border-color) transparent; }
.vm-picture { position: relative; width: 106px; height: 76px; border: 1px solid var(--border-color); border-radius: 6px;
  overflow: hidden; background: var(--comfy-input-bg); }
.vm-film .vm-picture-pin { position: absolute; inset: 0; width: 100%; height: 100%; padding: 0; border: 0; background: #00000055;
  display: grid; place-items: center; }
.vm-picture img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain; }
.vm-picture[data-kept="false"] img { opacity: 0.45; }
.vm-picture[data-mark="pinned"] { border-color: var(--vm-lock); box-shadow: 0 0 0 1px var(--vm-lock); }
.vm-picture[data-mark="banned"] { border-color: var(--vm-bad); box-shadow: 0 0 0 1px var(--vm-bad); }
.vm-picture[data-mark="banned"] img { opacity: 0.25; filter: grayscale(1); }
.vm-picture[data-changed="true"] { border-style: dashed; }
.vm-picture-name, .vm-picture-mark { position: absolute; left: 3px; padding: 0 4px; border-radius: 4px; background: #000a;
  color: #fff; font-size: 12px; font-variant-numeric: tabular-nums; pointer-events: none; }
.vm-picture-name { bottom: 3px; }
.vm-picture-mark { top: 3px; font-weight: 600; }
.vm-film .vm-picture-ban { position: absolute; right: 3px; top: 3px; width: 20px; height: 20px; padding: 0; border: 0;
  border-radius: 4px; background: #000a; color: #fff; line-height: 20px; }
.vm-film .vm-picture-ban[aria-pressed="true"] { background: #dc2626; }
.vm-pictures-add { display: flex; align-items: center; gap: 8px; min-width: 0; flex: none; }
.vm-film .vm-pictures-add input { width: 84px; padding: 3px 6px; border: 1px solid var(--border-color); border-radius: 6px;
  background: var(--comfy-input-bg); color: var(--input-text); font: inherit; }
.vm-film .vm-pictures-add input::placeholder { color: var(--vm-quiet); opacity: 1; }
.vm-film .vm-pictures-add input[aria-invalid="true"] { border-color: var(--vm-bad); }
`;

export class Pictures {
  /** `change(marks)` is called with what the user has chosen. */
  constructor(change) {
    this.change = change;
    this.items = [];
    this.chosen = 0;
    this.marks = new Map();
    this.list = element("div", {
      class: "vm-pictures-list", role: "group", "aria-label": t("pictures.list"), "data-capture-wheel": "true",
      onkeydown: (event) => this.key(event), onwheel: (event) => this.wheel(event),
    }); // prettier-ignore
    this.hint = element("div", { class: "vm-film-status vm-film-dim" });
    this.field = element("input", {
      type: "text", placeholder: "2:40", maxlength: "40", spellcheck: false, title: t("pictures.add"), "aria-label": t("pictures.add"),
      onkeydown: (event) => this.type(event), oninput: () => this.field.removeAttribute("aria-invalid"),
    }); // prettier-ignore
    const add = element("label", { class: "vm-pictures-add" }, this.hint, t("pictures.pin.short"), this.field);
    this.root = element("div", { class: "vm-pictures", hidden: true }, this.list, add);
  }

  /** `known`: pictures of the server. `marks` is null when the text is not understood. */
  show(known, marks, linked) {
    this.usable = marks !== null && !linked;
    this.marks = marks ?? new Map();
    this.shown = picturesOf(known, this.marks);
    this.chosen = Math.max(0, Math.min(this.chosen, this.shown.length - 1));
    while (this.items.length > this.shown.length) this.items.pop().root.remove();
    while (this.items.length < this.shown.length) this.add();
    this.shown.forEach((picture, index) => this.items[index].show(picture, index === this.chosen, this.usable));
    const text = marks === null ? "pictures.bad" : linked ? "pictures.linked" : "pictures.hint";
    update(this.hint, "textContent", t(text));
    update(this.hint, "title", t(text));
    update(this.field, "disabled", !this.usable);
  }

  /** Whether the next run treats a picture otherwise than the last one. */
  get changed() {
    return this.shown.some((picture) => picture.changed);
  }

  add() {
    const index = this.items.length;
    const item = new Picture((mark) => this.toggle(index, mark), () => this.focus(index));
    this.items.push(item);
    this.list.append(item.root);
  }

  toggle(index, mark) {
    if (this.usable) this.change(toggled(this.marks, this.shown[index].name, mark));
  }

  focus(index) {
    this.chosen = index;
    this.items.forEach((item, place) => item.reachable(place === index));
  }

  key(event) {
    const last = this.items.length - 1;
    const steps = { ArrowLeft: this.chosen - 1, ArrowRight: this.chosen + 1, Home: 0, End: last };
    const marks = { p: "pinned", b: "banned" };
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
    if (!plain || !(event.key in steps || event.key.toLowerCase() in marks)) return;
    event.preventDefault();
    event.stopPropagation(); // they are keys of ComfyUI too
    if (event.key in steps) this.items[Math.max(0, Math.min(last, steps[event.key]))]?.pin.focus();
    else this.toggle(this.chosen, marks[event.key.toLowerCase()]);
  }

  type(event) {
    event.stopPropagation();
    if (event.key !== "Enter") return;
    const typed = parsePictures(this.field.value);
    if (!typed?.size) return this.field.setAttribute("aria-invalid", "true");
    this.field.value = "";
    this.change(new Map([...this.marks, ...typed]));
  }

  wheel(event) {
    if (this.list.scrollHeight > this.list.clientHeight && !event.ctrlKey) event.stopPropagation();
  }
}

/** One picture; its face pins it, its corner bans it. */
class Picture {
  constructor(toggle, chosen) {
    this.image = element("img", { alt: "", draggable: false });
    this.name = element("span", { class: "vm-picture-name" });
    this.mark = element("span", { class: "vm-picture-mark" });
    this.pin = element("button", { type: "button", class: "vm-picture-pin", onclick: () => toggle("pinned"), onfocus: chosen }, this.image);
    this.ban = element("button", { type: "button", class: "vm-picture-ban", textContent: "✕", tabIndex: -1, onclick: () => toggle("banned"), onfocus: chosen });
    this.root = element("div", { class: "vm-picture" }, this.pin, this.name, this.mark, this.ban);
  }

  show({ name, section, frame, image, kept, mark, changed }, reachable, usable) {
    const place = section < 0 ? t("pictures.before", { number: frame }) : t("pictures.place", { frame, number: section + 1 });
    const state = t(`pictures.${mark || (kept ? "kept" : "left")}`);
    Object.assign(this.root.dataset, { mark, kept: String(kept), changed: String(changed) });
    update(this.image, "hidden", !image);
    if (image && this.image.src !== image) this.image.src = image;
    update(this.name, "textContent", name);
    update(this.mark, "hidden", !mark);
    update(this.mark, "textContent", mark ? t(`pictures.${mark}`) : "");
    this.pin.setAttribute("aria-pressed", String(mark === "pinned"));
    this.ban.setAttribute("aria-pressed", String(mark === "banned"));
    this.pin.setAttribute("aria-label", t("pictures.pin.label", { place, state }));
    this.ban.setAttribute("aria-label", t("pictures.ban.label", { place }));
    update(this.pin, "title", `${place}, ${state}. ${t(mark === "pinned" ? "pictures.unpin" : "pictures.pin")}`);
    update(this.ban, "title", t(mark === "banned" ? "pictures.unban" : "pictures.ban"));
    this.pin.disabled = this.ban.disabled = !usable;
    this.reachable(reachable);
  }

  reachable(yes) {
    this.pin.tabIndex = this.ban.tabIndex = yes ? 0 : -1;
  }
}
