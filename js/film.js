/** The render view on the Autoregressive Sampler. */

import { api } from "/scripts/api.js";
import { app } from "/scripts/app.js";

import { debounced, style } from "./dom.mjs";
import { filmPath } from "./film/clips.mjs";
import { withDisk, withEnd, withMessage, withSuccess, emptyFilm } from "./film/state.mjs";
import { formatPictures, parsePictures } from "./film/picture_marks.mjs";
import { PICTURES_STYLE } from "./film/pictures.mjs";
import { HEIGHT, STYLE } from "./film/style.mjs";
import { branchName, formatLocks, formatRedo, parseLocks, parseRedo } from "./film/takes.mjs";
import { FilmView } from "./film/view.mjs";
import { followComfy, t } from "./i18n.mjs";
import { OpenViews } from "./open_views.mjs";
import { addPanel, after, changed, hide, isLinked, setWidgets, textOf, widgetOf } from "./panel.mjs";
import { said } from "./said.mjs";

const NODE = "VideoMemorySampler";
const WIDTH = 480; // three sections side by side
const BRANCH = ["film", "branch_film", "branch_section", "redo", "locks", "pictures"]; // what a branch writes
const OPENING = ["history", "start_image"]; // a branch has that of its film
const QUIET = 3000; // milliseconds without a message after which a run is looked up: another tab gets its messages
const views = new OpenViews();

class FilmOnNode {
  constructor(node) {
    this.node = node;
    this.film = null;
    this.heard = 0; // messages so far
    this.view = new FilmView({
      choices: () => this.choices(),
      choose: (choices) => this.choose(choices),
      turned: (name) => this.node.properties?.[name] === true,
      turn: (name) => this.turn(name),
      mark: (pictures) => this.mark(pictures),
      queue: () => app.queuePrompt(0, 1),
      branch: (index) => this.branch(index),
      emptyQueue: () => api.fetchApi("/queue", { method: "POST", body: JSON.stringify({ clear: true }) }),
      address: (path) => api.apiURL(path),
    });
    node.sectionsBefore = () => this.view.state.before; // for the memory inspector
    hide(widgetOf(node, "redo"));
    hide(widgetOf(node, "locks"));
    hide(widgetOf(node, "pictures"));
    addPanel(node, "render_view", this.view.root, { minWidth: WIDTH, height: HEIGHT, label: t("film.strip") });
    this.refresh = debounced(() => this.read(), 150);
    for (const name of ["film", "redo", "locks", "pictures"]) {
      const widget = widgetOf(node, name);
      if (widget) after(widget, "callback", () => (name === "film" ? this.refresh() : this.view.show()));
    }
    after(node, "onConfigure", () => this.refresh());
    after(node, "onConnectionsChange", () => this.refresh());
    views.follow(this);
  }

  open() {
    this.view.open();
    this.refresh();
  }

  choices() {
    const linked = isLinked(this.node, "redo") || isLinked(this.node, "locks");
    return {
      takes: parseRedo(String(widgetOf(this.node, "redo")?.value ?? "")),
      locks: parseLocks(String(widgetOf(this.node, "locks")?.value ?? "")),
      linked,
      pictures: parsePictures(String(widgetOf(this.node, "pictures")?.value ?? "")),
      picturesLinked: isLinked(this.node, "pictures"),
      branching: !BRANCH.some((name) => isLinked(this.node, name)),
    };
  }

  choose({ takes, locks }) {
    setWidgets(app, this.node, { redo: formatRedo(takes), locks: formatLocks(locks) });
    this.view.show();
  }

  /** Another film, which begins with this one's sections up to `index`; takes, locks and pictures are of this one's sections. */
  async branch(index) {
    const { film } = this;
    const answer = await api.fetchApi("/video_memory/names");
    const { films = [] } = answer.ok ? await answer.json() : {};
    (this.node.inputs ?? []).forEach(({ name, link }, slot) => {
      if (OPENING.includes(name) && link != null) this.node.disconnectInput(slot); // it comes along with the sections
    });
    setWidgets(app, this.node, { branch_film: film, branch_section: index + 1, redo: "", locks: "", pictures: "", film: branchName(film, films) });
    this.view.show();
  }

