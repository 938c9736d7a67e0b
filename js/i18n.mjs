/** Words of the user interface in the language that ComfyUI is set to. */

import film from "./strings/film.mjs";
import pictures from "./strings/pictures.mjs";
import storyboard from "./strings/storyboard.mjs";
import widgets from "./strings/widgets.mjs";

/** Each view has one file with its words in all languages; keys begin with the view's name. */
const VIEWS = [film, pictures, storyboard, widgets];

/** All words by language, then by key. */
export const DICTIONARIES = Object.fromEntries(
  ["en", "zh", "ja"].map((name) => [name, Object.assign({}, ...VIEWS.map((view) => view[name]))]),
);
let chosen = "en";

/** The language that is shown now: en, zh or ja. */
export function language() {
  return chosen;
}

/** Chooses the language by a locale such as "zh-TW"; English for those that are not here. */
export function setLanguage(locale) {
  const short = String(locale ?? "en").toLowerCase().split("-")[0];
  chosen = short in DICTIONARIES ? short : "en";
}

/** Takes the language from ComfyUI's setting. Call it in an extension's `setup`; ComfyUI reloads when it changes. */
export function followComfy(app) {
  setLanguage(app?.extensionManager?.setting?.get?.("Comfy.Locale"));
}

/** The text of a key, with {name} replaced by `values.name`; the key itself where there is none. */
export function t(key, values = {}) {
  const text = DICTIONARIES[chosen][key] ?? DICTIONARIES.en[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** A number the way the language writes it. */
export function number(value, digits = 0) {
  return value.toLocaleString(chosen, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}
