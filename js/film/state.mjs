/**
 * What the render view knows of a film: the server's answer about the disk, and the messages of a run.
 *
 * A state is `{film, plan, sections, count, run}`. `run` is null, or `{node, state, index, step, steps, left, live}` with
 * `state` "running" or "failed"; sections before `index` were reached by this run, those after it were not. `last` is
 * the live picture of a section that is done, until the disk has been read again.
 */

export function emptyFilm(film = "") {
  return { film, plan: [], sections: [], count: 0, run: null, last: null };
}

/** The state with the server's answer in it; a run that goes on is kept. */
export function withDisk(state, { film, plan, sections }) {
  const known = plan.length || sections.length;
  return { ...state, film, plan, sections, last: null, count: state.run ? Math.max(state.count, plan.length) : known };
}

/** The state after one message `video_memory.section`. */
export function withMessage(state, message) {
  const { state: what, count, index, node } = message;
  const base = { ...state, count: count ?? state.count };
  const run = state.run?.state === "running" ? state.run : null;
  const live = run && run.index === index ? run.live : null;
  switch (what) {
    case "started":
      return { ...base, plan: message.sections, run: { ...newRun(node), index: 0 } };
    case "sampling":
      return { ...base, run: { ...newRun(node), index, sampling: true, left: message.left } };
    case "step":
      return { ...base, run: { ...newRun(node), index, sampling: true, live, step: message.step, steps: message.steps, left: message.left } };
    case "preview":
      return { ...base, run: { ...(run ?? newRun(node)), index, sampling: true, live: message.image } };
    case "done":
      if (index + 1 >= base.count) return { ...base, last: { index, live }, run: null };
      return { ...base, last: { index, live }, run: { ...newRun(node), index: index + 1, left: message.left } };
    default:
      return base;
  }
}

/** The state after the run stopped: with an error's message, or as interrupted when there is none. */
export function withFailure(state, message) {
  if (state.run?.state !== "running") return state;
  return { ...state, run: { ...state.run, state: "failed", message, left: null } };
}

/** The state after the prompt ended well. */
export function withSuccess(state) {
  return state.run?.state === "running" ? { ...state, run: null } : state;
}

function newRun(node) {
  return { node, state: "running", index: 0, sampling: false, step: 0, steps: 0, left: null, live: null };
}

/**
 * One tile per section: `{index, state, prompt, start, seconds, key, clip, take, nextTake, locked, lockedByShot, live, progress}`.
 * `state` is waiting, sampling, stored, reused, locked, failed, or stale: on disk, but of an earlier run of the film.
 */
export function tilesOf(state, takes, locks) {
  const planned = new Map(state.plan.map((entry) => [entry.index, entry]));
  const stored = new Map(state.sections.map((entry) => [entry.index, entry]));
  return Array.from({ length: state.count }, (_, index) => {
    const record = stored.get(index);
    const plan = planned.get(index) ?? record ?? {};
    return {
      index,
      state: stateOf(state.run, index, record),
      prompt: plan.prompt ?? "",
      start: plan.start_seconds ?? 0,
      seconds: plan.seconds ?? 0,
      key: record?.key ?? "",
      clip: Boolean(record?.clip),
      take: record?.take ?? 0,
      nextTake: takes.get(index) ?? 0,
      locked: locks.has(index) || Boolean(planned.get(index)?.locked),
      lockedHere: locks.has(index),
      live: [state.run, state.last].find((one) => one?.index === index)?.live ?? null,
      progress: state.run?.index === index && state.run.steps ? state.run.step / state.run.steps : 0,
    };
  });
}

function stateOf(run, index, record) {
  if (run && index === run.index) {
    if (run.state === "failed") return "failed";
    return run.sampling ? "sampling" : "waiting";
  }
  if (run && index > run.index) return "waiting";
  return record?.status ?? "waiting";
}

/** Indices of the sections that are on disk and belong together; those of an earlier run do not. */
export function finishedOf(state) {
  return state.sections.filter((entry) => entry.status !== "stale" && entry.index < state.count).map((entry) => entry.index);
}

/** Sections whose next run uses another take than the one on disk, except where a lock keeps what is there. */
export function pendingOf(tiles) {
  return tiles.filter((tile) => tile.key && !tile.locked && tile.take !== tile.nextTake).map((tile) => tile.index);
}
