/** How a text was read, in words: `readAs` is the server's `{ form, shots, remarks, note }`. */

import { number, t } from "../i18n.mjs";

/** The words, or "" where there is nothing to tell: our own JSON, read as it stands. */
export function readingWords(readAs) {
  if (!readAs || (readAs.form === "json" && !readAs.remarks.length)) return "";
  const key = `storyboard.form.${readAs.form}`;
  const form = t(key);
  if (form === key) return readAs.note; // from a newer server
  const read = t(readAs.shots === 1 ? "storyboard.readAsOne" : "storyboard.readAs", { count: number(readAs.shots), form });
  return [read, ...readAs.remarks.map((remark) => t(`storyboard.remark.${remark}`))].join(" ");
}
