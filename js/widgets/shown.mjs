/**
 * Widgets that are shown only when they mean something, or when one asks for them.
 *
 * Nodes 2.0 has a button of its own for inputs that are marked as advanced; the classic canvas has none, and gets one here.
 */

import { t } from "../i18n.mjs";
import { after, isLinked, widgetOf } from "../panel.mjs";
import { setHidden } from "../storyboard/comfy.mjs";

/** Widgets that belong to another input, by node: without it they change nothing. */
const BELONGS = {
  VideoMemorySampler: { boundary: "model_low_noise", low_noise_memory: "model_low_noise", branch_section: "branch_film" },
};

export class Shown {
  constructor(node) {
    this.node = node;
    this.belongs = BELONGS[node.comfyClass] ?? {};
    this.advanced = node.widgets.filter((widget) => widget.options?.advanced);
    if (this.advanced.length) this.addButton();
    for (const name of new Set(Object.values(this.belongs))) {
      const widget = widgetOf(node, name);
      if (widget) after(widget, "callback", () => this.update());
    }
    this.update();
  }

  addButton() {
    const turn = () => {
      this.node.showAdvanced = !this.node.showAdvanced;
      this.update();
    };
    // No part of the workflow, and behind all that is: values of widgets are kept by their place.
    this.button = this.node.addWidget("button", "advanced_inputs", null, turn, { serialize: false, canvasOnly: true });
    this.button.serialize = false;
  }

  /** Shows what is to be shown now; the node gives or takes the room. */
  update() {
    const { node } = this;
    const useless = Object.entries(this.belongs).map(([name, other]) => [widgetOf(node, name), !this.given(other)]);
    const wanted = this.advanced.map((widget) => [widget, !node.showAdvanced && !isLinked(node, widget.name)]);
    const key = JSON.stringify([node.showAdvanced, useless.map(([, away]) => away), wanted.map(([, away]) => away)]);
    if (key === this.drawn) return;
    this.drawn = key;
    const before = node.computeSize()[1];
    for (const [widget, away] of useless) if (widget) setHidden(node, widget, away);
    // On the canvas alone: Nodes 2.0 looks at the options, and hides what is advanced by itself. What a view edits stays hidden.
    for (const [widget, away] of wanted) widget.hidden = away || widget.options.hidden === true;
    if (this.button) this.button.label = t(node.showAdvanced ? "widgets.less" : "widgets.more");
    const least = node.computeSize();
    node.setSize([Math.max(node.size[0], least[0]), Math.max(least[1], node.size[1] + least[1] - before)]);
    node.setDirtyCanvas?.(true, true);
  }

  /** Whether an input is connected, or a widget says something. */
  given(name) {
    return isLinked(this.node, name) || Boolean(String(widgetOf(this.node, name)?.value ?? "").trim());
  }
}
