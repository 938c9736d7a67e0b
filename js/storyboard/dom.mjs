/** Small tools for building elements; texts go in as text, never as markup. */

const SVG = "http://www.w3.org/2000/svg";

/** Icons of 16x16, drawn with lines. */
const ICONS = {
  add: "M8 3v10M3 8h10",
  split: "M8 2v12M5.5 5.5 3 8l2.5 2.5M10.5 5.5 13 8l-2.5 2.5",
  copy: "M5.5 5.5h8v8h-8zM3 10.5h-.5v-8h8V3",
  remove: "M3 4.5h10M6.5 4V2.5h3V4M4.5 4.5l.6 9h5.8l.6-9M7 7v4M9 7v4",
  left: "M13 8H3M7 4 3 8l4 4",
  right: "M3 8h10M9 4l4 4-4 4",
  zoomIn: "M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9M10.5 10.5 14 14M7 5v4M5 7h4",
  zoomOut: "M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9M10.5 10.5 14 14M5 7h4",
  fit: "M2.5 4v8M13.5 4v8M5 8h6M6.5 6 4.5 8l2 2M9.5 6l2 2-2 2",
  paste: "M5 3H3.5v11h9V3H11M5.5 1.8h5v2.6h-5zM6 8h4M6 10.5h4",
  text: "M3 4V3h10v1M8 3v10M6 13h4",
  lock: "M4 7.5h8v6H4zM5.5 7.5V5a2.5 2.5 0 0 1 5 0v2.5",
  unlock: "M4 7.5h8v6H4zM5.5 7.5V5a2.5 2.5 0 0 1 4.8-1",
  cut: "M4.5 10a2 2 0 1 0 0 4 2 2 0 0 0 0-4M11.5 10a2 2 0 1 0 0 4 2 2 0 0 0 0-4M5.7 10.4 11 2M10.3 10.4 5 2",
  goOn: "M2.5 8h10M9 4.5 12.5 8 9 11.5",
  dice: "M3 3h10v10H3zM5.9 5.9h.2M9.9 5.9h.2M7.9 7.9h.2M5.9 9.9h.2M9.9 9.9h.2",
  clear: "M4 4l8 8M12 4l-8 8",
  picture: "M2.5 3h11v10h-11zM2.5 11l3-3.5 2.5 2.5 2-1.5 3.5 3M10.5 5.4h.2v.2h-.2z",
};

/**
 * An element. `props`: `class`, `text`, `on` (listeners by event), `style` (by property), `data`; any other name is an
 * attribute, left out when its value is null or false.
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === "class") element.className = value;
    else if (name === "text") element.textContent = value;
    else if (name === "on") for (const [type, listener] of Object.entries(value)) element.addEventListener(type, listener);
    else if (name === "style") for (const [key, css] of Object.entries(value)) element.style.setProperty(key, css);
    else if (name === "data") Object.assign(element.dataset, value);
    else setAttribute(element, name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets an attribute; null and false take it away, true is an empty one. */
export function setAttribute(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else element.setAttribute(name, value === true ? "" : String(value));
}

/** An icon by its name; for the eye only, the button around it has the words. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "vm-sb-icon");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** A button with an icon, words for the ear and the tooltip, and words to read when `label` is given. */
export function button(name, title, onClick, { label = null, keys = null } = {}) {
  const words = label === null ? null : h("span", { text: label });
  return h(
    "button",
    {
      type: "button",
      class: "vm-sb-button",
      title: keys ? `${title} (${keys})` : title,
      "aria-label": title,
      "aria-keyshortcuts": keys,
      on: { click: onClick },
    },
    icon(name),
    words,
  );
}

/** Puts a value into a field unless it is there already, so that the caret stays where it is. */
export function setValue(field, value) {
  if (field.value !== value) field.value = value;
}
