/** Puts the storyboard editor on the Storyboard node. */

import { api } from "/scripts/api.js";
import { app } from "/scripts/app.js";

import { followComfy, t } from "./i18n.mjs";
import { onOutput } from "./outputs.mjs";
import { addPanel, after } from "./panel.mjs";
import { shareWithCanvas } from "./storyboard/comfy.mjs";
import { StoryboardEditor } from "./storyboard/editor.mjs";
import { Pictures } from "./storyboard/pictures.mjs";
import { ROUTE } from "./storyboard/plan.mjs";

const NODE = "VideoMemoryStoryboard";
const [WIDTH, HEIGHT] = [700, 560];

/** ComfyUI's undo removes a node and makes it anew: what the old one's editor showed, for the new one. */
let lastRemoved = null;

const send = (body) => api.fetchApi(ROUTE, { method: "POST", headers: { "Content-Type": "application/json" }, body });

function addStyles() {
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = new URL("./storyboard.css", import.meta.url).href;
  document.head.append(link);
}

function attach(node) {
  const widget = node.widgets?.find((candidate) => candidate.name === "storyboard");
  if (!widget) return; // another version of the node
  const editor = new StoryboardEditor(app, node, widget, send, new Pictures(api));
  shareWithCanvas(app, editor.element);
  const panel = addPanel(node, "storyboard_editor", editor.element, { minWidth: WIDTH, height: HEIGHT, label: t("storyboard.editor") });
  const refresh = soon(() => node.graph && editor.refresh());
  for (const input of node.widgets) if (input !== panel) after(input, "callback", refresh);
  after(node, "onConnectionsChange", refresh);
  after(node, "onAdded", () => {
    api.addEventListener("graphChanged", refresh);
    editor.open();
  });
  after(node, "onConfigure", () => {
    adoptView(node, editor);
    refresh();
  });
  onOutput(node, (output) => editor.executed(output));
  after(node, "onRemoved", () => {
    lastRemoved = { id: node.id, view: editor.view() };
    api.removeEventListener("graphChanged", refresh);
    editor.close();
  });
}

/** Runs at most once in a frame, when the graph has settled. */
function soon(run) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      run();
    });
  };
}

function adoptView(node, editor) {
  if (lastRemoved?.id !== node.id) return;
  const { view } = lastRemoved;
  lastRemoved = null;
  editor.adopt(view);
  let frames = 90; // ComfyUI shows the element some frames later
  const goTo = () => {
    if (node.graph && !editor.goTo(view) && (frames -= 1) > 0) requestAnimationFrame(goTo);
  };
  requestAnimationFrame(goTo);
}

app.registerExtension({
  name: "VideoMemory.Storyboard",
  setup: addStyles,
  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    followComfy(app);
    attach(node);
  },
});
