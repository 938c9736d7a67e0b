/** The report of a node as text on the node itself: ComfyUI shows texts on its own preview nodes alone. */

import { app } from "/scripts/app.js";

import { element, style, update } from "./dom.mjs";
import { followComfy, t } from "./i18n.mjs";
import { onOutput } from "./outputs.mjs";
import { addPanel } from "./panel.mjs";
import { said } from "./said.mjs";

/** Nodes with a report and no other view, and the height that theirs takes. */
const NODES = { VideoMemoryBudget: 180, VideoMemoryCut: 90, VideoMemoryJoin: 90, VideoMemorySave: 52, VideoMemoryFilmReport: 180 };

const STYLE = `
.vm-report { box-sizing: border-box; width: 100%; height: 100%; padding: 8px; overflow: auto; border-radius: 8px;
  border: 1px solid var(--border-color); background: var(--comfy-menu-bg); color: var(--input-text);
  font: 13px/1.4 system-ui, sans-serif; white-space: pre-wrap; overflow-wrap: anywhere; user-select: text;
  scrollbar-width: thin; }
.vm-report-none { display: grid; place-content: center; text-align: center; color: color-mix(in srgb, var(--descrip-text, #999) 55%, var(--input-text, #ddd)); }
`;

function attach(node) {
  const root = element("div", { class: "vm-report", role: "status", "data-capture-wheel": "true" });
  const show = (text) => {
    root.classList.toggle("vm-report-none", !text);
    update(root, "textContent", said(text) || t("report.none"));
  };
  const executed = (output) => output?.text && show([output.text].flat().join("\n"));
  show("");
  addPanel(node, "report_view", root, { minWidth: 340, height: NODES[node.comfyClass], label: t("report.view") });
  onOutput(node, executed);
}

app.registerExtension({
  name: "VideoMemory.Report",
  setup() {
    followComfy(app);
  },
  nodeCreated(node) {
    if (!(node.comfyClass in NODES)) return;
    style("vm-report-style", STYLE);
    attach(node);
  },
});
