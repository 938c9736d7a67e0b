/** The chosen section: its prompt, where it lies, and what can be done with it. */

import { element, update } from "../dom.mjs";
import { t } from "../i18n.mjs";
import { finishedOf } from "./state.mjs";
import { continueFrom, previousTake, redo, toggleLock } from "./takes.mjs";
import { place } from "./time.mjs";

export class Detail {
  /** `change({takes, locks})` is called with what the user has chosen. */
  constructor(change) {
    this.prompt = element("div", { class: "vm-film-prompt" });
    this.facts = element("div", { class: "vm-film-status vm-film-dim" });
    const button = (name, title, act) =>
      element("button", { type: "button", class: "vm-film-button", textContent: t(name), title: t(title), onclick: () => change(act()) });
    this.buttons = {
      redo: button("film.redo", "film.redo.title", () => redo(this.choices, this.tile.index, finishedOf(this.state))),
      back: button("film.undo", "film.undo.title", () => previousTake(this.choices, this.tile.index)),
      lock: button("film.lock", "film.lock.title", () => toggleLock(this.choices, this.tile.index)),
      from: button("film.continue", "film.continue.title", () => continueFrom(this.choices, this.tile.index, this.state.count)),
    };
    const row = element("div", { class: "vm-film-detail-row" }, ...Object.values(this.buttons));
    this.root = element("div", { class: "vm-film-detail" }, this.facts, this.prompt, row);
  }

  /** `usable` is false when takes and locks cannot be changed here. */
  show(tile, choices, state, usable) {
    this.tile = tile;
    this.choices = choices;
    this.state = state;
    if (!tile) return;
    update(this.prompt, "textContent", tile.prompt);
    update(this.prompt, "title", tile.prompt);
    update(this.facts, "textContent", factsOf(tile));
    const { redo: again, back, lock, from } = this.buttons;
    const shotLock = tile.locked && !tile.lockedHere;
    again.disabled = from.disabled = !usable || shotLock;
    back.disabled = !usable || shotLock || tile.nextTake === 0;
    lock.disabled = !usable || shotLock || (!tile.key && !tile.lockedHere);
    update(lock, "textContent", t(tile.locked ? "film.unlock" : "film.lock"));
    update(lock, "title", shotLock ? t("film.lock.shot") : t(tile.locked ? "film.unlock.title" : "film.lock.title"));
    lock.setAttribute("aria-pressed", String(tile.locked));
  }

  /** What a key does: "redo" or "lock". */
  press(name) {
    this.buttons[name].click();
  }
}

function factsOf(tile) {
  const parts = [t("film.section", { number: tile.index + 1 }), `${place(tile.start)}–${place(tile.start + tile.seconds)}`, t(`film.state.${tile.state}`)];
  if (tile.key) parts.push(t("film.take", { take: tile.take + 1 }));
  if (tile.key && tile.take !== tile.nextTake && !tile.locked) parts.push(t("film.take.next", { take: tile.nextTake + 1 }));
  if (tile.locked && !tile.lockedHere) parts.push(t("film.lock.shot"));
  return parts.join("  ·  ");
}
