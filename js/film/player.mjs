/** Plays the preview clips of a film one after the other: pause, seek, single frames, and a view as large as the screen. */

import { element, svg, update } from "../dom.mjs";
import { t } from "../i18n.mjs";
import { ClipFrames } from "./clip_frames.mjs";
import { ICONS } from "./icons.mjs";
import { frameAt, placeOf, startsOf, stepped } from "./playing.mjs";
import { place } from "./time.mjs";

export class Player {
  /**
   * `load(tile)` resolves to a Blob of a section's clip; `playing(index)` is called when another section is seen, `ended()`
   * when the player is closed.
   */
  constructor(load, playing, ended) {
    this.load = load;
    this.playing = playing;
    this.ended = ended;
    this.tiles = [];
    this.canvas = element("canvas", { class: "vm-film-screen", role: "img" });
    this.caption = element("div", { class: "vm-film-caption" });
    const button = (name, act) =>
      element("button", { type: "button", class: "vm-film-button", title: t(`film.${name}`), "aria-label": t(`film.${name}`), onclick: act }, svg(ICONS[name]));
    this.pauseButton = button("pause", () => this.toggle());
    this.slider = element("input", {
      type: "range", class: "vm-film-seek", min: "0", max: "1", step: "any", "aria-label": t("film.seek"),
      oninput: () => this.seek(Number(this.slider.value)),
    }); // prettier-ignore
    this.clock = element("span", { class: "vm-film-clock" });
    this.controls = element(
      "div",
      { class: "vm-film-controls" },
      button("back", () => this.step(-1)), this.pauseButton, button("forward", () => this.step(1)), this.slider, this.clock,
      button("large", () => this.enlarge()), button("close", () => this.close()),
    ); // prettier-ignore
    this.root = element(
      "div",
      { class: "vm-film-player", hidden: true, tabIndex: -1, role: "group", "aria-label": t("film.player"), onkeydown: (event) => this.key(event) },
      this.canvas, this.caption, this.controls,
    ); // prettier-ignore
  }

  get active() {
    return !this.root.hidden;
  }

  /** Opens with some tiles in their order and plays from the section `from` on. */
  play(tiles, from = tiles[0]?.index) {
    this.tiles = tiles;
    this.starts = startsOf(tiles);
    this.clips = new Map();
    this.shown = null;
    this.root.hidden = false;
    update(this.slider, "max", String(this.starts.at(-1)));
    const first = Math.max(0, tiles.findIndex((tile) => tile.index === from));
    this.time = this.starts[first] < this.starts.at(-1) ? this.starts[first] : 0;
    this.setPlaying(true);
    this.pauseButton.focus({ preventScroll: true });
  }

  setPlaying(on) {
    this.on = on;
    this.pauseButton.replaceChildren(svg(on ? ICONS.pause : ICONS.play));
    const words = t(on ? "film.pause" : "film.resume");
    update(this.pauseButton, "title", words);
    this.pauseButton.setAttribute("aria-label", words);
    this.before = performance.now();
    this.draw();
  }

  toggle() {
    if (!this.on && this.time >= this.starts.at(-1) - 1e-3) this.time = 0; // once more from the beginning
    this.setPlaying(!this.on);
  }

  seek(time) {
    this.time = Math.max(0, Math.min(time, this.starts.at(-1)));
    this.draw();
  }

  /** One frame on or back, of the clip, which has some of the section's frames. */
  step(way) {
    this.setPlaying(false);
    const { at } = placeOf(this.starts, this.time);
    this.seek(stepped(this.starts, this.time, way, this.clips.get(at)?.count ?? 1));
  }

  enlarge() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.root.requestFullscreen?.();
  }

  close() {
    this.stop();
    this.ended();
  }

  /** Ends all that goes on by itself. */
  stop() {
    this.on = false;
    this.root.hidden = true;
    if (document.fullscreenElement === this.root) document.exitFullscreen();
    this.clips?.forEach((clip) => clip.close());
    this.clips = new Map();
  }

  key(event) {
    const acts = { ArrowLeft: () => this.step(-1), ArrowRight: () => this.step(1), Escape: () => this.close(), f: () => this.enlarge() };
    const space = event.key === " " && event.target === this.slider;
    const act = space || event.key === "k" ? () => this.toggle() : acts[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  /** Draws what is to be seen now, and goes on while it plays. */
  draw() {
    if (!this.active) return;
    const { at, share } = placeOf(this.starts, this.time);
    const tile = this.tiles[at];
    if (tile !== this.shown) this.showSection(tile);
    const clip = this.clipOf(at);
    if (this.on && at + 1 < this.tiles.length) this.clipOf(at + 1);
    clip.draw(this.canvas, frameAt(share, clip.count));
    update(this.slider, "value", String(this.time));
    this.slider.setAttribute("aria-valuetext", `${place(this.time)}, ${t("film.section", { number: tile.index + 1 })}`);
    update(this.clock, "textContent", `${place(this.time)} / ${place(this.starts.at(-1))}`);
    if (this.on && !this.waiting) this.next(clip);
  }

  next(clip) {
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      if (!this.on) return;
      const now = performance.now();
      if (clip.ready) this.time = Math.min(this.time + (now - this.before) / 1000, this.starts.at(-1));
      this.before = now;
      if (this.time >= this.starts.at(-1)) this.setPlaying(false);
      else this.draw();
    });
  }

  showSection(tile) {
    this.shown = tile;
    const words = `${tile.index + 1}  ${tile.prompt}`;
    update(this.caption, "textContent", words);
    this.canvas.setAttribute("aria-label", t("film.tile", { number: tile.index + 1, state: "", prompt: tile.prompt }));
    this.playing(tile.index);
  }

  /** Decoders of the section that is seen and of the next; those of others are given back. */
  clipOf(at) {
    if (!this.clips.has(at)) {
      for (const [other, clip] of this.clips) {
        if (Math.abs(other - at) < 2) continue;
        clip.close();
        this.clips.delete(other);
      }
      this.clips.set(at, new ClipFrames(this.load(this.tiles[at]), () => this.draw()));
    }
    return this.clips.get(at);
  }
}
