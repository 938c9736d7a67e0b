/** What the budget would change where a film does not fit, as buttons that do it. */

import { t } from "../i18n.mjs";
import { isLinked } from "./film.mjs";

/**
 * `{ words, node, values }` each: of the answer's changes those whose widgets are here to be set, on the Storyboard itself or on the
 * sampler that `found` names.
 */
export function curesOf(answer, storyboard, found) {
  const { section_seconds, width, height, sliding_window, horizon } = answer?.budget?.changes ?? {};
  const sampler = found.sampler === undefined ? null : storyboard.graph?.getNodeById(found.sampler);
  const all = [
    { name: "section", node: storyboard, values: { section_seconds } },
    { name: "size", node: sampler, values: { width, height } },
    { name: "window", node: sampler, values: { sliding_window } },
    { name: "horizon", node: sampler, values: { horizon } },
  ];
  const possible = ({ node, values }) => node && Object.entries(values).every(([name, value]) => value !== undefined && !isLinked(node, name));
  return all.filter(possible).map(({ name, node, values }) => ({ node, values, words: t(`storyboard.cure.${name}`, values) }));
}

/** Sets a cure's widgets. */
export function cure({ node, values }) {
  for (const [name, value] of Object.entries(values)) {
    const widget = node.widgets?.find((one) => one.name === name);
    if (!widget) continue;
    widget.value = value;
    widget.callback?.(value);
  }
}
