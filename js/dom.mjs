/** Small helpers for elements inside of nodes. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. `properties` are set as properties, but `class`, `data` and names with a dash as attributes; handlers are
 * given as `onclick` and the like. Text is always text, never markup.
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name === "class") made.className = value;
    else if (name.includes("-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Sets a property or text only when it differs, so that running animations and selections stay. */
export function update(target, name, value) {
  if (target[name] !== value) target[name] = value;
}

/** The same for an attribute. */
export function updateAttribute(target, name, value) {
  if (target.getAttribute(name) !== value) target.setAttribute(name, value);
}

/** Adds a style sheet to the page once. */
export function style(id, text) {
  if (document.getElementById(id)) return;
  document.head.append(element("style", { id, textContent: text }));
}

/** Calls `run` once, `milliseconds` after the last call. */
export function debounced(run, milliseconds) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(run, milliseconds);
  };
}

/**
 * Gives an element the wheel before anyone else is asked: Nodes 2.0 listens above it and hands the wheel to the canvas
 * unless the element has the focus. Returns what ends that.
 */
export function ownWheel(target, act) {
  const listen = (event) => target.contains(event.target) && act(event);
  const options = { capture: true, passive: false };
  window.addEventListener("wheel", listen, options);
  return () => window.removeEventListener("wheel", listen, options);
}

/** An icon of 16x16, filled, for the eye only: the button around it has the words. */
export function svg(path) {
  const icon = document.createElementNS(SVG, "svg");
  icon.setAttribute("viewBox", "0 0 16 16");
  icon.setAttribute("aria-hidden", "true");
  const shape = document.createElementNS(SVG, "path");
  shape.setAttribute("fill", "currentColor");
  shape.setAttribute("d", path);
  icon.append(shape);
  return icon;
}
