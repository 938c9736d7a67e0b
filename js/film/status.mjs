/** One line on how a film stands. */

import { t } from "../i18n.mjs";
import { finishedOf } from "./state.mjs";
import { formatLocks } from "./takes.mjs";
import { clock, roughly } from "./time.mjs";

/** "section 8", "sections 2, 4-6": never a bare number, which could be a take. */
export function sectionsText(indices) {
  const numbers = formatLocks(new Set(indices));
  return t(indices.length === 1 ? "film.sections.one" : "film.sections.many", { numbers });
}

export function statusOf(state, tiles, error) {
  if (error) return t("film.error", { message: error });
  const { run, count, queue } = state;
  if (queue.own && run?.state !== "running") return t(`film.queue.${queue.own}`);
  if (!tiles.length) return "";
  if (run && run.state !== "running") {
    const text = t(`film.${run.state}`, { number: run.state === "paused" ? run.index : run.index + 1 });
    return run.message ? `${text}: ${run.message}` : text;
  }
  if (run) {
    const parts = [t("film.running", { number: run.index + 1, count })];
    if (tiles[run.index]?.state === "reading") parts.push(t("film.reading"));
    if (run.steps && run.step >= run.steps) parts.push(t("film.remembering"));
    else if (run.steps) parts.push(t("film.step", { step: run.step, steps: run.steps }));
    if (run.left !== null && run.left !== undefined) parts.push(t("film.left", { time: roughly(run.left) }));
    return parts.join(" · ");
  }
  const done = finishedOf(state).length;
  if (done < count) return t("film.partly", { done, count });
  return t("film.finished", { count, time: clock(tiles.reduce((sum, tile) => sum + tile.seconds, 0)) });
}

/** Share of the film that is done, 0 to 1. */
export function progressOf({ run, count }) {
  if (!run || !count) return 0;
  return (run.index + (run.steps ? run.step / run.steps : 0)) / count;
}
