/** The render view: status, player, strip of sections, and what can be done with the chosen one. */

import { element, ownWheel, update, updateAttribute } from "../dom.mjs";
import { t } from "../i18n.mjs";
import { clipPath, takesPath } from "./clips.mjs";
import { Compare } from "./compare.mjs";
import { Detail } from "./detail.mjs";
import { Pictures } from "./pictures.mjs";
import { Player } from "./player.mjs";
import { emptyFilm, pendingOf, tilesOf } from "./state.mjs";
import { progressOf, sectionsText, statusOf } from "./status.mjs";
import { Tile } from "./tile.mjs";

const PICTURES = "pictures.show"; // the switch between the strip and the memory's pictures

export class FilmView {
  /**
   * `host` is what the view needs of the node: `choices()` gives `{takes, locks}`, each null when not understood, and
   * `linked`, marked `pictures` (null too) with `picturesLinked`, and `branching`, whether `branch(index)` is possible, which begins another film; `choose(choices)` and `mark(pictures)` write them;
   * `turned(name)` and `turn(name)` read and turn a switch; `queue()` runs the workflow, `emptyQueue()` takes away what waits;
   * `address(path)` makes a full address.
   */
  constructor(host) {
    this.host = host;
    this.state = emptyFilm();
    this.error = "";
    this.selected = 0;
    this.tiles = [];
    this.build();
  }

  build() {
    this.status = element("div", { class: "vm-film-status", role: "status", "aria-live": "polite" });
    this.playButton = element("button", {
      type: "button", class: "vm-film-button", title: t("film.play.title"), onclick: () => this.togglePlayer(),
    });
    const turn = (name, words) => element("button", {
      type: "button", class: "vm-film-button", textContent: words, title: t(`${name}.title`), "aria-pressed": "false",
      onclick: () => (this.host.turn(name), this.show(), this.reveal()),
    }); // prettier-ignore
    this.turns = { "film.review": turn("film.review", t("film.review")), "film.grid": turn("film.grid", t("film.grid")), [PICTURES]: turn(PICTURES, "") };
    this.pictures = new Pictures((marks) => this.host.mark(marks));
    this.runButton = element("button", {
      type: "button", class: "vm-film-button primary", textContent: t("film.render"), title: t("film.render.title"),
      onclick: () => this.host.queue(),
    });
    // Up here it is in sight where a laptop's edge is above what else is pending.
    const head = element("div", { class: "vm-film-head" }, this.status, ...Object.values(this.turns), this.runButton, this.playButton);
    this.done = element("div");
    this.bar = element("div", { class: "vm-film-bar" }, this.done);
    this.player = new Player(
      async (tile) => (await fetch(this.clipAddress(tile, false))).blob(),
      (index) => this.select(index, false),
      () => (this.show(), this.reveal()),
    );
    this.strip = element("div", {
      class: "vm-film-strip", role: "listbox", "aria-orientation": "horizontal", "aria-label": t("film.strip"),
      onkeydown: (event) => this.key(event),
    });
    this.emptyTitle = element("div");
    const hint = element("div", { class: "vm-film-dim", textContent: t("film.idle.hint") });
    this.empty = element("div", { class: "vm-film-empty" }, this.emptyTitle, hint);
    this.detail = new Detail((choices) => this.host.choose(choices), () => this.select(this.selected), (tile) => this.openCompare(tile), (tile) => this.host.branch(tile.index));
    this.compare = new Compare(
      async (tile, key) => (await fetch(this.clipAddress({ ...tile, key }, false))).blob(),
      (index, take) => (this.compare.close(), this.detail.take(index, take)),
      () => (this.show(), this.select(this.selected)),
    );
    this.pendingText = element("div", { class: "vm-film-status", role: "status" }); // what a key has decided is heard
    this.clearButton = element("button", {
      type: "button", class: "vm-film-button", textContent: t("film.clear"), title: t("film.clear.title"),
      onclick: () => (this.detail.choose({ takes: new Map(), locks: new Set() }, "film.ask.clear"), this.show()),
    });
    this.emptyButton = element("button", {
      type: "button", class: "vm-film-button", textContent: t("film.queue.empty"), title: t("film.queue.empty.title"), onclick: () => this.host.emptyQueue(),
    });
    this.pending = element("div", { class: "vm-film-pending" }, this.pendingText, this.emptyButton, this.clearButton);
    const parts = [head, this.bar, this.player.root, this.compare.root, this.empty, this.pictures.root, this.strip, this.detail.root, this.pending];
    this.root = element("div", { class: "vm-film" }, ...parts);
    // After a reload the chosen section is known before there is room to show it in.
    this.observer = new ResizeObserver(() => this.reveal());
    this.show();
  }

