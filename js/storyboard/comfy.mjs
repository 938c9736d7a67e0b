/** Where the editor meets ComfyUI: one edit is one step of its undo, and its canvas keeps its wheel and middle button. */

/** Makes changes that ComfyUI's undo takes back in one step. */
export function asOneEdit(app, change) {
  app.canvas?.emitBeforeChange?.();
  try {
    change();
  } finally {
    app.canvas?.emitAfterChange?.();
    app.graph?.setDirtyCanvas?.(true, true);
  }
}

/** Shows or hides a widget in both renderers. */
export function setHidden(node, widget, hidden) {
  if (widget.hidden === hidden && widget.options?.hidden === hidden) return;
  widget.hidden = hidden;
  widget.options ??= {};
  widget.options.hidden = hidden;
  // Nodes 2.0 looks at the options again only when the list changes, and the same entries are no change to it.
  const widgets = [...node.widgets];
  node.widgets = [];
  node.widgets = widgets;
  node.graph?.setDirtyCanvas?.(true, true);
}

/** Hands the canvas what an element over it would swallow: zooming by wheel and panning by the middle button. */
export function shareWithCanvas(app, element) {
  element.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey && !event.metaKey && scrolls(event.target, element, event.deltaY)) return event.stopPropagation();
      if (element.closest("[data-node-id]")) return undefined; // in Nodes 2.0 the node itself passes it on
      event.preventDefault();
      return app.canvas?.processMouseWheel?.(event);
    },
    { passive: false },
  );
  for (const [type, method] of [["pointerdown", "processMouseDown"], ["pointermove", "processMouseMove"], ["pointerup", "processMouseUp"]]) // prettier-ignore
    element.addEventListener(type, (event) => {
      const middle = event.button === 1 || (type === "pointermove" && event.buttons === 4);
      if (middle) app.canvas?.[method]?.(event);
    });
}

/** Whether something between an element and `root` can scroll on in this direction. */
function scrolls(from, root, way) {
  for (let at = from; at instanceof Element; at = at.parentElement) {
    const room = way < 0 ? at.scrollTop > 0 : at.scrollTop + at.clientHeight < at.scrollHeight - 1;
    const style = room ? getComputedStyle(at).overflowY : "";
    if (style === "auto" || style === "scroll") return true;
    if (at === root) return false;
  }
  return false;
}
