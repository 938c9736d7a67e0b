/** The training view: where the run stands, its loss curve, and the frames it recalls now. */

import { element, update } from "../dom.mjs";
import { t } from "../i18n.mjs";
import { drawCurve } from "./curve.mjs";
import { emptyRun, smoothed } from "./losses.mjs";

export const HEIGHT = 300;

export class TrainingView {
  /** `address(path)` makes a full address of a path below ComfyUI's API; `hasVae()` says whether pictures can come. */
  constructor(address, hasVae) {
    this.address = address;
    this.hasVae = hasVae;
    this.state = emptyRun();
    this.status = element("div", { class: "vm-train-status", role: "status" });
    this.heldoutKey = key("heldout");
    this.legend = element("div", { class: "vm-train-legend" }, key("loss"), this.heldoutKey);
    this.canvas = element("canvas", { class: "vm-train-curve", role: "img" });
    this.picture = element("img", { class: "vm-train-picture", draggable: false, alt: t("training.recalled"), title: t("training.recalled") });
    this.none = element("div", { class: "vm-train-none" });
    // The picture of an earlier run may have been deleted since.
    this.picture.onerror = () => this.showPicture(false);
    this.picture.onload = () => this.showPicture(true);
    this.root = element("div", { class: "vm-train" }, element("div", { class: "vm-train-head" }, this.status, this.legend), this.canvas, this.picture, this.none);
    this.watch = new ResizeObserver(() => this.draw());
    this.watch.observe(this.canvas);
    this.showPicture(false);
    this.show();
  }

  show(state = this.state, error = "") {
    this.state = state;
    const text = error ? t("training.error", { message: error }) : statusOf(state);
    update(this.status, "textContent", text);
    update(this.status, "title", text);
    this.canvas.setAttribute("aria-label", t("training.curve", { summary: text }));
    const source = state.recalled === null ? "" : this.address(`${runPath(state.run)}/recalled?at=${encodeURIComponent(state.recalled)}`);
    if (source && source !== this.source) this.picture.src = source;
    if (!source) this.showPicture(false);
    this.source = source;
    update(this.heldoutKey, "hidden", !state.heldout.length);
    update(this.legend, "hidden", !state.losses.length);
    update(this.none, "hidden", !state.losses.length || source !== "");
    update(this.none, "textContent", t(this.hasVae() ? "training.recalled.later" : "training.recalled.none"));
    this.draw();
  }

  showPicture(shown) {
    update(this.picture, "hidden", !shown);
  }

  draw() {
    if (this.drawing) return;
    this.drawing = requestAnimationFrame(() => {
      this.drawing = 0;
      const look = getComputedStyle(this.root);
      const colour = (name) => look.getPropertyValue(name).trim();
      const colours = { loss: colour("--vm-loss"), heldout: colour("--vm-heldout"), grid: colour("--border-color"), text: colour("--descrip-text") };
      drawCurve(this.canvas, this.state, colours);
    });
  }

  close() {
    this.watch.disconnect();
    cancelAnimationFrame(this.drawing);
  }
}

export function runPath(run) {
  return `/video_memory/training/${encodeURIComponent(run)}`;
}

function statusOf({ losses, heldout, steps, message }) {
  if (!losses.length) return message ? t("training.failed", { message }) : t("training.idle");
  const last = losses.at(-1)[0] + 1;
  const parts = [t("training.status", { step: last, steps: Math.max(steps, last) })];
  parts.push(t("training.loss", { loss: smoothed(losses).at(-1)[1].toFixed(4) }));
  if (heldout.length) parts.push(t("training.heldout", { loss: heldout.at(-1)[1].toFixed(4) }));
  if (message) parts.push(t("training.failed", { message }));
  return parts.join(" · ");
}

function key(name) {
  return element("span", { class: `vm-train-key vm-train-key-${name}`, textContent: t(`training.legend.${name}`) });
}
