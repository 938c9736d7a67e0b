/** The buttons above the timeline. */

import { t } from "../i18n.mjs";
import { button, h, setAttribute } from "./dom.mjs";

/** Action, icon, keys, and whether the words stand beside the icon. */
const BUTTONS = [
  ["insert", "add", "N", true],
  ["split", "split", "S", true],
  ["duplicate", "copy", "D", true],
  ["delete", "remove", "Delete", true],
  ["moveBack", "left", "Alt+←", false],
  ["moveOn", "right", "Alt+→", false],
  null,
  ["zoomOut", "zoomOut", "-", false],
  ["zoomFit", "fit", "0", false],
  ["zoomIn", "zoomIn", "+", false],
  ["paste", "paste", "Ctrl+V", true],
  ["text", "text", null, true],
];

export class Toolbar {
  /** `act(action)` is called with the action's name. */
  constructor(act) {
    this.buttons = new Map();
    this.element = h("div", { class: "vm-sb-toolbar", role: "toolbar", "aria-label": t("storyboard.tools") });
    for (const entry of BUTTONS) {
      if (!entry) this.element.append(h("span", { class: "vm-sb-space" }));
      else this.#add(act, entry);
    }
  }

  /** Enables what is possible now. */
  show({ editable, linked, shown, chosen, showText, storyboard }) {
    const last = (shown?.shots.length ?? 0) - 1;
    const can = {
      insert: editable, split: editable, duplicate: editable, delete: editable && last > 0, moveBack: editable && chosen[0] > 0,
      moveOn: editable && chosen.at(-1) < last, zoomOut: shown, zoomFit: shown, zoomIn: shown, paste: !linked, text: storyboard && !linked,
    }; // prettier-ignore
    for (const [action, element] of this.buttons) setAttribute(element, "disabled", !can[action]);
    this.buttons.get("text").setAttribute("aria-pressed", String(Boolean(showText || !editable)));
  }

  #add(act, [action, name, keys, words]) {
    const title = t(`storyboard.${action}Hint`);
    const label = words ? t(`storyboard.${action}`) : null;
    const element = button(name, title, () => act(action), { label, keys });
    element.dataset.action = action;
    this.buttons.set(action, element);
    this.element.append(element);
  }
}
