/** Dragging on the timeline: an edge makes a shot longer or shorter, a block goes to another place. */

import { t } from "../i18n.mjs";
import { boundaries, moveBoundary, moveShots, resizeShot, snap, tidy } from "./edits.mjs";
import { clock, dropIndex } from "./scale.mjs";

const CLICK = 4; // pixels that a hand moves without meaning to drag

/** Follows the pointer from a press on the timeline until it is let go. Escape, or a lost pointer, leaves all as it was. */
export function followDrag(timeline, event) {
  if (event.button !== 0) return;
  const edge = event.target.closest("[data-edge]");
  const block = event.target.closest("[data-index]");
  const { storyboard, times, editable, chosen } = timeline.state;
  const time = timeline.timeAt(event);
  const index = block ? Number(block.dataset.index) : indexAt(times, time);
  timeline.scroller.focus({ preventScroll: true });
  event.preventDefault(); // no text is selected, no image is dragged
  const [range, more] = [event.shiftKey && !edge, (event.ctrlKey || event.metaKey) && !edge];
  const group = !edge && !range && !more && chosen.length > 1 && chosen.includes(index);
  if (!group) timeline.actions.select(index, time, { range, more }); // one of several chosen ones may begin a drag of all
  if (!editable || range || more) return;
  const film = timeline.actions.film();
  const start = { storyboard, times, film, index, time, x: event.clientX, chosen: group ? chosen : [index] };
  if (edge) listen(timeline, event, edgeDrag(timeline, { ...start, index: Number(edge.dataset.edge), left: edge.dataset.side === "start" }));
  else listen(timeline, event, blockDrag(timeline, start));
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

/**
 * The boundary behind the shot `index`. At a shot's right edge all later shots move along, and with Shift the boundary
 * alone moves; at its `left` edge it is the other way round. Another length would make a locked shot anew.
 */
function edgeDrag(timeline, { storyboard, times, film, index, time, left }) {
  let result = storyboard;
  const offset = times[index + 1] - time;
  const seen = left ? index + 1 : index;
  return {
    move(event) {
      const alone = event.shiftKey !== left;
      const locked = (alone ? [index, index + 1] : [index]).find((i) => storyboard.shots[i]?.locked);
      const at = timeline.timeAt(event) + offset;
      const length = snap(at - times[index], film.step);
      if (locked !== undefined) result = storyboard;
      else if (alone) result = moveBoundary(storyboard, index, tidy(times[index] + length), film);
      else result = resizeShot(storyboard, index, length, film);
      const now = boundaries(result, film);
      const seconds = now[seen + 1] - now[seen];
      const words = t("storyboard.lengthNow", { length: clock(seconds), frames: Math.round(seconds * film.fps) });
      const what = event.shiftKey ? t(alone ? "storyboard.alone" : "storyboard.along") : t("storyboard.withShift", { what: t(alone ? "storyboard.along" : "storyboard.alone") });
      timeline.say(locked === undefined ? `${words} · ${what}` : t("storyboard.guarded", { number: locked + 1 }), now[index + 1]);
      timeline.actions.preview(result);
    },
    end: (keep) => timeline.actions.commit(keep ? result : storyboard, seen),
  };
}

/** A shot, or all chosen ones, to another place. A press that moves nothing chooses the one shot. */
function blockDrag(timeline, { storyboard, times, film, index, time, x, chosen }) {
  const others = storyboard.shots.map((_, i) => i).filter((i) => !chosen.includes(i));
  let [to, moved] = [chosen[0], false];
  return {
    move(event) {
      moved ||= Math.abs(event.clientX - x) > CLICK;
      if (!moved) return;
      const now = timeline.timeAt(event);
      const middle = (times[index] + times[index + 1]) / 2 + now - time;
      to = dropIndex(times, chosen, middle);
      const at = to < others.length ? times[others[to]] : times.at(-1);
      timeline.drop = { from: chosen, time: to === chosen[0] ? times[to] : at, shift: (now - time) * timeline.scale };
      timeline.draw();
    },
    end(keep) {
      if (!keep || !moved) return moved ? timeline.actions.commit(storyboard, index, chosen) : timeline.actions.select(index, time);
      const places = chosen.map((_, i) => to + i);
      const result = moveShots(storyboard, chosen, to, film);
      return timeline.actions.commit(result, places[chosen.indexOf(index)], places);
    },
  };
}
