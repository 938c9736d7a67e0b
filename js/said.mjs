/** What the server says (errors, advice, reports) in the language that ComfyUI is set to; its own log stays English. */

import { language } from "./i18n.mjs";
import words from "./strings/said.mjs";

const compiled = {}; // by language: patterns of the English texts, those that say most first

/** The text in the chosen language, whole or line by line; what is not known stays as it came. */
export function said(text) {
  if (language() === "en" || !text) return text;
  return inWhole(text) ?? text.split("\n").map((line) => inWhole(line) ?? line).join("\n");
}

function inWhole(text) {
  for (const { pattern, translation } of patterns()) {
    const found = pattern.exec(text);
    if (found) return translation.replace(/\{(\d+)\}/g, (_, place) => value(found[Number(place) + 1]));
  }
  return null;
}

/** A value may itself be something that the server says, or several such things. */
function value(text) {
  const parts = text.split("; ").map((part) => inWhole(part));
  return inWhole(text) ?? (parts.includes(null) ? text : parts.join("；"));
}

function patterns() {
  const name = language();
  compiled[name] ??= Object.entries(words[name])
    .map(([text, translation]) => ({ translation, pattern: patternOf(text), literal: text.replace(/\{\d+\}/g, "").length }))
    .sort((one, other) => other.literal - one.literal);
  return compiled[name];
}

function patternOf(text) {
  const escaped = text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  return new RegExp(`^${escaped.replace(/\\\{\d+\\\}/g, "([^]+?)")}$`);
}
