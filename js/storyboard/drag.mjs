/** Dragging on the timeline: an edge makes a shot longer or shorter, a block goes to another place. */

import { t } from "../i18n.mjs";
import { boundaries, moveBoundary, moveShot, resizeShot, snap, tidy } from "./edits.mjs";
import { clock, dropIndex } from "./scale.mjs";

const CLICK = 4; // pixels that a hand moves without meaning to drag

/** Follows the pointer from a press on the timeline until it is let go. Escape, or a lost pointer, leaves all as it was. */
export function followDrag(timeline, event) {
  if (event.button !== 0) return;
  const edge = event.target.closest("[data-edge]");
  const block = event.target.closest("[data-index]");
  const { storyboard, times, editable } = timeline.state;
  const time = timeline.timeAt(event);
  const index = block ? Number(block.dataset.index) : indexAt(times, time);
  timeline.scroller.focus({ preventScroll: true });
  timeline.actions.select(index, time);
  event.preventDefault(); // no text is selected, no image is dragged
  if (!editable || (edge && storyboard.shots[index].locked)) return; // another length would make a locked shot anew
  const film = timeline.actions.film();
  const start = { storyboard, times, film, index, time, x: event.clientX, moved: false };
  listen(timeline, event, edge ? edgeDrag(timeline, start) : blockDrag(timeline, start));
}

function indexAt(times, time) {
  return Math.max(0, Math.min(times.length - 2, times.findLastIndex((start) => start <= time)));
}

function listen(timeline, event, drag) {
  const target = timeline.content;
  const controller = new AbortController();
  const options = { signal: controller.signal };
  timeline.held = timeline.scale;
  const end = (keep) => {
    controller.abort();
    if (target.hasPointerCapture(event.pointerId)) target.releasePointerCapture(event.pointerId);
    timeline.held = null;
    timeline.drop = null;
    timeline.say("");
    drag.end(keep);
  };
  target.setPointerCapture(event.pointerId);
  target.addEventListener("pointermove", (move) => drag.move(move), options);
  target.addEventListener("pointerup", () => end(true), options);
  target.addEventListener("pointercancel", () => end(false), options);
  const onKey = (key) => {
    if (key.key !== "Escape") return;
    key.stopPropagation();
    end(false);
  };
  window.addEventListener("keydown", onKey, { ...options, capture: true });
}

/** Without Shift all later shots move along; with it only the boundary to the next shot moves. */
function edgeDrag(timeline, { storyboard, times, film, index, time }) {
  let result = storyboard;
  const offset = times[index + 1] - time;
  return {
    move(event) {
      const at = timeline.timeAt(event) + offset;
      const length = snap(at - times[index], film.step);
      result = event.shiftKey
        ? moveBoundary(storyboard, index, tidy(times[index] + length), film)
        : resizeShot(storyboard, index, length, film);
      const now = boundaries(result, film);
      const seconds = now[index + 1] - now[index];
      const words = t("storyboard.lengthNow", { length: clock(seconds), frames: Math.round(seconds * film.fps) });
      timeline.say(event.shiftKey ? words : `${words} · ${t("storyboard.shiftHint")}`, now[index + 1]);
      timeline.actions.preview(result);
    },
    end: (keep) => timeline.actions.commit(keep ? result : storyboard, index),
  };
}

function blockDrag(timeline, { storyboard, times, film, index, time, x }) {
  let to = index;
  let moved = false;
  return {
    move(event) {
      moved ||= Math.abs(event.clientX - x) > CLICK;
      if (!moved) return;
      const now = timeline.timeAt(event);
      const middle = (times[index] + times[index + 1]) / 2 + now - time;
      to = dropIndex(times, index, middle);
      const at = to <= index ? times[to] : times[to + 1];
      timeline.drop = { from: index, time: at, shift: (now - time) * timeline.scale };
      timeline.draw();
    },
    end(keep) {
      const place = keep && moved ? to : index;
      timeline.actions.commit(place === index ? storyboard : moveShot(storyboard, index, place, film), place);
    },
  };
}
