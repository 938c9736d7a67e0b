/** Puts the storyboard editor on the Storyboard node. */

import { api } from "/scripts/api.js";
import { app } from "/scripts/app.js";

import { followComfy, t } from "./i18n.mjs";
import { isLive } from "./live.mjs";
import { OpenViews } from "./open_views.mjs";
import { onOutput } from "./outputs.mjs";
import { addPanel, after } from "./panel.mjs";
import { shareWithCanvas } from "./storyboard/comfy.mjs";
import { StoryboardEditor } from "./storyboard/editor.mjs";
import { Pictures } from "./storyboard/pictures.mjs";
import { ROUTE } from "./storyboard/plan.mjs";

const NODE = "VideoMemoryStoryboard";
const [WIDTH, HEIGHT] = [700, 560];

/** ComfyUI's undo removes a node and makes it anew: what the old ones' editors showed, by workflow and node, for the new ones. */
const removed = new Map();
const STAYS = 1000; // ms; an undo is done before that

const views = new OpenViews();

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
  const refresh = soon(() => isLive(node) && editor.refresh());
  for (const input of node.widgets) if (input !== panel) after(input, "callback", refresh);
  after(node, "onConnectionsChange", refresh);
  let place = null; // where the node was, which it no longer knows when it is removed
  after(node, "onAdded", () => (place = placeOf(node)));
  after(node, "onConfigure", () => {
    adoptView(node, editor);
    refresh();
  });
  onOutput(node, (output) => editor.executed(output));
  after(node, "onRemoved", () => {
    const view = editor.view();
    removed.set(place, view);
    setTimeout(() => removed.get(place) === view && removed.delete(place), STAYS);
  });
  views.follow({ node, refresh, open: () => editor.open(), close: () => editor.close() });
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

/** A node's number in its graph, and the graph's own: numbers are the same in most workflows. */
const placeOf = ({ graph, id }) => `${graph?.id}:${id}`;

function adoptView(node, editor) {
  const view = removed.get(placeOf(node));
  if (!view) return;
  removed.delete(placeOf(node));
  editor.adopt(view);
  let frames = 90; // ComfyUI shows the element some frames later
  const goTo = () => {
    if (node.graph && !editor.goTo(view) && (frames -= 1) > 0) requestAnimationFrame(goTo);
  };
  requestAnimationFrame(goTo);
}

app.registerExtension({
  name: "VideoMemory.Storyboard",
  setup() {
    addStyles();
    api.addEventListener("graphChanged", () => views.live().forEach((view) => view.refresh()));
  },
  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    followComfy(app);
    attach(node);
  },
});
