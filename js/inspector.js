/** The memory inspector on Retrieve Frames and on the Retrieval Report. */

import { api } from "/scripts/api.js";
import { app } from "/scripts/app.js";

import { element, style, update } from "./dom.mjs";
import { followComfy, t } from "./i18n.mjs";
import { batchFrames } from "./inspector/frames.mjs";
import { Scrubber } from "./inspector/scrubber.mjs";
import { SCRUBBER_HEIGHT, STYLE, TIMELINE_HEIGHT } from "./inspector/style.mjs";
import { Timeline } from "./inspector/timeline.mjs";
import { OpenViews } from "./open_views.mjs";
import { onOutput } from "./outputs.mjs";
import { addPanel, after, isLinked, setWidgets, widgetOf } from "./panel.mjs";

const [RETRIEVE, REPORT] = ["VideoMemoryRetrieve", "VideoMemoryRetrievalReport"];
const DEPTH = 6; // links from Retrieve Frames to its report: VAE Decode, cropping, scaling
const views = new OpenViews();

const fileAddress = (file) => api.apiURL(`/view?${new URLSearchParams(file)}`);

class Inspector {
  constructor(node) {
    this.node = node;
    this.pairs = null;
    this.scrubber = new Scrubber(fileAddress);
    this.hint = element("div", { class: "vm-inspect-empty", textContent: t("inspector.hint") });
    this.timeline = node.comfyClass === RETRIEVE ? new Timeline((text) => this.choose(text)) : null;
    this.root = element("div", { class: "vm-inspect" }, this.timeline?.root, this.hint, this.scrubber.root);
    const height = SCRUBBER_HEIGHT + (this.timeline ? TIMELINE_HEIGHT : 0);
    addPanel(node, "memory_inspector", this.root, { minWidth: 400, height, label: t("inspector.view") });
    onOutput(node, (output) => this.executed(output));
    after(node, "onConfigure", () => setTimeout(() => this.show()));
    const frames = widgetOf(node, "frame_indices");
    if (frames) after(frames, "callback", () => this.show());
    views.follow(this);
    this.show();
  }

  executed(output) {
    const [pairs] = output?.video_memory_recall ?? [];
    const [memory] = output?.video_memory_timeline ?? [];
    if (pairs) {
      this.pairs = pairs;
      // Retrieve Frames shows the pairs of its report as well, with the frames' numbers in the film.
      views.live().forEach((other) => other.timeline && other.reports().includes(this.node) && other.compared(pairs));
    }
    if (memory) this.memory = memory;
    if (pairs || memory) this.show();
  }

  compared(pairs) {
    this.pairs = pairs;
    this.show();
  }

  /** Reports that this node's frames reach through links. */
  reports() {
    const found = new Set();
    let nodes = [this.node];
    for (let depth = 0; depth < DEPTH && nodes.length; depth += 1) {
      nodes = nodes.flatMap((node) => (node.outputs ?? []).flatMap((_, slot) => node.getOutputNodes?.(slot) ?? []));
      nodes.filter((node) => node.comfyClass === REPORT).forEach((node) => found.add(node));
    }
    return [...found];
  }

  /** Sections in the memory that were there before the film of the sampler that has made it; 0 where no sampler is found. */
  earlier() {
    let node = this.node;
    for (let depth = 0; node && depth < DEPTH; depth += 1) {
      const slot = node.inputs?.findIndex(({ name }) => name === "memory") ?? -1;
      node = slot < 0 ? null : node.getInputNode(slot);
      if (node?.sectionsBefore) return node.sectionsBefore();
    }
    return 0;
  }

  choose(text) {
    if (!isLinked(this.node, "frame_indices")) setWidgets(app, this.node, { frame_indices: text });
    this.show();
  }

  show() {
    const names = this.memory ? batchFrames(this.memory.asked) : null;
    if (this.timeline) this.timeline.show(this.memory ?? null, String(widgetOf(this.node, "frame_indices")?.value ?? ""), this.earlier());
    if (this.pairs) this.scrubber.show(this.pairs, names);
    update(this.scrubber.root, "hidden", !this.pairs);
    update(this.hint, "hidden", Boolean(this.pairs));
  }
}

app.registerExtension({
  name: "VideoMemory.Inspector",
  setup() {
    followComfy(app);
  },
  nodeCreated(node) {
    if (node.comfyClass !== RETRIEVE && node.comfyClass !== REPORT) return;
    style("vm-inspect-style", STYLE);
    new Inspector(node);
  },
});
