/** The fields of the selected shot. Fields keep their caret: they are built once and only take values that differ. */

import { t } from "../i18n.mjs";
import { button, h, icon, setAttribute, setValue } from "./dom.mjs";
import { PictureButton } from "./picture_button.mjs";
import { clock } from "./scale.mjs";
import { isSeed } from "./shots.mjs";
import { TextUndo } from "./text_undo.mjs";

export class ShotPanel {
  /**
   * `actions`: `type(values)` while a text is written, `finish()` when it is done, `change(values)` for a whole edit,
   * `resize(seconds)`, and `picture()` to choose one. `url(name)` is where an image is.
   */
  constructor(actions, url) {
    this.actions = actions;
    this.unfinished = new Set(); // number fields with what is not in the storyboard yet
    this.refused = false; // whether the seed field has been refused
    this.title = h("b", { class: "vm-sb-panel-title" });
    this.name = this.#text("input", "name", { type: "text", placeholder: t("storyboard.namePlaceholder"), maxlength: "200", "aria-label": t("storyboard.name") });
    this.prompt = this.#text("textarea", "prompt", { placeholder: t("storyboard.promptPlaceholder"), "aria-label": t("storyboard.prompt"), rows: "3", maxlength: "10000" });
    this.cut = this.#choice("cut", t("storyboard.cut"), t("storyboard.cutHint"));
    this.goOn = this.#choice("continue", t("storyboard.continue"), t("storyboard.continueHint"));
    this.lock = button("unlock", t("storyboard.lock"), () => this.actions.change({ locked: !this.shot.locked }), { label: t("storyboard.lockShort"), keys: "L" });
    this.picture = new PictureButton(() => this.actions.picture(), url, { keys: "P" });
    this.length = h("input", { type: "number", min: "0", step: "any", class: "vm-sb-number", "aria-label": t("storyboard.length"), on: { input: () => this.unfinished.add(this.length), change: () => this.#lengthDone() } });
    this.frames = h("span", { class: "vm-sb-dim" });
    this.seed = h("input", { type: "text", inputmode: "numeric", class: "vm-sb-seed", placeholder: t("storyboard.seedPlaceholder"), title: t("storyboard.seedHint"), "aria-label": t("storyboard.seed"), on: { input: () => this.unfinished.add(this.seed), change: () => this.#seedDone() } });
    this.dice = button("dice", t("storyboard.dice"), () => this.#changeSeed(randomSeed()));
    this.noSeed = button("clear", t("storyboard.noSeed"), () => this.#changeSeed(null));
    this.joint = h("div", { class: "vm-sb-choice", role: "group", "aria-label": t("storyboard.joint") }, this.cut, this.goOn);
    this.element = h(
      "div",
      { class: "vm-sb-panel vm-sb-shot-panel" },
      h("div", { class: "vm-sb-row" }, this.title, this.name, this.joint, this.lock),
      h("div", { class: "vm-sb-what" }, this.prompt, this.picture.element),
      h(
        "div",
        { class: "vm-sb-row" },
        h("label", { class: "vm-sb-field" }, h("span", { text: t("storyboard.length") }), this.length, h("span", { text: "s" })),
        this.frames,
        h("span", { class: "vm-sb-space" }),
        h("label", { class: "vm-sb-field" }, h("span", { text: t("storyboard.seed") }), this.seed),
        this.dice,
        this.noSeed,
      ),
    );
  }

  /**
   * Shows a shot: `{ shot, index, seconds, sections, editable, joint }`; `sections` are those of the plan that belong to
   * it, `joint` says why it cannot go on from the shot before, when it cannot; `count` shots are chosen, this one among them.
   */
  show({ shot, index, seconds, sections, editable, joint, count }) {
    if (index !== this.index) this.unfinished.clear();
    Object.assign(this, { shot, index, seconds });
    const title = t("storyboard.shotTitle", { number: index + 1 });
    this.title.textContent = count > 1 ? t("storyboard.oneOfChosen", { title, count }) : title;
    setValue(this.name, shot.name);
    setValue(this.prompt, shot.prompt);
    // A number that is being typed, or was refused, stays when the plan comes in between.
    if (!this.unfinished.has(this.length)) setValue(this.length, String(Number(seconds.toFixed(3))));
    if (!this.unfinished.has(this.seed)) setValue(this.seed, shot.seed ?? "");
    setAttribute(this.seed, "aria-invalid", this.unfinished.has(this.seed) && this.refused ? "true" : null);
    for (const [choice, value] of [[this.cut, "cut"], [this.goOn, "continue"]]) // prettier-ignore
      choice.setAttribute("aria-pressed", String(shot.transition === value));
    this.lock.setAttribute("aria-pressed", String(shot.locked));
    this.lock.replaceChild(icon(shot.locked ? "lock" : "unlock"), this.lock.firstChild);
    this.lock.title = `${t(shot.locked ? "storyboard.unlockHint" : "storyboard.lockHint")} (L)`;
    this.frames.textContent = sections.length ? describeSections(sections) : "";
    this.picture.show(shot.picture, t(shot.picture ? "storyboard.shotPicture" : "storyboard.noShotPicture", { number: index + 1 }));
    this.noSeed.hidden = shot.seed === null;
    this.element.classList.toggle("vm-sb-locked-panel", shot.locked);
    for (const field of this.element.querySelectorAll("input, textarea, button")) setAttribute(field, "disabled", !editable);
    for (const choice of [this.cut, this.goOn]) setAttribute(choice, "disabled", !editable || Boolean(joint));
    this.joint.title = joint;
    setAttribute(this.length, "disabled", !editable || shot.locked);
  }

  /** Puts the caret into the prompt. */
  write() {
    this.prompt.focus();
    this.prompt.setSelectionRange(this.prompt.value.length, this.prompt.value.length);
  }

  #text(tag, field, props) {
    const on = {
      input: (event) => this.actions.type({ [field]: event.target.value }),
      change: () => this.actions.finish(),
      keydown: (event) => this.#leave(event),
    };
    const made = h(tag, { class: `vm-sb-${field}`, spellcheck: "true", ...props, on });
    new TextUndo(made, () => this.actions.type({ [field]: made.value }));
    return made;
  }

  #leave(event) {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    this.actions.leave();
  }

  #choice(value, text, title) {
    const change = () => this.actions.change({ transition: value });
    return h("button", { type: "button", class: "vm-sb-button", title: `${title} (C)`, on: { click: change } }, icon(value === "cut" ? "cut" : "goOn"), h("span", { text }));
  }

  #lengthDone() {
    const seconds = Number(this.length.value);
    this.unfinished.delete(this.length);
    if (seconds > 0 && Number.isFinite(seconds)) this.actions.resize(seconds);
    else setValue(this.length, String(Number(this.seconds.toFixed(3))));
  }

  #seedDone() {
    const text = this.seed.value.trim();
    this.refused = text !== "" && !isSeed(text);
    setAttribute(this.seed, "aria-invalid", this.refused ? "true" : null);
    if (this.refused) return; // what was typed stays, to be corrected
    this.#changeSeed(text === "" ? null : String(BigInt(text)));
  }

  #changeSeed(seed) {
    this.unfinished.delete(this.seed);
    this.actions.change({ seed });
  }
}

function describeSections(sections) {
  const frames = sections.reduce((sum, section) => sum + section.frames, 0);
  const first = sections[0];
  const end = sections.at(-1).start_seconds + sections.at(-1).seconds;
  const place = `${clock(first.start_seconds)} – ${clock(end)}`;
  const key = sections.length === 1 ? "storyboard.shotSection" : "storyboard.shotSections";
  return t(key, { place, frames, count: sections.length });
}

function randomSeed() {
  const [high, low] = crypto.getRandomValues(new Uint32Array(2));
  return String((BigInt(high & 0x1fffff) << 32n) | BigInt(low)); // 53 bits: short enough to read aloud
}