  /** A switch of the view; it is kept with the node. */
  turn(name) {
    this.node.properties[name] = !this.node.properties[name];
    changed(app, this.node);
  }

  mark(pictures) {
    setWidgets(app, this.node, { pictures: formatPictures(pictures) });
    this.view.show();
  }

  /** Reads what is on disk of the film that the node names, and how far a run is with it. */
  async read() {
    if (!views.has(this)) return undefined;
    const { heard } = this;
    const film = textOf(this.node, "film") ?? this.film;
    if (film === null) return this.view.show(emptyFilm(), "");
    if (film !== this.film) this.view.show(emptyFilm(film), "");
    this.film = film;
    try {
      const answer = await api.fetchApi(filmPath(film));
      const data = await answer.json();
      if (film !== this.film || !views.has(this)) return undefined;
      if (heard !== this.heard) delete data.run, delete data.queue; // what was said meanwhile is newer
      if (answer.ok) this.view.show(withDisk(this.view.state, data), "");
      else this.view.show(emptyFilm(film), said(data.error) ?? `HTTP ${answer.status}`);
    } catch (error) {
      this.view.show(this.view.state, String(error.message ?? error));
    }
    return this.follow();
  }

  /** Asks again when nothing more is heard of a run, or of one that is to come. */
  follow() {
    clearTimeout(this.timer);
    const { run, queue } = this.view.state;
    if (run?.state !== "running" && !queue.own) return;
    const { heard } = this;
    this.timer = setTimeout(() => (heard === this.heard ? this.read() : this.follow()), QUIET);
  }

  message(data) {
    const film = textOf(this.node, "film");
    const mine = String(data.node ?? "").split(":").at(-1) === String(this.node.id);
    if (film === null ? !mine : data.film !== film) return;
    this.film = data.film;
    this.heard += 1;
    this.view.show(withMessage(this.view.state, data), "");
    if (data.state === "started" || data.state === "done") this.refresh();
    const { plan, count } = this.view.state;
    const made = data.state === "done" && data.took !== null && data.took !== undefined;
    if (made && data.index + 1 < count && !plan[data.index + 1]?.kept && this.node.properties?.["film.review"] === true) {
      this.pausing = true;
      api.interrupt();
    }
  }

  /** `what`: "failed" with the error's message, or "stopped" by the user. */
  ended(what, { node_id: node, exception_message: text }) {
    const run = this.view.state.run;
    if (run && (run.node === null || run.node === undefined || String(run.node) === String(node))) {
      this.heard += 1;
      if (what === "stopped" && this.pausing) what = "paused";
      this.pausing = false;
      this.view.show(withEnd(this.view.state, what, said(text?.trim().split("\n")[0])));
    }
    this.refresh();
  }

  /** Something of the queue has changed; a run that is heard says more itself. */
  queued() {
    if (this.view.state.run?.state !== "running" || this.node.properties?.["film.review"]) this.refresh();
  }

  finished() {
    this.view.show(withSuccess(this.view.state));
    this.refresh();
  }

  close() {
    clearTimeout(this.timer);
    this.view.close();
  }
}

app.registerExtension({
  name: "VideoMemory.Film",
  setup() {
    followComfy(app);
    const all = (act) => (event) => views.live().forEach((view) => act(view, event.detail ?? {}));
    api.addEventListener("video_memory.section", all((view, data) => view.message(data)));
    api.addEventListener("execution_error", all((view, data) => view.ended("failed", data)));
    api.addEventListener("execution_interrupted", all((view, data) => view.ended("stopped", data)));
    api.addEventListener("execution_success", all((view) => view.finished()));
    for (const name of ["status", "executing"]) api.addEventListener(name, all((view) => view.queued()));
    // Another tab may have gone on with a film meanwhile.
    document.addEventListener("visibilitychange", () => document.hidden || views.live().forEach((view) => view.refresh()));
  },
  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    style("vm-film-style", STYLE + PICTURES_STYLE);
    new FilmOnNode(node);
  },
});
