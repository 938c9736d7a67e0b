/** The timeline: a ruler, one block for each shot, and the sections below. Draws, and says what the mouse wants. */

import { ownWheel } from "../dom.mjs";
import { t } from "../i18n.mjs";
import { h, icon } from "./dom.mjs";
import { followDrag } from "./drag.mjs";
import { clock, markEvery, pixelsPerSecond, visibleShots } from "./scale.mjs";

const OVERSCAN = 200; // pixels drawn beyond what is seen, so that scrolling does not show a hole
const MAPPED = 400; // shots in the small picture of the film; more cannot be told apart
const HUES = [212, 152, 32, 282, 342, 182, 62, 252];

let count = 0;

export class Timeline {
  /**
   * `actions`: `select(index, time, { range, more })`, `preview(storyboard)`, `commit(storyboard, index, chosen)`, `film()` and
   * `url(picture)`.
   */
  constructor(actions) {
    this.actions = actions;
    this.zoom = 1;
    this.held = null; // pixels per second during a drag, so that the film does not change its scale under the pointer
    this.drop = null; // during a drag to another place: { index, time, shift }
    this.images = new Map(); // by shot and name, so that drawing anew does not load them anew
    this.prefix = `vm-sb-${(count += 1)}`;
    this.ruler = h("div", { class: "vm-sb-ruler", "aria-hidden": "true" });
    this.track = h("div", { class: "vm-sb-track" });
    this.lane = h("div", { class: "vm-sb-lane", "aria-hidden": "true" });
    this.mark = h("div", { class: "vm-sb-mark", "aria-hidden": "true" });
    this.bubble = h("div", { class: "vm-sb-bubble", role: "status" });
    this.content = h("div", { class: "vm-sb-content" }, this.ruler, this.track, this.lane, this.mark, this.bubble);
    this.scroller = h(
      "div",
      { class: "vm-sb-timeline", tabindex: "0", role: "listbox", "aria-orientation": "horizontal", "aria-multiselectable": "true", "aria-label": t("storyboard.timeline") },
      this.content,
    );
    this.scroller.addEventListener("scroll", () => this.draw());
    this.content.addEventListener("pointerdown", (event) => followDrag(this, event));
    this.view = h("i");
    this.map = h("div", { class: "vm-sb-map", title: t("storyboard.map"), "aria-hidden": "true" }, this.view);
    for (const type of ["pointerdown", "pointermove"]) this.map.addEventListener(type, (event) => this.#goTo(event));
    this.observer = new ResizeObserver(() => this.draw());
  }

  /** Watches its size. */
  open() {
    this.observer.observe(this.scroller);
    this.leaveWheel ??= ownWheel(this.scroller, (event) => this.#wheel(event));
  }

  /** Stops watching. */
  close() {
    this.observer.disconnect();
    this.leaveWheel?.();
    this.leaveWheel = null;
  }

  /** Shows other values: `{ storyboard, times, sections, selected, chosen, mark, editable, fps }`; `chosen` are indices. */
  show(state) {
    this.state = state;
    this.draw();
  }

  get scale() {
    if (this.held !== null) return this.held;
    const { times, storyboard } = this.state;
    return pixelsPerSecond(this.scroller.clientWidth - 2, times.at(-1), storyboard.shots.length, this.zoom);
  }

  /** The film's time under a pointer event, whatever the canvas is zoomed to. */
  timeAt(event) {
    const box = this.content.getBoundingClientRect();
    const stretch = box.width / (this.content.offsetWidth || 1) || 1;
    return (event.clientX - box.left) / stretch / this.scale;
  }

  /** Another zoom. `time` stays where it is seen: by default the middle of the chosen shot, which is brought into view. */
  setZoom(zoom, time = this.#chosenTime()) {
    const width = this.scroller.clientWidth;
    const before = time * this.scale - this.scroller.scrollLeft;
    this.zoom = Math.min(Math.max(zoom, 1), 64);
    this.draw();
    this.scroller.scrollLeft = time * this.scale - (before >= 0 && before <= width ? before : width / 2);
    this.draw();
  }

  #chosenTime() {
    const { times, selected } = this.state;
    return (times[selected] + times[selected + 1]) / 2;
  }

  /** Scrolls so that a shot is seen. */
  reveal(index) {
    const { times } = this.state;
    const [left, right] = [times[index] * this.scale, times[index + 1] * this.scale];
    const { scrollLeft, clientWidth } = this.scroller;
    if (left < scrollLeft) this.scroller.scrollLeft = left - 20;
    else if (right > scrollLeft + clientWidth) this.scroller.scrollLeft = Math.min(left - 20, right - clientWidth + 20);
  }

  draw() {
    if (!this.state || !this.scroller.clientWidth) return;
    const { times, selected, mark, editable } = this.state;
    const scale = this.scale;
    const seen = { left: this.scroller.scrollLeft, width: this.scroller.clientWidth }; // read before anything is written
    const whole = Math.ceil(times.at(-1) * scale);
    this.content.style.width = `${whole}px`;
    const from = (seen.left - OVERSCAN) / scale;
    const to = (seen.left + seen.width + OVERSCAN) / scale;
    this.ruler.replaceChildren(...this.#marks(scale, Math.max(from, 0), Math.min(to, times.at(-1))));
    const [first, end] = visibleShots(times, from, to);
    const blocks = [];
    for (let i = first; i < end; i += 1) blocks.push(this.#block(i, scale));
    if (this.drop) blocks.push(h("div", { class: "vm-sb-drop", style: { left: `${Math.max(this.drop.time * scale, 3)}px` } }));
    for (const [key, image] of this.images) if (!blocks.some((block) => block.contains(image))) this.images.delete(key);
    this.track.replaceChildren(...blocks);
    this.lane.replaceChildren(...this.#sections(scale, from, to));
    this.mark.style.left = `${mark * scale}px`;
    this.mark.hidden = !editable || mark < times[selected] || mark > times[selected + 1];
    this.scroller.classList.toggle("vm-sb-readonly", !editable);
    this.scroller.setAttribute("aria-activedescendant", `${this.prefix}-${selected}`);
    this.scroller.setAttribute("aria-readonly", String(!editable));
    this.#drawMap(seen, whole);
  }

  /** The whole film in small while only a part of it is seen. */
  #drawMap({ left, width }, whole) {
    const { times, storyboard } = this.state;
    this.map.hidden = whole <= width + 1;
    if (this.map.hidden) return;
    const total = times.at(-1);
    const key = `${times.join()} ${storyboard.shots.length}`;
    if (this.mapped !== key) {
      const stops = storyboard.shots.slice(0, MAPPED).map((_, i) => {
        const colour = `hsl(${HUES[i % HUES.length]} 45% 50% / 0.6)`;
        return `${colour} ${((100 * times[i]) / total).toFixed(2)}% ${((100 * times[i + 1]) / total).toFixed(2)}%`;
      });
      this.map.style.backgroundImage = `linear-gradient(to right, ${stops.join(", ")})`;
      this.mapped = key;
    }
    this.view.style.left = `${(100 * left) / whole}%`;
    this.view.style.width = `${(100 * width) / whole}%`;
  }

  #goTo(event) {
    if (event.type === "pointermove" ? event.buttons !== 1 : event.button !== 0) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.type === "pointerdown") this.map.setPointerCapture(event.pointerId);
    const box = this.map.getBoundingClientRect();
    this.scroller.scrollLeft = ((event.clientX - box.left) / box.width) * this.scroller.scrollWidth - this.scroller.clientWidth / 2;
  }

  /** A few words beside the pointer while something is dragged; none hides them. */
  say(words, time = 0) {
    this.bubble.textContent = words;
    this.bubble.hidden = !words;
    const edge = this.content.offsetWidth - 130;
    this.bubble.style.left = `${Math.max(0, Math.min(time * this.scale, edge))}px`;
  }

  #marks(scale, from, to) {
    const every = markEvery(scale);
    const marks = [];
    for (let n = Math.floor(from / every); n * every <= to + 1e-6; n += 1) {
      const time = n * every;
      marks.push(h("span", { class: "vm-sb-tick", text: clock(time), style: { left: `${time * scale}px` } }));
    }
    return marks;
  }

