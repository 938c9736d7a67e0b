/** Why a section falls out of its film, in the words of its report or, in other languages, by what was measured. */

import { language, t } from "../i18n.mjs";

const WORDS = ["identity", "clothes", "colour_drift", "sharpness_drift", "clarity", "dynamics", "seams"];

/** All that falls out of a tile's section in one line; empty when nothing does. */
export function oddText(tile) {
  return (tile?.odd ?? []).map(sentence).join("; ");
}

function sentence({ measure, said, value, usual }) {
  if (language() === "en" || !WORDS.includes(measure)) return said;
  const numbers = [value, usual].every(Number.isFinite) ? { value: value.toFixed(2), usual: usual.toFixed(2) } : null;
  return t(`film.odd.${measure}`) + (numbers ? t("film.odd.numbers", numbers) : "");
}
