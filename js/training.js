/** The training view on Train Memory Encoder. */

import { api } from "/scripts/api.js";
import { app } from "/scripts/app.js";

import { debounced, style } from "./dom.mjs";
import { followComfy, t } from "./i18n.mjs";
import { OpenViews } from "./open_views.mjs";
import { addPanel, after, isLinked, textOf, widgetOf } from "./panel.mjs";
import { said } from "./said.mjs";
import { emptyRun, withDisk, withEnd, withMessage } from "./training/losses.mjs";
import { STYLE } from "./training/style.mjs";
import { HEIGHT, runPath, TrainingView } from "./training/view.mjs";

const views = new OpenViews();

class TrainingOnNode {
  constructor(node) {
    this.node = node;
    this.run = null;
    this.running = null; // id of the node that trains this run
    this.view = new TrainingView((path) => api.apiURL(path), () => isLinked(node, "vae"));
    addPanel(node, "training_view", this.view.root, { minWidth: 420, height: HEIGHT, label: t("training.view") });
    this.refresh = debounced(() => this.read(), 150);
    const widget = widgetOf(node, "run");
    if (widget) after(widget, "callback", () => this.refresh());
    after(node, "onConfigure", () => this.refresh());
    after(node, "onConnectionsChange", () => this.view.show());
    views.follow(this);
  }

  open() {
    this.view.open();
    this.refresh();
  }

  async read() {
    if (!views.has(this)) return;
    const run = textOf(this.node, "run") ?? this.run;
    if (run === null) return;
    if (run !== this.run) this.show(emptyRun(run));
    this.run = run;
    try {
      const answer = await api.fetchApi(runPath(run));
      const data = await answer.json();
      if (run !== this.run) return;
      // Messages may have overtaken the answer, which then knows less than they told.
      if (answer.ok && data.losses.length < this.view.state.losses.length) return;
      const steps = Number(widgetOf(this.node, "steps")?.value ?? 0);
      if (answer.ok) this.show({ ...withDisk(this.view.state, data), steps: this.view.state.steps || steps });
      else this.show(emptyRun(run), said(data.error) ?? `HTTP ${answer.status}`);
    } catch (error) {
      this.show(this.view.state, String(error.message ?? error));
    }
  }

  message(data) {
    if (data.run !== (textOf(this.node, "run") ?? data.run)) return;
    this.run = data.run;
    this.running = data.node;
    this.show(withMessage({ ...this.view.state, run: data.run }, data));
  }

  /** The prompt is over: well, by an error, or by a person. Only the node that failed or was stopped is named. */
  ended({ node_id: node, exception_message: text }) {
    if (this.running === null || (node !== undefined && String(this.running) !== String(node))) return;
    this.running = null;
    this.show(withEnd(this.view.state, said(text?.trim().split("\n")[0] ?? "")));
  }

  show(state, error = "") {
    this.view.show(state, error);
  }

  close() {
    this.view.close();
  }
}

app.registerExtension({
  name: "VideoMemory.Training",
  setup() {
    followComfy(app);
    const all = (act) => (event) => views.live().forEach((view) => act(view, event.detail ?? {}));
    api.addEventListener("video_memory.training", all((view, data) => view.message(data)));
    for (const end of ["error", "interrupted", "success"]) api.addEventListener(`execution_${end}`, all((view, data) => view.ended(data)));
  },
  nodeCreated(node) {
    if (node.comfyClass !== "VideoMemoryTrain") return;
    style("vm-train-style", STYLE);
    new TrainingOnNode(node);
  },
});
