/** What each key does in the editor, outside of its text fields. */

/** Names of actions by key; with Alt and with Shift where these mean something else. */
const PLAIN = {
  ArrowLeft: "previous",
  ArrowRight: "next",
  Home: "first",
  End: "last",
  Enter: "write",
  n: "insert",
  Insert: "insert",
  s: "split",
  d: "duplicate",
  Delete: "delete",
  Backspace: "delete",
  l: "lock",
  c: "transition",
  p: "picture",
  ",": "markBack",
  ".": "markOn",
  "+": "zoomIn",
  "=": "zoomIn",
  "-": "zoomOut",
  0: "zoomFit",
};
const ALT = { ArrowLeft: "moveBack", ArrowRight: "moveOn" };
const ALT_SHIFT = { ArrowLeft: "chooseBack", ArrowRight: "chooseOn" };
const CTRL = { a: "chooseAll" };
const SHIFT = { ArrowLeft: "shorter", ArrowRight: "longer", "+": "zoomIn" };

/** The action of a key press, or null. Ctrl and Cmd belong to ComfyUI and the browser, but for "all". */
export function actionOf({ key, altKey, shiftKey, ctrlKey, metaKey }) {
  const name = key.length === 1 ? key.toLowerCase() : key;
  if (ctrlKey || metaKey) return (altKey || shiftKey ? null : CTRL[name]) ?? null;
  if (altKey) return (shiftKey ? ALT_SHIFT : ALT)[name] ?? null;
  return (shiftKey ? SHIFT[name] : PLAIN[name]) ?? null;
}

/** Whether an element takes keys itself: text fields all, a button those that press it. */
export function takesKey(element, key) {
  const tag = element.tagName;
  if (tag === "TEXTAREA" || tag === "INPUT" || tag === "SELECT") return true;
  return (tag === "BUTTON" || tag === "SUMMARY") && (key === "Enter" || key === " ");
}
