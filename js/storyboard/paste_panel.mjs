/** A field for storyboards in any text format: the server reads them, and nothing is lost when it cannot. */

import { t } from "../i18n.mjs";
import { h, setAttribute } from "./dom.mjs";

export class PastePanel {
  /** `actions`: `read(text)` gives the state of plan.mjs's askOnce, `take(answer, atTheEnd)` takes
   * the storyboard of an answer, `takeLines(lines)` one shot for each line. */
  constructor(actions) {
    this.actions = actions;
    this.text = h("textarea", { class: "vm-sb-prompt", rows: "4", placeholder: t("storyboard.pastePlaceholder"), "aria-label": t("storyboard.paste") });
    this.message = h("div", { class: "vm-sb-advice", role: "alert" });
    this.buttons = [
      this.#button(t("storyboard.pasteReplace"), () => this.#take(false)),
      this.#button(t("storyboard.pasteAdd"), () => this.#take(true)),
      this.#button(t("storyboard.cancel"), () => this.close()),
    ];
    this.lines = this.#button(t("storyboard.pasteLines"), () => this.#takeLines());
    this.lines.title = t("storyboard.pasteLinesHint");
    this.text.addEventListener("input", () => {
      this.message.textContent = ""; // which was of another text
      this.#offerLines();
    });
    this.element = h(
      "div",
      { class: "vm-sb-panel vm-sb-paste", hidden: true },
      h("b", { class: "vm-sb-panel-title", text: t("storyboard.pasteTitle") }),
      this.text,
      this.message,
      h("div", { class: "vm-sb-row" }, ...this.buttons.slice(0, 2), this.lines, this.buttons[2]),
    );
    this.element.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      this.close();
    });
  }

  /** Opens the panel, with a text to begin with when there is one. */
  open(text = "") {
    this.element.hidden = false;
    if (text) this.text.value = text;
    this.message.textContent = "";
    this.#offerLines();
    this.text.focus();
    this.element.scrollIntoView?.({ block: "nearest" });
  }

  /** Closes the panel; the text stays for the next time, unless it was taken. */
  close() {
    this.element.hidden = true;
    this.actions.closed();
  }

  /** Lines of prose are one shot to the server, which cannot know; a person can. */
  #offerLines() {
    this.lines.hidden = linesOf(this.text.value).length < 2;
  }

  #takeLines() {
    this.message.textContent = this.actions.takeLines(linesOf(this.text.value)) ?? "";
    if (this.message.textContent) return this.text.focus();
    this.text.value = "";
    return this.close();
  }

  #button(text, onClick) {
    return h("button", { type: "button", class: "vm-sb-button", on: { click: onClick } }, h("span", { text }));
  }

  async #take(atTheEnd) {
    for (const button of this.buttons) setAttribute(button, "disabled", true);
    const state = await this.actions.read(this.text.value);
    for (const button of this.buttons) setAttribute(button, "disabled", false);
    const problem = state.status === "ok" ? this.actions.take(state.answer, atTheEnd) : state.message;
    this.message.textContent = problem ?? "";
    if (problem) return this.text.focus();
    this.text.value = "";
    return this.close();
  }
}

/** The lines of a text that is a list of prompts; none of what is JSON or holds times in brackets. */
export function linesOf(text) {
  if (/^\s*[{["]/.test(text)) return [];
  return text.split("\n").map((line) => line.replace(/^\s*(?:[-*•]|\d{1,3}[.)])\s+/, "").trim()).filter(Boolean);
}
