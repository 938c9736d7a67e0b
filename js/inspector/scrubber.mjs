/** Original and recalled frame side by side, a slider over all of them, and the PSNR of each as a curve. */

import { element, update } from "../dom.mjs";
import { t } from "../i18n.mjs";
import { bounds, curve, nearestPair, summary } from "./quality.mjs";

const NS = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [400, 44];

export class Scrubber {
  /** `address(file)` gives the address of `{filename, subfolder, type}`. */
  constructor(address) {
    this.address = address;
    this.place = 0;
    this.pictures = ["original", "recalled"].map((kind) => picture(t(`inspector.${kind}`), () => this.lost()));
    this.gone = element("div", { class: "vm-inspect-gone", textContent: t("inspector.gone"), hidden: true });
    const pair = element("div", { class: "vm-inspect-pair" }, ...this.pictures.map((one) => one.root), this.gone);
    this.line = shape("polyline", { fill: "none", stroke: "currentColor", "stroke-width": "1.5", "vector-effect": "non-scaling-stroke" });
    this.mark = shape("line", { y1: 0, y2: HEIGHT, "stroke-width": "2", "vector-effect": "non-scaling-stroke", class: "vm-inspect-mark" });
    this.chart = shape("svg", { viewBox: `0 -2 ${WIDTH} ${HEIGHT + 4}`, preserveAspectRatio: "none", role: "img", "aria-label": t("inspector.chart") });
    this.chart.append(this.line, this.mark);
    this.chart.onpointerdown = this.chart.onpointermove = (event) => this.point(event);
    this.high = element("span");
    this.low = element("span");
    const axis = element("div", { class: "vm-inspect-axis" }, this.high, this.low);
    const plot = element("div", { class: "vm-inspect-plot", title: t("inspector.chart") }, axis, this.chart);
    this.slider = element("input", { type: "range", min: 0, step: 1, "aria-label": t("inspector.scrub"), oninput: () => this.go(Number(this.slider.value)) });
    // The canvas takes arrow keys otherwise.
    this.slider.onkeydown = (event) => event.stopPropagation();
    this.text = element("div", { class: "vm-inspect-text", "aria-live": "polite" });
    this.worst = element("button", { type: "button", class: "vm-inspect-button", textContent: t("inspector.worst"), onclick: () => this.toWorst() });
    const row = element("div", { class: "vm-inspect-row" }, this.text, this.worst);
    this.facts = element("div", { class: "vm-inspect-text vm-inspect-dim" });
    this.root = element("div", { class: "vm-inspect-scrubber" }, pair, this.slider, row, plot, this.facts);
  }

  /** Shows `{subfolder, type, psnr, pairs}`; `names` are the frames' numbers in the film, where they are known. */
  show(data, names = null) {
    this.data = data;
    this.names = names?.length === data.psnr.length ? names : data.psnr.map((_, index) => index);
    this.line.setAttribute("points", curve(data.psnr, WIDTH, HEIGHT));
    const { low, high } = bounds(data.psnr);
    update(this.high, "textContent", `${high} dB`);
    update(this.low, "textContent", `${low}`);
    const all = summary(data.psnr);
    const facts = all && t("inspector.mean", { mean: all.mean.toFixed(2), worst: all.worst.toFixed(2), frame: this.names[all.frame] });
    update(this.facts, "textContent", facts ?? t("inspector.same"));
    this.worst.disabled = !all;
    this.slider.max = String(data.pairs.length - 1);
    this.gone.hidden = true;
    this.go(Math.min(this.place, data.pairs.length - 1));
  }

  /** Shows one of the pairs. */
  go(place) {
    this.place = place;
    this.slider.value = String(place);
    const { pairs, psnr, subfolder, type } = this.data;
    const { frame, ...files } = pairs[place];
    for (const [index, kind] of ["original", "recalled"].entries()) {
      update(this.pictures[index].image, "src", this.address({ filename: files[kind], subfolder, type }));
    }
    const value = psnr[frame];
    const quality = value === null ? t("inspector.same") : t("inspector.psnr", { value: value.toFixed(2) });
    const last = this.names.at(-1);
    const text = `${t("inspector.frame", { frame: this.names[frame], count: last })} · ${quality}`;
    update(this.text, "textContent", text);
    this.slider.setAttribute("aria-valuetext", text);
    const x = psnr.length > 1 ? (frame * WIDTH) / (psnr.length - 1) : WIDTH / 2;
    this.mark.setAttribute("x1", x);
    this.mark.setAttribute("x2", x);
  }

  toWorst() {
    this.go(nearestPair(this.data.pairs, summary(this.data.psnr).frame));
  }

  point(event) {
    if (event.type === "pointermove" && !(event.buttons & 1)) return;
    event.preventDefault();
    event.stopPropagation();
    const box = this.chart.getBoundingClientRect();
    const share = Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
    this.go(nearestPair(this.data.pairs, Math.round(share * (this.data.psnr.length - 1))));
  }

  lost() {
    this.gone.hidden = false;
  }
}

function picture(label, lost) {
  const image = element("img", { alt: label, draggable: false, onerror: lost });
  return { image, root: element("figure", {}, image, element("figcaption", { textContent: label })) };
}

function shape(tag, attributes) {
  const made = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  return made;
}
