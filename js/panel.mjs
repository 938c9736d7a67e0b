/** How the pack's views live on nodes, in both renderers, and how they change the workflow. */

import { isLive } from "./live.mjs";

const MARGIN = 10; // around an element on the classic canvas, which counts it to the element's height

/**
 * Adds an element to a node as its last widget; it is no part of the workflow. `label` are the words for it where
 * ComfyUI shows widgets without their node, as in its app mode. Its room is the same before and after
 * it has something to show: a node that grew would lie over the nodes below it.
 */
export function addPanel(node, name, root, { minWidth, height, label }) {
  const widget = node.addDOMWidget(name, "VIDEO_MEMORY_VIEW", root, {
    serialize: false,
    hideOnZoom: false,
    margin: MARGIN,
    getMinHeight: () => height + 2 * MARGIN,
  });
  // In Nodes 2.0 an element is as high as what is in it, unless it is told otherwise.
  Object.assign(root.style, { minHeight: `${height}px`, contain: "size" });
  root.dataset.vmPanel = name;
  after(node, "onAdded", () => takePlace(node, name, root));
  widget.serialize = false;
  widget.options.serialize = false;
  widget.label = label;
  const least = node.computeSize();
  node.setSize([Math.max(node.size[0], minWidth, least[0]), Math.max(node.size[1], least[1])]);
  return widget;
}

/**
 * ComfyUI's undo, and a change of the workflow's tab, make a node anew under the same number, and Nodes 2.0 goes on
 * showing the old one's element. Puts the new one in its place as soon as that is to be seen.
 */
function takePlace(node, name, root) {
  let frames = 60;
  const look = () => {
    if (!isLive(node)) return; // gone itself, by another undo
    const old = root.isConnected ? null : document.querySelector(`[data-node-id="${CSS.escape(String(node.id))}"] [data-vm-panel="${name}"]`);
    old?.replaceWith(root);
    if ((frames -= 1) > 0) requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}

/** The node's widget of that name. */
export function widgetOf(node, name) {
  return node.widgets?.find((widget) => widget.name === name);
}

/** Hides a widget whose value a view edits, in both renderers. */
export function hide(widget) {
  if (!widget) return;
  widget.hidden = true;
  widget.options.hidden = true;
}

/** Whether the input of that name gets its value from another node. */
export function isLinked(node, name) {
  return node.inputs?.some((input) => input.name === name && input.link !== null && input.link !== undefined) ?? false;
}

/** The text of an input: the widget's, or that of a plain text node linked to it; null when only a run can tell. */
export function textOf(node, name) {
  const input = node.inputs?.find((entry) => entry.name === name);
  const linked = input && input.link !== null && input.link !== undefined;
  if (!linked) return String(widgetOf(node, name)?.value ?? "");
  const origin = node.getInputNode?.(node.inputs.indexOf(input));
  const widgets = origin?.widgets?.filter((widget) => typeof widget.value === "string") ?? [];
  return origin?.inputs?.some((entry) => entry.link) || widgets.length !== 1 ? null : widgets[0].value;
}

/** Sets widgets of a node as one step of ComfyUI's undo. */
export function setWidgets(app, node, values) {
  for (const [name, value] of Object.entries(values)) {
    const widget = widgetOf(node, name);
    if (!widget || widget.value === value) continue;
    widget.value = value;
    widget.callback?.(value);
  }
  changed(app, node);
}

/** Tells ComfyUI that something of the workflow was changed, as one step of its undo. */
export function changed(app, node) {
  node.setDirtyCanvas(true, true);
  const tracker = app.extensionManager?.workflow?.activeWorkflow?.changeTracker;
  (tracker?.captureCanvasState ?? tracker?.checkState)?.call(tracker);
}

/** Calls `run` after the node's own method of that name, whoever has put it there. */
export function after(node, method, run) {
  const own = node[method];
  node[method] = function (...values) {
    const result = own?.apply(this, values);
    run(...values);
    return result;
  };
}
