/** How the pack's views live on nodes, in both renderers, and how they change the workflow. */

/**
 * Adds an element to a node as its last widget; it is no part of the workflow. `minHeight()` says how much room it
 * needs now. Returns `fit`, which makes the node large enough after that has changed.
 */
export function addPanel(node, name, root, { minWidth, minHeight }) {
  const widget = node.addDOMWidget(name, "VIDEO_MEMORY_VIEW", root, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: minHeight,
  });
  widget.serialize = false;
  widget.options.serialize = false;
  let given = 0; // height that was added for the view and can be taken back when it needs less
  const fit = () => {
    const [width, height] = node.computeSize();
    const spare = Math.min(given, Math.max(0, node.size[1] - height));
    const size = [Math.max(node.size[0], minWidth, width), Math.max(node.size[1] - spare, height)];
    given += size[1] - node.size[1];
    if (size[0] !== node.size[0] || size[1] !== node.size[1]) node.setSize(size);
    node.setDirtyCanvas(true, true);
  };
  return fit;
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
