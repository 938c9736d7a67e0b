/** Times as people read them. */

import { t } from "../i18n.mjs";

/** 75.4 -> "1:15"; 3675 -> "1:01:15". */
export function clock(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (value) => String(value).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** Time left, no more exact than such a guess is: "40 s", "12 min", "3 h 10 min". */
export function roughly(seconds) {
  if (seconds < 10) return t("film.seconds", { seconds: Math.max(1, Math.round(seconds)) });
  if (seconds < 90) return t("film.seconds", { seconds: Math.round(seconds / 5) * 5 });
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return t("film.minutes", { minutes });
  return t("film.hours", { hours: Math.floor(minutes / 60), minutes: minutes % 60 });
}

/** A place in a film: 2.5 -> "0:02.5". */
export function place(seconds) {
  const tenths = Math.round(seconds * 10);
  const rest = tenths % 600;
  return `${Math.floor(tenths / 600)}:${String(Math.floor(rest / 10)).padStart(2, "0")}.${rest % 10}`;
}