  /** Shows a new state, an error of the server, or the present ones again. */
  show(state = this.state, error = this.error) {
    const { run } = state;
    // What is made is followed; what stays as it is takes the eye from nothing.
    const reached = run?.state === "running" && run.index !== this.state.run?.index && !state.plan[run.index]?.kept;
    const paused = state.run?.state === "paused" && this.state.run?.state !== "paused";
    this.state = state;
    this.error = error;
    const { takes, locks, linked, pictures, picturesLinked, branching } = this.host.choices();
    this.shown = tilesOf(state, takes ?? new Map(), locks ?? new Set());
    if (reached && !this.player.active && !this.compare.active && !this.strip.contains(document.activeElement)) this.selected = state.run.index;
    if (paused) this.selected = state.run.index - 1; // what is to be looked at
    this.selected = Math.max(0, Math.min(this.selected, this.shown.length - 1));
    this.showTiles();
    const status = statusOf(state, this.shown, error);
    update(this.status, "textContent", status);
    update(this.status, "title", status);
    update(this.bar.style, "visibility", state.run?.state === "running" ? "" : "hidden"); // its place stays
    update(this.done.style, "width", `${100 * progressOf(state)}%`);
    update(this.empty, "hidden", this.shown.length > 0);
    if (!this.shown.length) update(this.emptyTitle, "textContent", state.queue.own ? status : t(state.film ? "film.idle" : "film.unknown"));
    update(this.playButton, "textContent", this.player.active ? `◼ ${t("film.stop")}` : `▶ ${t("film.play")}`);
    update(this.playButton, "hidden", this.compare.active);
    update(this.playButton, "disabled", !this.player.active && !this.playable().length);
    this.pictures.show(state.pictures, pictures, picturesLinked);
    const useless = { "film.grid": this.shown.length < 4, [PICTURES]: !this.pictures.shown.length };
    for (const [name, button] of Object.entries(this.turns)) {
      updateAttribute(button, "aria-pressed", String(this.host.turned(name)));
      update(button, "hidden", this.player.active || this.compare.active || Boolean(useless[name]));
    }
    update(this.turns[PICTURES], "textContent", t(PICTURES, { count: this.pictures.shown.length }));
    this.root.classList.toggle("vm-film-grid", this.host.turned("film.grid"));
    updateAttribute(this.strip, "aria-orientation", this.host.turned("film.grid") ? "vertical" : "horizontal");
    this.root.classList.toggle("vm-film-watching", this.player.active || this.compare.active);
    const usable = takes !== null && locks !== null && !linked;
    this.detail.show(this.shown[this.selected], { takes, locks }, this.state, usable, branching);
    // The player takes the place of the strip and what is below it, the memory's pictures that of strip and section.
    const playing = this.player.active || this.compare.active;
    const nothing = playing || this.shown.length === 0;
    this.showPending(takes, locks, linked, nothing);
    const looking = this.host.turned(PICTURES) && this.pictures.shown.length > 0;
    update(this.pending, "hidden", nothing);
    update(this.pictures.root, "hidden", nothing || !looking);
    update(this.strip, "hidden", nothing || looking);
    update(this.detail.root, "hidden", nothing || (looking && !this.detail.asked));
    if (reached || paused) this.reveal();
  }

  showTiles() {
    while (this.tiles.length > this.shown.length) this.tiles.pop().root.remove();
    while (this.tiles.length < this.shown.length) {
      const tile = new Tile(this.tiles.length, (of, still) => this.clipAddress(of, still), (index) => this.select(index));
      this.tiles.push(tile);
      this.strip.append(tile.root);
    }
    this.shown.forEach((tile, index) => this.tiles[index].show(tile, index === this.selected));
  }

