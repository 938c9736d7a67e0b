/** What the film will take: sections and prompts, tokens, VRAM, and the fields that this is planned for. */

import { number, t } from "../i18n.mjs";
import { h, setAttribute, setValue } from "./dom.mjs";
import { HOSTS, OWN_FIELDS } from "./plan.mjs";
import { clock } from "./scale.mjs";

const LISTED = 200; // sections in the list; the rest is counted

export class PlanPanel {
  /** `actions`: `select(shot)`, `set(field, value)` for a person's own field (null: as it was at first), and `cure(change)`. */
  constructor(actions) {
    this.actions = actions;
    this.sum = h("span", { class: "vm-sb-sum" });
    this.state = h("span", { class: "vm-sb-state" });
    this.least = h("i", { class: "vm-sb-least" });
    this.whole = h("i", { class: "vm-sb-whole" });
    this.gauge = h("div", { class: "vm-sb-gauge", role: "img" }, this.whole, this.least, h("i", { class: "vm-sb-card" }));
    this.tokens = h("span");
    this.vram = h("span");
    this.advice = h("div", { class: "vm-sb-advice" });
    this.cures = h("div", { class: "vm-sb-row vm-sb-cures" });
    this.untrained = h("div", { class: "vm-sb-advice", text: t("storyboard.untrained") });
    this.untrained.hidden = true;
    this.list = h("tbody");
    this.fields = h("div", { class: "vm-sb-fields" });
    this.plannedFor = h("summary");
    this.inputs = this.#inputs();
    this.element = h(
      "div",
      { class: "vm-sb-panel vm-sb-plan" },
      h("div", { class: "vm-sb-row" }, this.sum, h("span", { class: "vm-sb-space" }), this.state),
      this.gauge,
      h("div", { class: "vm-sb-row vm-sb-numbers" }, this.tokens, this.vram),
      this.advice,
      this.cures,
      this.untrained,
      h("details", { class: "vm-sb-details" }, this.plannedFor, this.fields),
      h("details", { class: "vm-sb-details vm-sb-list" }, h("summary", { text: t("storyboard.sections") }), this.#table()),
    );
  }

  /** Shows a plan: the server's answer, what the graph says, the person's fields, and what could be changed, see cures.mjs. */
  show({ answer, found, own, selected, cures }) {
    this.#showFields(found, own);
    if (!answer) return;
    const key = answer.section_count === 1 ? "storyboard.sumOne" : "storyboard.sum";
    this.sum.textContent = t(key, { sections: number(answer.section_count), length: clock(answer.seconds), frames: number(answer.frames) });
    this.#showBudget(answer.budget, answer.budget_error);
    this.untrained.hidden = !found.untrained;
    this.#showCures(cures);
    this.#showList(answer, selected);
  }

  #showBudget(budget, problem) {
    const level = budget ? levelOf(budget) : "bad";
    this.element.dataset.level = level;
    this.state.textContent = budget ? t(`storyboard.level.${level}`) : t("storyboard.noBudget");
    this.gauge.hidden = !budget;
    this.advice.textContent = budget ? budget.advice.join("\n") : problem;
    this.advice.hidden = !this.advice.textContent;
    if (!budget) {
      this.tokens.textContent = this.vram.textContent = "";
      return;
    }
    const [least, whole, card] = [budget.least_gib, budget.whole_gib, budget.card_gib];
    const full = Math.max(card * 1.25, whole * 1.02, least * 1.02);
    this.least.style.width = `${(100 * least) / full}%`;
    this.whole.style.width = `${(100 * whole) / full}%`;
    this.gauge.lastChild.style.left = `${(100 * card) / full}%`;
    const share = budget.history_tokens ? (100 * budget.memory_tokens) / budget.history_tokens : 0;
    this.tokens.textContent = t("storyboard.tokens", {
      memory: number(budget.memory_tokens), share: number(share, 1), step: number(budget.memory_tokens + budget.section_tokens),
    }); // prettier-ignore
    this.vram.textContent = t("storyboard.vram", { least: number(least, 1), whole: number(whole, 1), card: number(card) });
    this.gauge.setAttribute("aria-label", `${this.vram.textContent}. ${this.state.textContent}`);
    this.gauge.title = budget.report;
  }

