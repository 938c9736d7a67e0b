/**
 * The storyboard editor of one node. The text of the node's STRING widget is the only state that is kept: everything
 * shown is read from it, every edit writes it, and a text that is not ours is never written over without being asked.
 */

import { t } from "../i18n.mjs";
import { CastField } from "./cast_field.mjs";
import { asOneEdit, setHidden } from "./comfy.mjs";
import { cure, curesOf } from "./cures.mjs";
import { h } from "./dom.mjs";
import * as edits from "./edits.mjs";
import { findFilm, isLinked, numberOf, valueOf } from "./film.mjs";
import { actionOf, takesKey } from "./keys.mjs";
import { NegativeField } from "./negative_field.mjs";
import { Notices } from "./notices.mjs";
import { PastePanel } from "./paste_panel.mjs";
import { PicturePanel } from "./picture_panel.mjs";
import { bringsFiles, imagesOf } from "./pictures.mjs";
import { OWN_FIELDS, PlanClient, askOnce, planRequest } from "./plan.mjs";
import { PlanPanel } from "./plan_panel.mjs";
import { ShotPanel } from "./shot_panel.mjs";
import { emptyStoryboard, formatStoryboard, makeShot, parseStoryboard } from "./shots.mjs";
import { Timeline } from "./timeline.mjs";
import { Toolbar } from "./toolbar.mjs";

/** Actions that would lose what a lock keeps: a locked shot has to be unlocked first. */
const GUARDED = new Set(["split", "delete", "shorter", "longer"]);

/** Shots that were copied from an editor, among what else a clipboard holds. */
const SHOTS = "application/x-video-memory-shots";

/** What is said of the first locked shot among some, or all, of a storyboard; empty when none is. */
function guarded(storyboard, indices = storyboard?.shots.keys() ?? []) {
  const locked = [...indices].find((i) => storyboard.shots[i].locked);
  return locked === undefined ? "" : t("storyboard.guarded", { number: locked + 1 });
}

const span = (a, b) => Array.from({ length: Math.abs(b - a) + 1 }, (_, i) => Math.min(a, b) + i);