  #block(index, scale) {
    const { storyboard, times, selected, chosen, editable } = this.state;
    const shot = storyboard.shots[index];
    const width = (times[index + 1] - times[index]) * scale;
    const length = clock(times[index + 1] - times[index]);
    const joint = t(shot.transition === "continue" ? "storyboard.continue" : "storyboard.cut");
    const label = t("storyboard.shotLabel", { number: index + 1, count: storyboard.shots.length, length, joint });
    const state = (shot.locked ? `, ${t("storyboard.locked")}` : "") + (shot.picture ? `, ${t("storyboard.hasPicture")}` : "");
    const moving = this.drop?.from.includes(index);
    const classes = ["vm-sb-shot", index === selected && "vm-sb-selected", chosen.length > 1 && chosen.includes(index) && "vm-sb-chosen", shot.locked && "vm-sb-locked", moving && "vm-sb-moving"];
    if (!shot.prompt.trim()) classes.push("vm-sb-empty");
    const digits = String(index + 1);
    const head = h("div", { class: "vm-sb-shot-head" }, h("b", { text: width > 8 + 8 * digits.length ? digits : "" }));
    if (index > 0 && width > 34) head.append(icon(shot.transition === "continue" ? "goOn" : "cut"));
    if (shot.locked && width > 50) head.append(icon("lock"));
    if (width > 74) head.append(h("span", { class: "vm-sb-length", text: length }));
    const block = h(
      "div",
      {
        class: classes.filter(Boolean).join(" "),
        id: `${this.prefix}-${index}`,
        role: "option",
        "aria-selected": String(chosen.includes(index)),
        "aria-label": `${label}${state}: ${shot.name || shot.prompt || t("storyboard.noPrompt")}`,
        title: [shot.name, shot.prompt || t("storyboard.noPrompt")].filter(Boolean).join("\n"),
        data: { index },
        style: { left: `${times[index] * scale}px`, width: `${Math.max(width - 2, 2)}px`, "--hue": HUES[index % HUES.length] },
      },
      head,
    );
    const image = shot.picture ? this.#image(index, shot.picture) : null;
    if (image && width > 18) block.append(image);
    if (width > (image ? 104 : 40)) {
      const name = shot.name ? h("b", { text: `${shot.name} ` }) : null;
      block.append(h("div", { class: "vm-sb-shot-text" }, name, h("span", { text: shot.prompt || t("storyboard.noPrompt") })));
    }
    if (editable && index > 0) block.append(h("div", { class: "vm-sb-edge vm-sb-left", data: { edge: index - 1, side: "start" }, title: t("storyboard.leftEdge") }));
    if (editable) block.append(h("div", { class: "vm-sb-edge", data: { edge: index }, title: t("storyboard.edge") }));
    if (moving) block.style.transform = `translateX(${this.drop.shift}px)`;
    return block;
  }

  #image(index, picture) {
    const key = `${index} ${picture}`;
    if (!this.images.has(key)) {
      const gone = (event) => event.target.classList.add("vm-sb-gone");
      this.images.set(key, h("img", { class: "vm-sb-thumb", src: this.actions.url(picture), alt: "", decoding: "async", draggable: "false", on: { error: gone } }));
    }
    return this.images.get(key);
  }

  #sections(scale, from, to) {
    const drawn = [];
    for (const section of this.state.sections) {
      const { start_seconds: start, seconds, index, shot } = section;
      if (start + seconds < from || start > to) continue;
      const words = t("storyboard.sectionLabel", { number: index + 1, shot: shot + 1, frames: section.frames });
      const width = Math.max(seconds * scale - 1, 1);
      const style = { left: `${start * scale}px`, width: `${width}px`, "--hue": HUES[shot % HUES.length] };
      const text = width > 18 ? String(index + 1) : "";
      drawn.push(h("span", { class: "vm-sb-section", title: `${words}\n${section.prompt}`, text, style }));
    }
    return drawn;
  }

  #wheel(event) {
    // Sideways as long as there is more than is seen, at its ends too: the canvas would zoom away under the hand there.
    const { scrollWidth, clientWidth } = this.scroller;
    const zooms = event.ctrlKey || event.metaKey;
    if (!zooms && scrollWidth <= clientWidth + 1) return;
    event.preventDefault();
    event.stopPropagation();
    if (zooms) this.setZoom(this.zoom * (event.deltaY < 0 ? 1.25 : 0.8), this.timeAt(event));
    else this.scroller.scrollLeft += event.deltaX || event.deltaY;
  }
}
