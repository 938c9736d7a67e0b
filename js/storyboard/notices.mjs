/** What a person has to know now, each with the button that helps. */

import { t } from "../i18n.mjs";
import { h } from "./dom.mjs";
import { readingWords } from "./reading.mjs";

export class Notices {
  /** `actions`: `convert`, `shotsDecide`, `retry`. */
  constructor(actions) {
    this.actions = actions;
    this.element = h("div", { class: "vm-sb-notices", "aria-live": "polite" });
    this.drawn = "";
    this.once = null;
  }

  /** A notice until the next edit, or until another shot is chosen. */
  say(words) {
    const { text, selected } = this.last;
    this.once = { words, text, selected };
    this.show(this.last);
  }

  /** Shows what the editor's state asks for. */
  show(editor) {
    this.last = editor;
    const notices = this.#list(editor);
    const key = JSON.stringify(notices.map(({ kind, text, action }) => [kind, text, action]));
    if (key === this.drawn) return; // a screen reader would read them again
    this.drawn = key;
    this.element.replaceChildren(...notices.map((notice) => this.#row(notice)));
  }

  #list(editor) {
    const { linked, fromRun, text, storyboard, shown, problem, node } = editor;
    const list = [];
    if (linked) {
      const known = fromRun ? t(text === null ? "storyboard.notRun" : "storyboard.lastRun") : "";
      list.push({ kind: "info", text: `${t("storyboard.isLinked")} ${known}`.trim() });
    } else if (!storyboard && text?.trim()) {
      const action = shown ? "convert" : undefined;
      list.push({ kind: "info", text: t(shown ? "storyboard.isForeign" : "storyboard.isForeignText"), action });
    }
    for (const words of unusedPictures(editor)) list.push({ kind: "error", text: words });
    const reading = readingWords(editor.readAs());
    if (reading && !problem) list.push({ kind: "info", text: reading });
    if (problem) {
      const server = problem.field === "server";
      const words = server ? t("storyboard.noServer", { reason: problem.message }) : problem.message;
      list.push({ kind: "error", text: words, action: server ? "retry" : undefined });
    }
    const total = node && editor.numbers().total_seconds;
    if (total > 0 && storyboard && !linked) list.push({ kind: "info", text: t("storyboard.isFixed", { seconds: total }), action: "shotsDecide" });
    if (this.once && (this.once.text !== text || this.once.selected !== editor.selected)) this.once = null;
    if (this.once) list.push({ kind: "info", text: this.once.words });
    return list;
  }

  #row({ kind, text, action }) {
    const row = h("div", { class: `vm-sb-notice vm-sb-${kind}`, role: kind === "error" ? "alert" : null }, h("span", { text }));
    if (action) {
      const click = () => this.actions[action]();
      row.append(h("button", { type: "button", class: "vm-sb-button", text: t(`storyboard.${action}`), on: { click } }));
    }
    return row;
  }
}

/** What the plan says of pictures that a run would refuse; of a memory that the graph does not show it says nothing. */
function unusedPictures({ plan, text, found }) {
  if (plan?.of !== text) return [];
  const known = found.encoders || found.rates;
  const told = (plan.answer.unused_pictures ?? []).filter(({ why }) => why !== "token_memory" || known);
  const reasons = [...new Set(told.map(({ why }) => why))];
  return reasons.map((reason) => t(`storyboard.unused.${reason}`, { whose: told.filter(({ why }) => why === reason).map(owner).join(", ") }));
}

function owner({ shot, cast }) {
  return shot === undefined ? cast || t("storyboard.wholeFilm") : t("storyboard.shotTitle", { number: shot + 1 });
}