export class StoryboardEditor {
  /** `send(body)` posts a question to the server's plan route; `pictures` are those of pictures.mjs. */
  constructor(app, node, widget, send, pictures) {
    Object.assign(this, { app, node, widget, send });
    const url = (name) => pictures.url(name);
    this.selected = 0;
    this.others = new Set(); // shots that are chosen beside it
    this.mark = null; // where a split would cut, in seconds; null is the middle of the shot
    this.showText = false;
    this.plan = null; // the last good answer
    this.preview = null; // a storyboard while it is dragged
    this.typed = false;
    this.focused = false;
    this.client = new PlanClient(send, (state) => this.#planned(state));
    this.timeline = new Timeline({
      select: (index, time, how) => this.select(index, time, how),
      preview: (storyboard) => this.#show((this.preview = storyboard)),
      commit: (storyboard, index, chosen) => this.commit(storyboard, index, chosen),
      film: () => this.film(),
      url,
    });
    this.picturePanel = new PicturePanel(pictures, () => this.timeline.scroller.focus());
    this.shotPanel = new ShotPanel({
      type: (values) => this.#type(values),
      finish: () => this.#finishTyping(),
      change: (values) => this.commit(edits.changeShot(this.storyboard, this.selected, values)),
      resize: (seconds) => this.commit(edits.resizeShot(this.storyboard, this.selected, seconds, this.film())),
      leave: () => this.timeline.scroller.focus(),
      picture: () => this.picturePanel.open(this.#shotPicture(this.selected)),
    }, url);
    this.negative = new NegativeField({ type: (negative) => this.#typeFor({ negative }), finish: () => this.#finishTyping() });
    this.cast = new CastField({
      type: (cast) => this.#typeFor({ cast }),
      finish: () => this.#finishTyping(),
      leave: () => this.timeline.scroller.focus(),
      picture: (index) => this.picturePanel.open(this.#castPicture(index)),
    }, url);
    this.planPanel = new PlanPanel({ select: (shot) => this.select(shot), set: (field, value) => this.#setOwn(field, value), cure: (change) => asOneEdit(app, () => cure(change)) });
    this.pastePanel = new PastePanel({
      read: (text) => askOnce(send, JSON.stringify(planRequest(text, this.numbers(), {}, {}))),
      take: (answer, atTheEnd) => this.#take(answer, atTheEnd),
      takeLines: (lines) => this.#takeLines(lines),
      closed: () => this.timeline.scroller.focus(),
    });
    this.toolbar = new Toolbar((action) => this.act(action));
    this.notices = new Notices({ convert: () => this.#convert(), shotsDecide: () => this.#shotsDecide(), retry: () => this.#ask(true) });
    this.element = h(
      "div",
      { class: "vm-sb", role: "group", "aria-label": t("storyboard.editor") },
      this.toolbar.element, this.pastePanel.element, this.timeline.scroller, this.timeline.map, this.notices.element, this.picturePanel.element, this.shotPanel.element, this.cast.element, this.negative.element, this.planPanel.element,
    ); // prettier-ignore
    this.element.addEventListener("keydown", (event) => this.#key(event));
    this.element.addEventListener("focusin", () => (this.focused = true));
    this.element.addEventListener("focusout", () => queueMicrotask(() => this.#blurred()));
    for (const type of ["copy", "cut"]) this.element.addEventListener(type, (event) => this.#copy(event));
    this.element.addEventListener("paste", (event) => this.#paste(event));
    for (const type of ["dragenter", "dragover", "dragleave", "drop"]) this.element.addEventListener(type, (event) => this.#dropped(event));
  }

  /** The Storyboard node's own numbers. */
  numbers() {
    const read = (name, otherwise) => numberOf(this.node, name) ?? otherwise;
    const unit = valueOf(this.node, "keyframe_unit");
    return {
      fps: read("fps", 16), section_seconds: read("section_seconds", 5), total_seconds: read("total_seconds", 0),
      ...(typeof unit === "string" ? { keyframe_unit: unit } : {}),
    }; // prettier-ignore
  }

  /** The same for the edits: see edits.mjs. */
  film() {
    const { fps, section_seconds, total_seconds } = this.numbers();
    return { fps, sectionSeconds: section_seconds, totalSeconds: total_seconds, step: 4 / fps };
  }

  /** Reads everything anew: the text, the graph around the node, the language of the renderer. */
  refresh() {
    this.linked = isLinked(this.node, "storyboard");
    const text = this.linked ? valueOf(this.node, "storyboard") : this.widget.value;
    this.fromRun = this.linked && typeof text !== "string"; // only a run tells what another node makes
    this.text = this.fromRun ? (this.ran?.storyboard ?? null) : typeof text === "string" ? text : null;
    const nothing = this.text !== null && !this.text.trim();
    this.storyboard = this.text === null ? null : nothing ? emptyStoryboard() : parseStoryboard(this.text);
    this.editable = this.storyboard !== null && !this.linked;
    this.found = findFilm(this.node);
    if (this.text === null) this.#forget();
    this.#show(this.storyboard ?? this.#foreign());
    setHidden(this.node, this.widget, this.editable && !this.showText);
    this.#ask();
  }

  /** What a run made of the text; see nodes/storyboard_node.py. */
  executed(output) {
    const [storyboard, readAs] = [output?.storyboard?.[0], output?.read_as?.[0]];
    if (typeof storyboard !== "string" || !readAs) return;
    this.ran = { storyboard, readAs };
    this.refresh();
  }

  /** How the text was read, as far as it is known. */
  readAs() {
    if (this.fromRun) return this.ran?.readAs;
    if (this.taken?.of === this.text) return this.taken.readAs;
    return this.plan?.of === this.text ? this.plan.answer.read_as : null;
  }

  /** Indices of all chosen shots, in their order. */
  get chosen() {
    return [...new Set([...this.others, this.selected])].filter((i) => i < (this.shown?.shots.length ?? 0)).sort((a, b) => a - b);
  }

  /**
   * Selects a shot, and puts the mark of the next split where the pointer was. `range`: all between the last one and this
   * one are chosen; `more`: this one is chosen beside the others, or no longer.
   */
  select(index, time = null, { range = false, more = false, chosen = null } = {}) {
    const shown = this.shown;
    if (!shown) return;
    const before = this.chosen;
    if (more && before.length > 1 && before.includes(index)) {
      this.others = new Set(before.filter((i) => i !== index));
      if (index === this.selected) [index] = this.others;
    } else this.others = new Set(chosen ?? (range ? span(this.selected, index) : more ? [...before, index] : []));
    this.selected = Math.max(0, Math.min(index, shown.shots.length - 1));
    const times = edits.boundaries(shown, this.film());
    const [start, end] = [times[this.selected], times[this.selected + 1]];
    const inside = time !== null && time >= start && time <= end;
    const steps = Math.round((time - start) / this.film().step);
    this.mark = inside ? edits.tidy(start + steps * this.film().step) : this.#middle(times);
    this.#show(shown);
    this.timeline.reveal(this.selected);
  }

  /** One edit, one step of undo; the same storyboard again only draws anew. */
  commit(storyboard, index = this.selected, chosen = null) {
    this.preview = null;
    if (!this.editable) return;
    if (formatStoryboard(storyboard) !== formatStoryboard(this.storyboard)) asOneEdit(this.app, () => this.#write(storyboard));
    this.shown = this.storyboard; // not what was shown while it was dragged
    this.select(index, index === this.selected ? this.mark : null, { chosen });
  }

  /** Another storyboard in the place of whatever is there. */
  commitAll(storyboard) {
    asOneEdit(this.app, () => this.#write(storyboard));
    this.select(0);
  }

  /** What buttons and keys ask for, by name. */
  act(action) {
    const film = this.film();
    const { storyboard: now, selected: at, chosen } = this;
    const anytime = {
      previous: () => this.select(at - 1),
      next: () => this.select(at + 1),
      first: () => this.select(0),
      last: () => this.select(Infinity),
      chooseBack: () => this.select(at - 1, null, { chosen: [...chosen, at, Math.max(0, at - 1)] }),
      chooseOn: () => this.select(at + 1, null, { chosen: [...chosen, at, at + 1] }),
      chooseAll: () => this.shown && this.select(at, this.mark, { chosen: span(0, this.shown.shots.length - 1) }),
      zoomIn: () => this.timeline.setZoom(this.timeline.zoom * 1.5),
      zoomOut: () => this.timeline.setZoom(this.timeline.zoom / 1.5),
      zoomFit: () => this.timeline.setZoom(1),
      text: () => this.#toggleText(),
      paste: () => (this.linked ? null : this.pastePanel.open()),
    };
    if (action in anytime) return anytime[action]();
    if (!this.editable) return undefined;
    const refused = (action === "transition" && this.#alwaysCut(at)) || (GUARDED.has(action) && guarded(now, action === "delete" ? chosen : [at]));
    if (refused) return this.notices.say(refused);
    const move = (to) => this.commit(edits.moveShots(now, chosen, to, film), to + chosen.indexOf(at), chosen.map((_, i) => to + i));
    const locked = !chosen.every((i) => now.shots[i].locked);
    const length = () => edits.lengths(now, film)[at];
    const edit = {
      write: () => this.shotPanel.write(),
      picture: () => this.picturePanel.open(this.#shotPicture(at)),
      insert: () => (this.commit(edits.insertShot(now, at + 1, film), at + 1), this.shotPanel.write()),
      split: () => this.#split(film),
      duplicate: () => this.#insert(edits.pickShots(now, chosen, film), film),
      delete: () => this.commit(edits.deleteShots(now, chosen, film), Math.max(0, Math.min(chosen[0], now.shots.length - chosen.length - 1))),
      moveBack: () => chosen[0] > 0 && move(chosen[0] - 1),
      moveOn: () => chosen.at(-1) + 1 < now.shots.length && move(chosen.at(-1) - chosen.length + 2),
      shorter: () => this.commit(edits.resizeShot(now, at, edits.snap(length() - film.step, film.step), film)),
      longer: () => this.commit(edits.resizeShot(now, at, edits.snap(length() + film.step, film.step), film)),
      lock: () => this.commit(chosen.reduce((board, i) => edits.changeShot(board, i, { locked }), now), at, chosen),
      transition: () => this.commit(edits.changeShot(now, at, { transition: now.shots[at].transition === "continue" ? "cut" : "continue" })),
      markBack: () => this.select(at, this.mark - film.step),
      markOn: () => this.select(at, this.mark + film.step),
    };
    return edit[action]?.();
  }

  /** What a person sees beside the text: kept over an undo, which makes the node anew. */
  view() {
    const { selected, chosen, mark, showText, focused, timeline } = this;
    return { selected, others: new Set(chosen), mark, showText, zoom: timeline.zoom, scroll: timeline.scroller.scrollLeft, focused };
  }

  /** Takes over what another editor of the same node showed. */
  adopt({ selected, others, mark, showText, zoom, focused }) {
    Object.assign(this, { selected, others, mark, showText, focused }); // the focus is on its way, also to the next one
    this.timeline.zoom = zoom;
    this.refresh();
  }

  /** Goes to the place on the timeline where the other editor was; false while the element is not shown yet. */
  goTo({ scroll, focused }) {
    const { scroller } = this.timeline;
    if (!scroller.clientWidth) return false;
    scroller.scrollLeft = scroll;
    if (!focused) return true;
    scroller.focus({ preventScroll: true });
    return document.activeElement === scroller;
  }

  /** Begins, or begins again: a node that goes into a subgraph is taken out of one graph and put into another. */
  open() {
    this.timeline.open();
    this.refresh();
  }

  /** Forgets what is under way. */
  close() {
    this.client.stop();
    this.timeline.close();
  }

  /** Why a shot cannot go on from the one before it; empty when it can. */
  #alwaysCut(index) {
    if (index === 0 && this.found.hasHistory === false) return t("storyboard.firstShot");
    return this.storyboard.shots[index].picture ? t("storyboard.pictureIsCut") : "";
  }

  #foreign() {
    return this.plan?.of === this.text ? parseStoryboard(this.plan.answer.storyboard) : null;
  }

  #show(storyboard) {
    this.shown = storyboard;
    this.element.classList.toggle("vm-sb-none", !storyboard);
    this.toolbar.show(this);
    this.notices.show(this);
    if (!storyboard) return;
    this.selected = Math.min(this.selected, storyboard.shots.length - 1);
    const times = edits.boundaries(storyboard, this.film());
    if (this.mark === null || this.mark < times[this.selected] || this.mark > times[this.selected + 1]) this.mark = this.#middle(times);
    const sections = this.preview ? [] : (this.plan?.answer.sections ?? []);
    const { selected, mark, editable, chosen } = this;
    this.timeline.show({ storyboard, times, sections, selected, chosen, mark, editable });
    const seconds = edits.tidy(times[selected + 1] - times[selected]);
    const own = sections.filter((section) => section.shot === selected);
    this.shotPanel.show({ shot: storyboard.shots[selected], index: selected, seconds, sections: own, editable, joint: this.editable ? this.#alwaysCut(selected) : "", count: chosen.length });
    this.cast.show(storyboard.cast, editable);
    this.negative.show(storyboard.negative, editable);
    this.planPanel.show({ answer: this.plan?.answer, found: this.found, own: this.#own(), selected, cures: curesOf(this.plan?.answer, this.node, this.found) });
  }

  /** An element that is taken out of the page loses the focus too; that is an undo, after which it should come back. */
  #blurred() {
    if (this.element.isConnected) this.focused = this.element.contains(document.activeElement);
  }

  #middle(times) {
    const [start, end] = [times[this.selected], times[this.selected + 1]];
    const { step } = this.film();
    return edits.tidy(start + Math.round((end - start) / 2 / step) * step);
  }

  #own() {
    const entries = Object.keys(OWN_FIELDS).map((field) => [field, this.node.properties?.[field]]);
    return Object.fromEntries(entries.filter(([field, value]) => typeof value === typeof OWN_FIELDS[field]));
  }

  #setOwn(field, value) {
    asOneEdit(this.app, () => {
      if (value === null) delete this.node.properties[field];
      else this.node.properties[field] = value;
    });
    this.refresh();
  }

  /** What was said of a text does not hold for one that is not known. */
  #forget() {
    this.client.stop();
    this.problem = null;
  }

  #ask(again = false) {
    if (this.text === null) return;
    // A shot whose prompt is still to be written is planned like any other; a run says that it is missing.
    const text = this.storyboard ? formatStoryboard(edits.withPrompts(this.storyboard, t("storyboard.noPrompt"))) : this.text;
    this.client.ask(planRequest(text, this.numbers(), this.found, this.#own()), { again });
    this.asked = this.text;
  }

  #planned(state) {
    this.element.classList.toggle("vm-sb-busy", state.status === "busy");
    if (state.status === "busy") return;
    this.problem = state.status === "error" ? state : null;
    if (state.status === "ok") this.plan = { of: this.asked, answer: state.answer };
    if (!this.preview) this.#show(this.storyboard ?? this.#foreign());
  }

  #write(storyboard) {
    this.storyboard = storyboard;
    this.text = formatStoryboard(storyboard);
    this.widget.value = this.text;
    this.widget.callback?.(this.text, this.app.canvas, this.node);
    this.refresh();
  }

  #type(values) {
    this.typed = true;
    this.#write(edits.changeShot(this.storyboard, this.selected, values));
  }

  /** Something of the whole film. */
  #typeFor(values) {
    this.typed = true;
    this.#write({ ...this.storyboard, ...values });
  }

  #finishTyping() {
    if (this.typed) asOneEdit(this.app, () => (this.typed = false));
  }

  #split(film) {
    const { storyboard: now, selected: at } = this;
    const result = edits.splitShot(now, at, this.mark, film);
    if (result !== now) this.commit(result, at + 1);
    else this.notices.say(t("storyboard.cannotSplit"));
  }

  /** Shots of a storyboard after the last chosen one; they are chosen then. */
  #insert(others, film) {
    const at = this.chosen.at(-1) + 1;
    this.commit(edits.insertShots(this.storyboard, at, others, film), at, others.shots.map((_, i) => at + i));
  }

  #toggleText() {
    this.showText = !this.showText;
    this.refresh();
  }

  #convert() {
    const canonical = this.#foreign();
    if (!canonical || this.linked) return;
    this.#takeOver(canonical, this.readAs());
    this.timeline.scroller.focus();
  }

  #shotsDecide() {
    const total = this.node.widgets.find((widget) => widget.name === "total_seconds");
    asOneEdit(this.app, () => (total.value = 0));
    this.refresh();
  }

  /** Writes what was read of another text, and goes on saying how it was read until the next edit. */
  #takeOver(storyboard, readAs) {
    this.taken = { of: formatStoryboard(storyboard), readAs };
    asOneEdit(this.app, () => this.#write(storyboard));
  }

  #take(answer, atTheEnd) {
    const pasted = parseStoryboard(answer.storyboard);
    if (!pasted || this.linked) return t("storyboard.cannotTake");
    if (atTheEnd && !this.storyboard) return t("storyboard.convertFirst");
    const refused = !atTheEnd && guarded(this.shown);
    if (refused) return refused;
    const first = atTheEnd ? this.storyboard.shots.length : 0;
    const result = atTheEnd ? edits.joinStoryboards(this.storyboard, pasted, this.film()) : pasted;
    this.#takeOver(result, answer.read_as);
    this.select(first);
    return null;
  }

  /** One shot of a section's length for each line. */
  #takeLines(lines) {
    if (this.linked) return t("storyboard.cannotTake");
    const refused = guarded(this.shown);
    if (refused) return refused;
    const film = this.film();
    const shots = lines.map((prompt) => makeShot({ prompt }));
    const { negative, cast } = this.storyboard ?? emptyStoryboard();
    this.commitAll(edits.inARow({ negative, cast }, shots, shots.map(() => edits.snap(film.sectionSeconds, film.step))));
    return null;
  }

  #key(event) {
    if (takesKey(event.target, event.key)) return;
    const action = actionOf(event);
    if (!action) return;
    // ComfyUI has meanings of its own for these keys: Delete would delete the node.
    event.preventDefault();
    event.stopPropagation();
    this.act(action);
  }

  /** What the picture panel needs to know of a shot. */
  #shotPicture(index) {
    const take = (name) => this.editable && this.commit(edits.setPicture(this.storyboard, index, name), index);
    return { title: t("storyboard.pictureOf", { whose: t("storyboard.shotTitle", { number: index + 1 }) }), name: this.storyboard.shots[index].picture, take };
  }

  /** The same for a line of the cast, which is found by its name once a picture has been uploaded. */
  #castPicture(index) {
    const { name, look, picture } = this.storyboard.cast[index];
    const same = (line) => (name ? line.name === name : line.look === look);
    const take = (file) => this.editable && this.commit({ ...this.storyboard, cast: this.storyboard.cast.map((line) => (same(line) ? { ...line, picture: file } : line)) });
    return { title: t("storyboard.pictureOf", { whose: name || t("storyboard.wholeFilm") }), name: picture, take };
  }

  /** Images that are dropped: on a shot, on a line of the cast, on the open panel, or else for the chosen shot. */
  #dropped(event) {
    if (!this.editable || !bringsFiles(event.dataTransfer)) return;
    event.preventDefault();
    event.stopPropagation(); // ComfyUI would open what is dropped as a workflow
    this.element.classList.toggle("vm-sb-dropping", event.type === "dragover" || event.type === "dragenter");
    if (event.type !== "drop") return;
    const [file] = imagesOf(event.dataTransfer);
    if (!file) return this.notices.say(t("storyboard.noImage"));
    const line = event.target.closest("[data-cast]");
    const shot = event.target.closest("[data-index]");
    if (line) return this.picturePanel.take(file, this.#castPicture(Number(line.dataset.cast)));
    if (this.picturePanel.target && this.picturePanel.element.contains(event.target)) return this.picturePanel.take(file);
    return this.picturePanel.take(file, this.#shotPicture(shot ? Number(shot.dataset.index) : this.selected));
  }

  /** The chosen shots as a storyboard of their own, for this or another Storyboard and for any text field. */
  #copy(event) {
    if (takesKey(event.target, "c") || !this.storyboard || !document.getSelection().isCollapsed) return;
    const text = formatStoryboard(edits.pickShots(this.storyboard, this.chosen, this.film()));
    event.clipboardData.setData("text/plain", text);
    event.clipboardData.setData(SHOTS, text);
    event.preventDefault();
    event.stopPropagation(); // ComfyUI would copy the node
    if (event.type === "cut") this.act("delete");
  }

  #paste(event) {
    const [file] = this.editable ? imagesOf(event.clipboardData) : [];
    if (file) {
      event.preventDefault();
      event.stopPropagation();
      return this.picturePanel.take(file, this.picturePanel.target ?? this.#shotPicture(this.selected));
    }
    if (takesKey(event.target, "v")) return;
    const shots = this.editable ? parseStoryboard(event.clipboardData?.getData(SHOTS) ?? "") : null;
    if (shots) {
      event.preventDefault();
      event.stopPropagation();
      return this.#insert(shots, this.film());
    }
    const text = event.clipboardData?.getData("text/plain") ?? "";
    if (!text.trim() || this.linked) return;
    event.preventDefault();
    event.stopPropagation();
    this.pastePanel.open(text);
  }
}
