/**
 * What the render view knows of a film: the server's answer about the disk, and the messages of a run.
 *
 * A state is `{film, plan, before, sections, pictures, count, run, queue}`. `before`: sections that the film goes on from. `queue` is `{own, pending}`: "loading" or "waiting" where the film's
 * own run is in the queue and its sampler has not begun, and how many prompts wait. `run` is null, or `{node, state, index, step, steps, left, live}` with
 * `state` "running", "failed", "stopped" or "paused" (for a review); sections before `index` were reached by this run, those after it were not.
 * `last` is the live picture of a section that is done, until the disk has been read again.
 */

export function emptyFilm(film = "") {
  return { film, plan: [], before: 0, sections: [], pictures: [], count: 0, run: null, last: null, queue: { own: "", pending: 0 } };
}

/**
 * The state with the server's answer in it. `run` is the last message of the run that makes the film, null when none
 * does, so that a page that heard nothing of it shows the same; without it what was heard is kept.
 */
export function withDisk(state, { film, plan, before = 0, sections, run, pictures = [], queue = state.queue }) {
  const over = run === null && state.run?.state === "running";
  const next = { ...state, film, plan, before, sections, pictures, queue, last: null, run: over ? null : state.run };
  next.count = next.run ? Math.max(state.count, plan.length) : plan.length || sections.length;
  return run ? withMessage(next, { sections: plan, before, ...run }) : next;
}

/** The state after one message `video_memory.section`. */
export function withMessage(state, message) {
  const { state: what, count, index, node } = message;
  const base = { ...state, count: count ?? state.count, queue: { ...state.queue, own: "" } };
  const run = state.run?.state === "running" ? state.run : null;
  const live = run && run.index === index ? run.live : null;
  switch (what) {
    case "started":
      return { ...base, plan: message.sections, before: message.before ?? base.before, run: { ...newRun(node), index: 0 } };
    case "sampling":
      return { ...base, run: { ...newRun(node), index, sampling: true, left: message.left } };
    case "step":
      return { ...base, run: { ...newRun(node), index, sampling: true, live, step: message.step, steps: message.steps, left: message.left } };
    case "preview":
      return { ...base, run: { ...(run ?? newRun(node)), index, sampling: true, live: message.image } };
    case "done":
      if (index + 1 >= base.count) return { ...base, last: { index, live }, run: null };
      return { ...base, last: { index, live }, run: { ...newRun(node), index: index + 1, left: message.left } };
    case "pictures":
      return { ...base, pictures: message.pictures };
    default:
      return base;
  }
}

/** The state after the run failed with an error's message, or was stopped by a person, who wanted that. */
export function withEnd(state, what, message) {
  if (state.run?.state !== "running") return state;
  return { ...state, run: { ...state.run, state: what, message, left: null } };
}

/** The state after the prompt ended well. */
export function withSuccess(state) {
  return state.run?.state === "running" ? { ...state, run: null } : state;
}

function newRun(node) {
  return { node, state: "running", index: 0, sampling: false, step: 0, steps: 0, left: null, live: null };
}

/**
 * One tile per section: `{index, state, prompt, start, seconds, key, clip, versions, odd, take, nextTake, locked, lockedHere, live, progress}`.
 *
 * `state` is waiting, sampling, stored, reused, locked, failed, stopped, or stale: on disk, but of an earlier run of the
 * film. While a run has not come to a section, it is "kept" when it stays as it is, "again" when it will be made anew, and
 * "reading" while one that stays goes into the memory. `take` is the one on disk, or the one that the run makes. `odd`: what a
 * report says of the section that is on disk, `{measure, said, value, usual}` each.
 */
export function tilesOf(state, takes, locks) {
  const planned = new Map(state.plan.map((entry) => [entry.index, entry]));
  const stored = new Map(state.sections.map((entry) => [entry.index, entry]));
  return Array.from({ length: state.count }, (_, index) => {
    const record = stored.get(index);
    const plan = planned.get(index) ?? record ?? {};
    const ahead = state.run?.state === "running" && index >= state.run.index && !plan.kept;
    return {
      index,
      state: stateOf(state.run, index, record, plan),
      prompt: plan.prompt ?? "",
      start: plan.start_seconds ?? 0,
      seconds: plan.seconds ?? 0,
      key: record?.key ?? "",
      clip: Boolean(record?.clip),
      versions: record?.versions ?? 0,
      odd: ahead ? [] : (record?.falls_out ?? []),
      take: (ahead ? plan.take : record?.take) ?? 0,
      nextTake: takes.get(index) ?? 0,
      locked: locks.has(index) || Boolean(planned.get(index)?.locked),
      lockedHere: locks.has(index),
      live: [state.run, state.last].find((one) => one?.index === index)?.live ?? null,
      progress: state.run?.index === index && state.run.steps ? state.run.step / state.run.steps : 0,
    };
  });
}

function stateOf(run, index, record, { kept }) {
  const here = index === run?.index;
  if (here && run.state !== "running") return run.state === "paused" ? (record?.status ?? "waiting") : run.state;
  if (here && run.sampling) return "sampling";
  if (run?.state === "running" && index >= run.index) {
    if (!record) return "waiting";
    return kept ? (here ? "reading" : "kept") : "again";
  }
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
