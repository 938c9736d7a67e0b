/** Two takes of a section beside each other, in step, and the choice between them. */

import { element, svg, update } from "../dom.mjs";
import { t } from "../i18n.mjs";
import { ClipFrames } from "./clip_frames.mjs";
import { ICONS } from "./icons.mjs";
import { frameAt } from "./playing.mjs";
import { place } from "./time.mjs";

/** What a version of a section is called; `current` is the one that the film has. */
export function versionName({ key, take, made, kept }, current) {
  const time = new Date(made * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  const name = take === null ? t("film.version", { time }) : t("film.version.take", { take: take + 1, time });
  if (key === current) return t("film.version.current", { name });
  return kept ? name : t("film.version.other", { name });
}

/** The two that are seen first: the film's own on the right, on the left the newest other one. */
export function firstPair(versions, current) {
  const own = versions.find(({ key }) => key === current) ?? versions.at(-1);
  const other = versions.findLast((version) => version !== own) ?? own;
  return [other, own];
}

export class Compare {
  /** `load(tile, key)` gives a promise of a clip; `choose(index, take)` takes a take; `ended()` is called when it is closed. */
  constructor(load, choose, ended) {
    Object.assign(this, { load, ended, sides: [], time: 0, on: false });
    this.sides = ["left", "right"].map((name) => {
      const side = { canvas: element("canvas", { class: "vm-film-screen", width: 16, height: 9, role: "img" }) };
      side.list = element("select", { "aria-label": t(`film.compare.${name}`), onchange: () => this.show(side, this.versions[side.list.selectedIndex]) });
      side.use = element("button", { type: "button", class: "vm-film-button", textContent: t("film.compare.use"), onclick: () => choose(this.tile.index, side.version.take) });
      side.root = element("div", { class: "vm-film-side" }, side.canvas, element("div", { class: "vm-film-side-row" }, side.list, side.use));
      return side;
    });
    const button = (name, act) => element("button", { type: "button", class: "vm-film-button", title: t(`film.${name}`), "aria-label": t(`film.${name}`), onclick: act }, svg(ICONS[name]));
    this.pause = button("pause", () => this.play(!this.on));
    this.slider = element("input", { type: "range", class: "vm-film-seek", min: "0", max: "1", step: "any", "aria-label": t("film.compare.seek"), oninput: () => this.seek(Number(this.slider.value)) });
    this.clock = element("span", { class: "vm-film-clock" });
    const controls = element("div", { class: "vm-film-controls" }, button("back", () => this.step(-1)), this.pause, button("forward", () => this.step(1)), this.slider, this.clock, button("close", () => this.close()));
    this.pair = element("div", { class: "vm-film-pair" }, ...this.sides.map(({ root }) => root));
    this.root = element(
      "div",
      { class: "vm-film-player", hidden: true, tabIndex: -1, role: "group", "aria-label": t("film.compare"), onkeydown: (event) => this.key(event) },
      this.pair, controls,
    ); // prettier-ignore
  }

  get active() {
    return !this.root.hidden;
  }

  /** Opens with a section and its versions, see `takes` of the server, oldest first. */
  open(tile, versions, usable) {
    Object.assign(this, { tile, versions, time: 0 });
    this.root.hidden = false;
    update(this.slider, "max", String(tile.seconds));
    const pair = firstPair(versions, tile.key);
    this.sides.forEach((side, i) => {
      side.usable = usable;
      side.list.replaceChildren(...versions.map((version) => element("option", { textContent: versionName(version, tile.key) })));
      side.list.selectedIndex = versions.indexOf(pair[i]);
      this.show(side, pair[i]);
    });
    this.play(true);
    this.pause.focus({ preventScroll: true });
  }

  /** Another version on one side; the time stays. */
  show(side, version) {
    side.clip?.close();
    Object.assign(side, { version, clip: new ClipFrames(this.load(this.tile, version.key), () => this.draw()) });
    update(side.use, "disabled", !side.usable || !version.kept || version.take === null || version.take === this.tile.nextTake);
    side.canvas.setAttribute("aria-label", versionName(version, this.tile.key));
    this.draw();
  }

  play(on) {
    this.on = on;
    if (on && this.time >= this.tile.seconds - 1e-3) this.time = 0;
    this.pause.replaceChildren(svg(on ? ICONS.pause : ICONS.play));
    const words = t(on ? "film.pause" : "film.resume");
    update(this.pause, "title", words);
    this.pause.setAttribute("aria-label", words);
    this.before = performance.now();
    this.draw();
  }

  seek(time) {
    this.time = Math.max(0, Math.min(time, this.tile.seconds - 1e-6));
    this.draw();
  }

  step(way) {
    this.play(false);
    const count = Math.max(...this.sides.map(({ clip }) => clip.count));
    this.seek(((frameAt(this.time / this.tile.seconds, count) + way) * this.tile.seconds) / count);
  }

  /** Both at the same time, whatever the number of frames in their clips; over and over while it plays. */
  draw() {
    if (!this.active || this.sides.some(({ clip }) => !clip)) return;
    const share = this.time / this.tile.seconds;
    for (const { clip, canvas } of this.sides) clip.draw(canvas, frameAt(share, clip.count));
    update(this.slider, "value", String(this.time));
    update(this.clock, "textContent", `${place(this.time)} / ${place(this.tile.seconds)}`);
    if (!this.on || this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      if (!this.on) return; // paused or closed meanwhile
      const now = performance.now();
      if (this.sides.every(({ clip }) => clip.ready)) this.time = (this.time + (now - this.before) / 1000) % this.tile.seconds;
      this.before = now;
      this.draw();
    });
  }

  close() {
    if (!this.active) return;
    this.on = false;
    this.root.hidden = true;
    for (const side of this.sides) {
      side.clip?.close();
      side.clip = null;
    }
    this.ended();
  }

  key(event) {
    const acts = { ArrowLeft: () => this.step(-1), ArrowRight: () => this.step(1), Escape: () => this.close(), k: () => this.play(!this.on) };
    const act = event.target.tagName === "SELECT" && event.key !== "Escape" ? null : acts[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }
}
