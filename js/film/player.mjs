/** Plays the preview clips of a film one after the other. */

import { element, update } from "../dom.mjs";
import { t } from "../i18n.mjs";

export class Player {
  /** `load(tile)` resolves to a Blob of a section's clip; `ended()` is called when the last one is over. */
  constructor(load, playing, ended) {
    this.load = load;
    this.playing = playing;
    this.ended = ended;
    this.run = 0;
    this.image = element("img", { alt: "", draggable: false });
    this.caption = element("div", { class: "vm-film-caption" });
    this.done = element("div");
    const bar = element("div", { class: "vm-film-bar" }, this.done);
    this.root = element("div", { class: "vm-film-player", hidden: true }, this.image, this.caption, bar);
  }

  get active() {
    return !this.root.hidden;
  }

  /** Plays tiles in their order. A clip that cannot be loaded is left out. */
  async play(tiles) {
    const run = (this.run += 1);
    this.root.hidden = false;
    const total = tiles.reduce((sum, tile) => sum + tile.seconds, 0);
    let before = 0;
    let coming = this.fetched(tiles[0]);
    for (const [place, tile] of tiles.entries()) {
      const clip = await coming;
      if (run !== this.run) return;
      coming = place + 1 < tiles.length ? this.fetched(tiles[place + 1]) : null;
      if (clip) await this.clip(clip, tile, run, before, total);
      if (run !== this.run) return;
      before += tile.seconds;
    }
    this.stop();
    this.ended();
  }

  stop() {
    this.run += 1;
    this.root.hidden = true;
    this.image.removeAttribute("src");
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = null;
  }

  async fetched(tile) {
    try {
      return await this.load(tile);
    } catch {
      return null;
    }
  }

  async clip(blob, tile, run, before, total) {
    const old = this.url;
    this.url = URL.createObjectURL(blob); // an address of its own starts the animation at its first frame
    this.image.src = this.url;
    await this.image.decode().catch(() => undefined);
    if (old) URL.revokeObjectURL(old);
    update(this.caption, "textContent", `${tile.index + 1}  ${tile.prompt}`);
    this.image.alt = t("film.tile", { number: tile.index + 1, state: "", prompt: tile.prompt });
    this.playing(tile.index);
    const start = performance.now();
    for (;;) {
      const seconds = (performance.now() - start) / 1000;
      if (run !== this.run || seconds >= tile.seconds) return;
      this.done.style.width = `${(100 * (before + seconds)) / Math.max(total, 0.001)}%`;
      await new Promise((resolve) => setTimeout(resolve, Math.min(40, 1000 * (tile.seconds - seconds))));
    }
  }
}
