/** The film that a memory holds, with its sections, and the frames that are asked for; they are chosen by dragging. */

import { element, update } from "../dom.mjs";
import { t } from "../i18n.mjs";
import { added, formatFrames, framesOf, latentOf, latentsBetween, moved, parseFrames } from "./frames.mjs";

export class Timeline {
  /** `choose(text)` is called with the frames that the user has chosen. */
  constructor(choose) {
    this.choose = choose;
    this.data = null;
    this.sections = element("div", { class: "vm-inspect-sections" });
    this.chosen = element("div", { class: "vm-inspect-chosen" });
    this.bar = element("div", {
      class: "vm-inspect-timeline", tabIndex: 0, role: "group", "aria-label": t("inspector.pick"), title: t("inspector.pick"),
      onpointerdown: (event) => this.press(event), onpointermove: (event) => this.drag(event),
      onpointerup: (event) => this.release(event), onkeydown: (event) => this.key(event),
    }, this.sections, this.chosen);
    this.left = element("div", { class: "vm-inspect-text vm-inspect-dim" });
    this.root = element("div", { class: "vm-inspect-memory" }, this.bar, this.left);
  }

  /** Shows `{frames, sections}` of a memory, its first `before` of other films, and the text of the frames that are asked for. */
  show(data, text, before = 0) {
    this.before = before;
    this.data = data;
    this.text = text;
    update(this.bar, "hidden", !data);
    if (!data) {
      update(this.left, "textContent", t("inspector.memory.unknown"));
      return;
    }
    this.sections.replaceChildren(...data.sections.map((section) => this.block(section)));
    this.showChosen(parseFrames(text, data.frames));
  }

  showChosen(ranges) {
    const { frames } = this.data;
    const blocks = (ranges ?? []).map(([first, last]) => element("div", { class: "vm-inspect-range", style: part(first, last, frames) }));
    this.chosen.replaceChildren(...blocks);
    const asked = ranges ? t("inspector.asked", { frames: formatFrames(ranges) }) : t("inspector.bad");
    update(this.left, "textContent", `${t("inspector.memory", { frames })} · ${asked}`);
  }

  block({ first, last, number, prompt }) {
    const own = this.before && number > this.before ? t("inspector.section.own", { number: number - this.before, before: this.before, prompt }) : "";
    const title = number === 0 ? t("inspector.opening") : own || t("inspector.section", { number, prompt });
    const textContent = number === 0 ? title : `${number} ${prompt}`;
    return element("div", { class: "vm-inspect-section", style: part(first, last, this.data.frames), title, textContent });
  }

  frame(event) {
    const box = this.bar.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    return Math.max(0, Math.min(this.data.frames - 1, Math.floor(share * this.data.frames)));
  }

  latents() {
    return (parseFrames(this.text, this.data.frames) ?? []).map(([first, last]) => [latentOf(first), latentOf(last)]);
  }

  press(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    event.stopPropagation();
    this.bar.focus({ preventScroll: true });
    this.bar.setPointerCapture(event.pointerId);
    const at = this.frame(event);
    this.start = event.shiftKey ? null : at;
    this.ranges = event.shiftKey ? added(this.latents(), latentOf(at), this.count()) : [latentsBetween(at, at)];
    this.showChosen(this.ranges.map(framesOf));
  }

  drag(event) {
    if (!this.ranges || this.start === null) return;
    this.ranges = [latentsBetween(this.start, this.frame(event))];
    this.showChosen(this.ranges.map(framesOf));
  }

  release(event) {
    if (!this.ranges) return;
    event.stopPropagation();
    const ranges = this.ranges;
    this.ranges = null;
    this.choose(formatFrames(ranges.map(framesOf)));
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    const ranges = this.latents();
    if (!ranges.length) return;
    const change = event.shiftKey ? [0, step] : [step, 0];
    this.choose(formatFrames(ranges.map((range) => framesOf(moved(range, ...change, this.count())))));
  }

  count() {
    return latentOf(this.data.frames - 1) + 1;
  }
}

function part(first, last, frames) {
  return `left:${(100 * first) / frames}%;width:${(100 * (last - first + 1)) / frames}%`;
}
