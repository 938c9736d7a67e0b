/** The chosen section: its prompt, where it lies, and what can be done with it. */

import { element, update, updateAttribute } from "../dom.mjs";
import { t } from "../i18n.mjs";
import { oddText } from "./odd.mjs";
import { finishedOf } from "./state.mjs";
import { sectionsText } from "./status.mjs";
import { continueFrom, previousTake, redo, takeOf, toggleLock, unlocked } from "./takes.mjs";
import { place } from "./time.mjs";

export class Detail {
  /**
   * `change({takes, locks})` is called with what the user has chosen; `leave()` gives the focus back to the strip;
   * `compare(tile)` shows what else is on disk of a section, `branch(tile)` begins another film with what is there up to it.
   */
  constructor(change, leave, compare, branch) {
    Object.assign(this, { change, leave });
    this.prompt = element("span");
    this.facts = element("span", { class: "vm-film-dim" });
    this.odd = element("span", { class: "vm-film-odd-text", role: "note", hidden: true });
    this.words = element("div", { class: "vm-film-words" }, this.facts, "  ", this.odd, this.prompt);
    const button = (name, act) => plainButton(t(name), t(`${name}.title`), act);
    this.buttons = {
      redo: button("film.redo", () => this.choose(redo(this.choices, this.tile.index, finishedOf(this.state)))),
      back: button("film.undo", () => this.choose(previousTake(this.choices, this.tile.index))),
      compare: button("film.compare", () => compare(this.tile)),
      lock: button("film.lock", () => this.change(toggleLock(this.choices, this.tile.index))),
      branch: button("film.branch", () => branch(this.tile)),
      from: button("film.continue", () => this.choose(continueFrom(this.choices, this.tile.index, madeOf(this.state)))),
    };
    this.row = element("div", { class: "vm-film-detail-row" }, ...Object.values(this.buttons));
    this.question = element("div", { class: "vm-film-question", id: `vm-film-question-${(count += 1)}` });
    this.yes = plainButton(t("film.ask.yes"), t("film.ask.yes.title"), () => this.answer(true));
    this.no = plainButton(t("film.ask.no"), t("film.ask.no.title"), () => this.answer(false));
    this.asking = element(
      "div",
      { class: "vm-film-detail-row vm-film-ask", role: "alertdialog", "aria-labelledby": this.question.id, hidden: true },
      this.question, this.yes, this.no,
    ); // prettier-ignore
    this.asking.onkeydown = (event) => this.key(event);
    this.root = element("div", { class: "vm-film-detail" }, this.words, this.row, this.asking);
  }

  /** `usable` is false when takes and locks cannot be changed here, `branching` when the film's name cannot. */
  show(tile, choices, state, usable, branching) {
    if (this.asked && (tile?.index !== this.asked.index || usable !== this.asked.usable)) this.ask(null);
    this.usable = usable;
    this.tile = tile;
    this.choices = choices;
    this.state = state;
    if (!tile) return;
    update(this.prompt, "textContent", tile.prompt);
    update(this.facts, "textContent", factsOf(tile, state.before));
    update(this.words, "title", `${this.facts.textContent}\n${tile.prompt}`);
    const { redo: again, back, lock, from } = this.buttons;
    const shotLock = tile.locked && !tile.lockedHere;
    again.disabled = !usable || shotLock || !tile.key;
    update(again, "title", t(tile.key ? "film.redo.title" : "film.unmade"));
    from.disabled = !usable || shotLock || !madeOf(state).some((index) => index >= tile.index);
    const odd = oddText(tile);
    update(this.prompt, "hidden", Boolean(odd)); // which the tile shows, too: the pictures keep their room
    update(this.odd, "hidden", !odd);
    update(this.odd, "textContent", odd);
    if (odd) update(this.words, "title", `${this.words.title}\n${odd}`);
    again.classList.toggle("primary", Boolean(odd) && !tile.locked && tile.take === tile.nextTake);
    this.buttons.branch.disabled = !branching || !finishedOf(state).includes(tile.index);
    update(this.buttons.compare, "hidden", tile.versions < 2);
    back.disabled = !usable || shotLock;
    update(back, "hidden", tile.nextTake === 0);
    lock.disabled = !usable || shotLock || (!tile.key && !tile.lockedHere);
    update(lock, "textContent", t(tile.locked ? "film.unlock" : "film.lock"));
    update(lock, "title", shotLock ? t("film.lock.shot") : t(tile.locked ? "film.unlock.title" : "film.lock.title"));
    updateAttribute(lock, "aria-pressed", String(tile.locked));
  }

  /** Another take that is on disk. */
  take(index, take) {
    this.choose(takeOf(this.choices, index, take, finishedOf(this.state)));
  }

  /** What a key does: "redo" or "lock". */
  press(name) {
    this.buttons[name].click();
  }

  /** A change that takes locks away is made only after a person has said so: only Unlock does that without a word. */
  choose(choices, words = "film.ask") {
    const lost = unlocked(this.choices, choices);
    if (lost.length) this.ask({ index: this.tile.index, usable: this.usable, choices, lost, words });
    else this.change(choices);
  }

  ask(asked) {
    this.asked = asked;
    update(this.asking, "hidden", !asked);
    this.root.classList.toggle("vm-film-asking", Boolean(asked)); // on top of the view, where a small screen shows it
    for (const part of [this.words, this.row]) update(part, "hidden", Boolean(asked)); // their room is the question's
    if (!asked) return;
    update(this.question, "textContent", t(asked.words, { sections: sectionsText(asked.lost) }));
    update(this.question, "title", this.question.textContent);
    this.no.focus({ preventScroll: true });
  }

  answer(yes) {
    const { choices } = this.asked;
    this.ask(null);
    if (yes) this.change(choices);
    this.leave();
  }

  key(event) {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    this.answer(false);
  }
}

let count = 0;

function plainButton(textContent, title, onclick) {
  return element("button", { type: "button", class: "vm-film-button", textContent, title, onclick });
}

/** Sections that have ever been made, those of an earlier run included. */
function madeOf(state) {
  return state.sections.map((entry) => entry.index);
}

function factsOf(tile, before) {
  const earlier = before ? [t("film.before", { count: before })] : [];
  const parts = [t("film.section", { number: tile.index + 1 }), ...earlier, `${place(tile.start)}–${place(tile.start + tile.seconds)}`, t(`film.state.${tile.state}`)];
  if (tile.key || tile.state === "sampling") parts.push(t("film.take", { take: tile.take + 1 }));
  if (tile.key && tile.take !== tile.nextTake && !tile.locked) parts.push(t("film.take.next", { take: tile.nextTake + 1 }));
  if (tile.locked && !tile.lockedHere) parts.push(t("film.lock.shot"));
  return parts.join("  ·  ");
}