  showPending(takes, locks, linked, nothing) {
    const bad = takes === null || locks === null;
    const again = pendingOf(this.shown);
    const { run, queue } = this.state;
    const paused = run?.state === "paused";
    const others = this.host.turned("film.review") && (paused || run?.state === "running") ? queue.pending : 0;
    const parts = [];
    if (others) parts.push(t("film.queue.others", { count: others })); // a review stops one run, and no queue
    if (again.length) parts.push(t("film.pending.redo", { sections: sectionsText(again) }));
    if (locks?.size) parts.push(t("film.pending.locks", { sections: sectionsText([...locks]) }));
    if (this.pictures.changed) parts.push(t("pictures.pending"));
    const text = bad ? t("film.bad") : linked ? t("film.linked") : parts.join(" · ");
    const any = bad || takes.size > 0 || locks.size > 0;
    update(this.pending.dataset, "level", bad ? "bad" : any || parts.length ? "some" : "none");
    const none = paused ? "film.pending.paused" : "film.pending.none";
    const chosen = any ? t("film.take.chosen", { sections: sectionsText([...(takes?.keys() ?? [])]) }) : t(none);
    update(this.pendingText, "textContent", text || chosen);
    update(this.pendingText, "title", this.pendingText.textContent);
    update(this.emptyButton, "hidden", !others);
    update(this.clearButton, "hidden", linked || !any);
    update(this.runButton, "textContent", t(paused ? "film.goOn" : "film.render"));
    update(this.runButton, "hidden", nothing || bad || !(again.length || this.pictures.changed || paused) || run?.state === "running" || Boolean(queue.own));
  }

  select(index, focus = true) {
    this.selected = index;
    this.show();
    if (focus) this.tiles[index]?.root.focus({ preventScroll: true });
    this.reveal();
  }

  reveal() {
    const tile = this.tiles[this.selected]?.root;
    if (!tile) return;
    const [top, height] = [tile.offsetTop - this.strip.offsetTop, this.strip.clientHeight];
    if (top < this.strip.scrollTop) this.strip.scrollTop = top - 4;
    else if (top + tile.offsetHeight > this.strip.scrollTop + height) this.strip.scrollTop = top + tile.offsetHeight - height + 4;
    const [left, width] = [tile.offsetLeft - this.strip.offsetLeft, this.strip.clientWidth];
    // Not scrollIntoView, which would scroll the whole page as well.
    if (left < this.strip.scrollLeft) this.strip.scrollLeft = left - 8;
    else if (left + tile.offsetWidth > this.strip.scrollLeft + width) this.strip.scrollLeft = left + tile.offsetWidth - width + 8;
  }

  key(event) {
    const row = this.columns();
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -row, ArrowDown: row, Home: -this.shown.length, End: this.shown.length };
    const letters = { r: "redo", l: "lock" };
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
    if (!plain || !(event.key in steps || event.key.toLowerCase() in letters)) return;
    event.preventDefault();
    event.stopPropagation(); // R and L are keys of ComfyUI too
    if (event.key in steps) {
      this.select(Math.max(0, Math.min(this.shown.length - 1, this.selected + steps[event.key])));
    } else this.detail.press(letters[event.key.toLowerCase()]);
  }

  /** Tiles in a row of the grid; the strip is one row, where up and down mean nothing. */
  columns() {
    const top = this.tiles[0]?.root.offsetTop;
    return this.host.turned("film.grid") ? Math.max(1, this.tiles.filter(({ root }) => root.offsetTop === top).length) : 0;
  }

  wheel(event) {
    if (this.host.turned("film.grid")) {
      if (this.strip.scrollHeight > this.strip.clientHeight + 1 && !event.ctrlKey) event.stopPropagation();
      return;
    }
    const room = this.strip.scrollWidth - this.strip.clientWidth;
    if (room <= 0 || event.deltaY === 0 || event.ctrlKey) return;
    event.preventDefault();
    event.stopPropagation();
    this.strip.scrollLeft += event.deltaY;
  }

  playable() {
    return this.shown.filter((tile) => tile.clip && tile.state !== "stale");
  }

  togglePlayer() {
    if (this.player.active) this.player.stop();
    else this.player.play(this.playable(), this.selected);
    this.show();
  }

  async openCompare(tile) {
    const answer = await fetch(this.host.address(takesPath(this.state.film, tile.index)));
    const { takes = [] } = answer.ok ? await answer.json() : {};
    if (takes.length < 2 || tile.index !== this.selected) return;
    const { takes: chosen, locks, linked } = this.host.choices();
    const locked = tile.locked && !tile.lockedHere; // in the storyboard
    this.compare.open(tile, takes, chosen !== null && locks !== null && !linked && !locked);
    this.show();
  }

  clipAddress(tile, still) {
    return this.host.address(clipPath(this.state.film, tile, still));
  }

  /** Begins what goes on by itself; the node is in the workflow. */
  open() {
    this.observer.observe(this.strip);
    this.leaveWheel = ownWheel(this.strip, (event) => this.wheel(event));
  }

  /** Ends it; the node is gone. */
  close() {
    this.player.stop();
    this.compare.close();
    this.observer.disconnect();
    this.leaveWheel();
  }
}
