/** The training view: where the run stands, its loss curve, and the frames it recalls now. */

import { element, update } from "../dom.mjs";
import { roughly } from "../film/time.mjs";
import { t } from "../i18n.mjs";
import { drawCurve } from "./curve.mjs";
import { emptyRun, nothingShown, smoothed } from "./losses.mjs";

export const HEIGHT = 300;

export class TrainingView {
  /** `address(path)` makes a full address of a path below ComfyUI's API; `hasVae()` says whether pictures can come. */
  constructor(address, hasVae) {
    this.address = address;
    this.hasVae = hasVae;
    this.state = emptyRun();
    this.status = element("div", { class: "vm-train-status", role: "status" });
    this.keys = Object.fromEntries(["loss", "heldout", "without", "nothing"].map((name) => [name, key(name)]));
    this.legend = element("div", { class: "vm-train-legend" }, ...Object.values(this.keys));
    this.details = element("div", { class: "vm-train-details", hidden: true });
    this.canvas = element("canvas", { class: "vm-train-curve", role: "img" });
    this.picture = element("img", { draggable: false, alt: t("training.recalled") });
    this.opener = element("button", { type: "button", class: "vm-train-picture", title: t("training.open"), "aria-label": t("training.open"), onclick: () => this.enlarge() }, this.picture);
    this.none = element("div", { class: "vm-train-none" });
    // The picture of an earlier run may have been deleted since.
    this.picture.onerror = () => this.showPicture(false);
    this.picture.onload = () => this.showPicture(true);
    this.root = element("div", { class: "vm-train" }, element("div", { class: "vm-train-head" }, this.status, this.legend), this.details, this.canvas, this.opener, this.none);
    this.watch = new ResizeObserver(() => this.draw());
    this.showPicture(false);
    this.show();
  }

  show(state = this.state, error = "") {
    this.state = state;
    const text = error ? t("training.error", { message: error }) : statusOf(state);
    update(this.status, "textContent", text);
    const details = detailsOf(state);
    update(this.status, "title", [text, details].filter(Boolean).join("\n"));
    update(this.details, "textContent", details);
    update(this.details, "hidden", !details);
    this.canvas.setAttribute("aria-label", t("training.curve", { summary: text }));
    const source = state.recalled === null ? "" : this.address(`${runPath(state.run)}/recalled?at=${encodeURIComponent(state.recalled)}`);
    if (source && source !== this.source) this.picture.src = source;
    if (!source) this.showPicture(false);
    this.source = source;
    update(this.keys.heldout, "hidden", !state.heldout.length);
    update(this.keys.without, "hidden", !state.withoutMemory.length);
    update(this.keys.nothing, "hidden", state.nothing === null);
    update(this.keys.nothing, "textContent", nothingOf(state));
    update(this.legend, "hidden", !state.losses.length);
    update(this.none, "hidden", !state.losses.length || source !== "");
    update(this.none, "textContent", t(this.hasVae() ? "training.recalled.later" : "training.recalled.none"));
    this.draw();
  }

  showPicture(shown) {
    update(this.opener, "hidden", !shown);
  }

  /** As large as the screen, and back. */
  enlarge() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.opener.requestFullscreen?.();
  }

  draw() {
    if (this.drawing) return;
    this.drawing = requestAnimationFrame(() => {
      this.drawing = 0;
      const look = getComputedStyle(this.root);
      const colour = (name) => look.getPropertyValue(name).trim();
      const colours = { loss: colour("--vm-loss"), heldout: colour("--vm-heldout"), without: colour("--vm-without"), nothing: colour("--vm-words"), grid: colour("--border-color"), text: colour("--descrip-text") };
      drawCurve(this.canvas, this.state, colours);
    });
  }

  /** Begins to watch its size; the node is in the workflow. */
  open() {
    this.watch.observe(this.canvas);
  }

  /** Ends what goes on by itself; the node is gone. */
  close() {
    this.watch.disconnect();
    cancelAnimationFrame(this.drawing);
    this.drawing = 0;
  }
}

export function runPath(run) {
  return `/video_memory/training/${encodeURIComponent(run)}`;
}

/** Facts of the last step, and what the held-out loss is made of, a line for each. */
function detailsOf({ pace, parts }) {
  const lines = [];
  if (pace?.learning_rate !== undefined) {
    const { seconds_a_step: seconds, clips_a_second: clips, learning_rate: rate, gradient_norm: norm, card_gib: card } = pace;
    const facts = { seconds: seconds.toFixed(2), clips: clips.toFixed(2), rate: rate.toPrecision(2), norm: norm.toPrecision(3) };
    lines.push(t("training.pace", facts) + (card === undefined ? "" : ` · ${card.toFixed(1)} GiB`));
  }
  if (parts) lines.push(Object.entries(parts).map(([name, value]) => `${name} ${value.toFixed(3)}`).join(" · "));
  return lines.join("\n");
}

function statusOf({ losses, heldout, steps, message, pace, phase }) {
  if (!losses.length) return message ? t("training.failed", { message }) : t("training.idle");
  const last = losses.at(-1)[0] + 1;
  const parts = [t("training.status", { step: last, steps: Math.max(steps, last) })];
  // What a narrow node cuts off comes last.
  if (phase) parts.push(t(`training.phase.${phase}`));
  else if (pace?.seconds_left > 0 && !message) parts.push(t("film.left", { time: roughly(pace.seconds_left) }));
  parts.push(t("training.loss", { loss: smoothed(losses).at(-1)[1].toFixed(4) }));
  if (heldout.length) parts.push(t("training.heldout", { loss: heldout.at(-1)[1].toFixed(4) }));
  if (message) parts.push(t("training.failed", { message }));
  return parts.join(" · ");
}

/** Name and value of the loss of predicting nothing, and whether the curve has no room for it. */
function nothingOf(state) {
  if (state.nothing === null) return "";
  return t(nothingShown(state) ? "training.legend.nothing" : "training.legend.nothing.off", { loss: state.nothing.toPrecision(3) });
}

function key(name) {
  return element("span", { class: `vm-train-key vm-train-key-${name}`, textContent: name === "nothing" ? "" : t(`training.legend.${name}`) });
}
