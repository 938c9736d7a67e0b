/** Asks the server what a storyboard becomes: one question at a time, the newest one counts. */

import { said } from "../said.mjs";

export const ROUTE = "/video_memory/plan";

/** A person's own fields of the plan, kept in the node's properties under these names, with what they are at first. */
export const OWN_FIELDS = {
  plan_host: "wan-14b",
  plan_width: 832,
  plan_height: 480,
  plan_rate: "4x4x2",
  plan_card_gib: 12,
  plan_bytes_per_weight: 1,
  plan_opening_seconds: 0,
};
export const HOSTS = ["wan-1.3b", "wan-5b", "wan-14b", "hunyuan", "hunyuan-1.5"];

/**
 * The question to the server. `numbers` are the Storyboard node's own (`fps`, `section_seconds`, `total_seconds`), `found` is
 * what the graph says (see film.mjs), `own` the person's fields, which stand in for what the graph does not say.
 */
export function planRequest(storyboard, numbers, found, own) {
  const fields = { ...OWN_FIELDS, ...own };
  const request = {
    storyboard,
    ...numbers,
    width: found.width ?? fields.plan_width,
    height: found.height ?? fields.plan_height,
    card_gib: fields.plan_card_gib,
    bytes_per_weight: own.plan_bytes_per_weight ?? found.bytes_per_weight ?? fields.plan_bytes_per_weight,
    history_latents: openingLatents(fields.plan_opening_seconds, numbers.fps),
  };
  if (found.cached !== undefined) request.cached = found.cached;
  if (found.text_model) request.text_model = true;
  if (found.horizon) request.horizon = found.horizon;
  if (found.sliding_window !== undefined) request.sliding_window = found.sliding_window;
  if (found.attention_mode === "joint") request.attention_mode = "joint"; // also of encoders trained for a cached memory
  if (found.encoders) return { ...request, encoders: found.encoders, ...(found.rates ? { rates: found.rates } : {}) };
  const host = found.host ?? fields.plan_host;
  if (found.max_pictures) return { ...request, host, max_pictures: found.max_pictures, repeated_frames: found.repeated_frames };
  return {
    ...request,
    host,
    rates: found.rates ?? fields.plan_rate,
    padding: found.padding ?? "ceil",
  };
}

/** Latents of a clip that opens the film; its first frame has one to itself. */
export function openingLatents(seconds, fps) {
  return seconds > 0 ? 1 + Math.round((seconds * fps) / 4) : 0;
}

/**
 * Sends questions after a pause in typing. `send(request)` gives a promise of a Response; `show(state)` gets
 * `{ status: "busy" }`, `{ status: "ok", answer }` or `{ status: "error", message, field }`.
 */
export class PlanClient {
  constructor(send, show, { delay = 250 } = {}) {
    this.send = send;
    this.show = show;
    this.delay = delay;
    this.timer = null;
    this.newest = 0;
    this.last = null;
  }

  /** Asks soon; an equal question is not asked again. */
  ask(request, { again = false } = {}) {
    const key = JSON.stringify(request);
    if (key === this.last && !again) return;
    this.last = key;
    this.newest += 1;
    clearTimeout(this.timer);
    this.show({ status: "busy" });
    this.timer = setTimeout(() => this.#run(key, this.newest), this.delay);
  }

  /** Forgets the question under way. */
  stop() {
    clearTimeout(this.timer);
    this.newest += 1;
    this.last = null;
  }

  async #run(body, ticket) {
    const state = await askOnce(this.send, body);
    if (ticket === this.newest) this.show(state);
  }
}

/** One question now, as a text of JSON; the answer as a state, never an exception. */
export async function askOnce(send, body) {
  let response, data;
  try {
    response = await send(body);
    data = await response.json();
  } catch (error) {
    // No server, or an answer that is no JSON (an older pack without the route, a proxy's page).
    const message = response && !response.ok ? `HTTP ${response.status}` : String(error.message ?? error);
    return { status: "error", message, field: "server" };
  }
  if (response.ok && data.error === undefined) return { status: "ok", answer: inOurWords(data) };
  return { status: "error", message: said(data.error) ?? `HTTP ${response.status}`, field: data.field ?? "server" };
}

/** The answer with its budget in the chosen language. */
function inOurWords(answer) {
  const told = { ...answer };
  if (answer.budget) told.budget = { ...answer.budget, advice: answer.budget.advice.map(said), report: said(answer.budget.report) };
  if (answer.budget_error) told.budget_error = said(answer.budget_error);
  return told;
}