  /** One button for each change; the same ones stay, and with them the focus. */
  #showCures(cures) {
    this.cures.hidden = !cures.length;
    const words = cures.map((change) => change.words).join("\n");
    this.changes = cures;
    if (words === this.offered) return;
    this.offered = words;
    const button = ({ words: text }, i) => h("button", { type: "button", class: "vm-sb-button", text, title: t("storyboard.cure.title"), on: { click: () => this.actions.cure(this.changes[i]) } });
    this.cures.replaceChildren(...cures.map(button));
  }

  #table() {
    const heads = ["section", "shot", "time", "frames", "prompt"].map((name) => h("th", { scope: "col", text: t(`storyboard.column.${name}`) }));
    const table = h("table", { role: "grid", "aria-label": t("storyboard.sections"), on: { keydown: (event) => this.#key(event) } }, h("thead", {}, h("tr", {}, ...heads)), this.list);
    return h("div", { class: "vm-sb-table" }, table);
  }

  /** One row is reached by Tab, the others from it. */
  #key(event) {
    const rows = [...this.list.querySelectorAll("[aria-selected]")];
    const at = rows.indexOf(document.activeElement);
    const to = { ArrowUp: at - 1, ArrowDown: at + 1, Home: 0, End: rows.length - 1, Enter: at, " ": at }[event.key];
    if (at < 0 || to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    this.#goTo(rows[Math.max(0, Math.min(to, rows.length - 1))]);
  }

  #goTo(row) {
    for (const other of this.list.querySelectorAll('[tabindex="0"]')) other.tabIndex = -1;
    row.tabIndex = 0;
    row.focus();
    this.actions.select(Number(row.dataset.shot));
  }

  #showList(answer, selected) {
    if (this.listed !== answer) this.#fillList(answer);
    this.listed = answer;
    for (const row of this.list.querySelectorAll("[aria-selected]")) setAttribute(row, "aria-selected", String(Number(row.dataset.shot) === selected));
  }

  #fillList(answer) {
    const rows = answer.sections.slice(0, LISTED).map((section) => {
      const end = section.start_seconds + section.seconds;
      const goesOn = section.transition === "continue" ? `${t("storyboard.goesOn")} ` : "";
      const cells = [section.index + 1, section.shot + 1, `${clock(section.start_seconds)} – ${clock(end)}`, section.frames, goesOn + section.prompt];
      const row = h("tr", { data: { shot: section.shot }, tabindex: section.index ? "-1" : "0", "aria-selected": "false" });
      row.addEventListener("click", () => this.#goTo(row));
      row.append(...cells.map((cell) => h("td", { text: String(cell), title: cell === cells[4] ? section.prompt : null })));
      return row;
    });
    const left = answer.section_count - rows.length;
    if (left > 0) rows.push(h("tr", {}, h("td", { colspan: "5", text: t("storyboard.more", { count: number(left) }) })));
    this.list.replaceChildren(...rows);
  }

  #inputs() {
    const options = HOSTS.map((host) => h("option", { value: host, text: host }));
    const make = (field, input) => {
      input.addEventListener("change", () => this.#changed(field, input));
      this.fields.append(h("label", { class: "vm-sb-field" }, h("span", { text: t(`storyboard.${field}`) }), input));
      return input;
    };
    const amount = (step, min) => h("input", { type: "number", step, min, class: "vm-sb-number" });
    return {
      plan_host: make("plan_host", h("select", {}, ...options)),
      plan_width: make("plan_width", amount("16", "16")),
      plan_height: make("plan_height", amount("16", "16")),
      plan_rate: make("plan_rate", h("input", { type: "text", class: "vm-sb-number", maxlength: "40" })),
      plan_card_gib: make("plan_card_gib", amount("1", "1")),
      plan_bytes_per_weight: make("plan_bytes_per_weight", amount("0.05", "0.1")),
      plan_opening_seconds: make("plan_opening_seconds", amount("0.5", "0")),
    };
  }

  #changed(field, input) {
    const first = OWN_FIELDS[field];
    if (typeof first !== "number") return this.actions.set(field, input.value.trim() || null);
    const value = Number(input.value);
    return this.actions.set(field, input.value.trim() === "" || !Number.isFinite(value) ? null : value);
  }

  #showFields(found, own) {
    const graph = {
      plan_host: found.encoders?.join(" + ") ?? found.host, plan_width: found.width, plan_height: found.height,
      plan_rate: found.encoders || found.max_pictures ? t("storyboard.ofEncoder") : found.rates,
    }; // prettier-ignore
    const shown = {};
    for (const [field, input] of Object.entries(this.inputs)) {
      const fixed = graph[field] !== undefined;
      const start = field === "plan_bytes_per_weight" ? (found.bytes_per_weight ?? OWN_FIELDS[field]) : OWN_FIELDS[field];
      shown[field] = String(fixed ? graph[field] : (own[field] ?? start));
      if (input.tagName === "SELECT") offerOption(input, shown[field]);
      if (input !== document.activeElement) setValue(input, shown[field]);
      if (fixed && input.type === "number" && input.value !== shown[field]) setValue(input, shown[field]);
      setAttribute(input, "disabled", fixed);
      input.title = fixed ? t("storyboard.fromGraph") : t(`storyboard.${field}Hint`);
    }
    this.plannedFor.textContent = t("storyboard.plannedFor", {
      host: shown.plan_host, size: `${shown.plan_width}×${shown.plan_height}`, rate: shown.plan_rate, card: shown.plan_card_gib,
    }); // prettier-ignore
  }
}

/** "good" with all weights on the card, "tight" when they must be streamed or it is close, "bad" when nothing helps. */
function levelOf({ least_gib: least, whole_gib: whole, card_gib: card }) {
  if (least > card) return "bad";
  return whole > 0.9 * card ? "tight" : "good";
}

function offerOption(select, value) {
  if (![...select.options].some((option) => option.value === value)) select.append(h("option", { value, text: value }));
}
