import assert from "node:assert/strict";
import { test } from "node:test";

import { DICTIONARIES, setLanguage, t } from "../../js/i18n.mjs";
import { bytesPerWeight, findFilm, hostOf } from "../../js/storyboard/film.mjs";
import { PlanClient, askOnce, openingLatents, planRequest } from "../../js/storyboard/plan.mjs";

const { en, ja, zh } = DICTIONARIES;

/** A graph from `{ id: [type, widgets, { input: [origin, slot] }] }`, as far as ComfyUI's own looks like it. */
function graphOf(description) {
  const links = new Map();
  const nodes = new Map();
  const graph = { getNodeById: (id) => nodes.get(id) ?? null, getLink: (id) => links.get(id) };
  for (const [id, [type, widgets]] of Object.entries(description)) {
    const list = Object.entries(widgets).map(([name, value]) => ({ name, value }));
    nodes.set(id, { id, type, graph, widgets: list, inputs: [], outputs: [{ links: [] }, { links: [] }] });
  }
  for (const [id, [, , inputs]] of Object.entries(description)) {
    for (const [name, [origin, slot]] of Object.entries(inputs ?? {})) {
      const link = links.size + 1;
      links.set(link, { origin_id: origin, origin_slot: slot, target_id: id });
      nodes.get(origin).outputs[slot].links.push(link);
      nodes.get(id).inputs.push({ name, link });
    }
  }
  return (id) => nodes.get(id);
}

const FILM = {
  board: ["VideoMemoryStoryboard", {}],
  dot: ["Reroute", {}, { "": ["board", 0] }],
  unet: ["UNETLoader", { unet_name: "Wan2.2/wan2.2_ti2v_5B_fp8_e4m3fn.safetensors" }],
  shift: ["ModelSamplingSD3", {}, { model: ["unet", 0] }],
  encoder: ["VideoMemoryEncoderNew", { rate: "2x2x2", padding: "floor" }],
  size: ["PrimitiveInt", { value: 1280 }],
  sampler: [
    "VideoMemorySampler",
    { width: 832, height: 704 },
    { storyboard: ["dot", 0], model: ["shift", 0], memory_encoder: ["encoder", 0], width: ["size", 0] },
  ],
};

test("size, encoder and model are found through reroutes, patches and connected numbers", () => {
  assert.deepEqual(findFilm(graphOf(FILM)("board")), {
    sampler: "sampler", width: 1280, height: 704, hasHistory: false,
    rates: "2x2x2", untrained: true, padding: "floor", cached: false, host: "wan-5b", bytes_per_weight: 1,
  }); // prettier-ignore
});

test("what a section sees is asked as the sampler has it", () => {
  const sampler = [FILM.sampler[0], { width: 832, height: 480, horizon: 2000, sliding_window: 0 }, FILM.sampler[2]];
  const found = findFilm(graphOf({ ...FILM, sampler })("board"));
  assert.deepEqual([found.horizon, found.sliding_window], [2000, 0]);
});

test("a memory of pictures that has no file is planned by its own numbers", () => {
  const encoder = ["VideoMemoryEncoderNew", { variant: "keyframes", rate: "4x4x2", padding: "ceil", max_pictures: 6, repeated_frames: 5 }];
  const found = findFilm(graphOf({ ...FILM, encoder })("board"));
  assert.deepEqual([found.max_pictures, found.repeated_frames, found.rates], [6, 5, undefined]);
  const request = planRequest("a", { fps: 16 }, found, {});
  assert.deepEqual([request.max_pictures, request.repeated_frames, request.rates, request.host], [6, 5, undefined, "wan-5b"]);
});

test("a film of the demo's models is planned for them, with the memory that their node names", () => {
  const models = ["VideoMemoryDemoModels", { rate: "4x4x2" }];
  const sampler = ["VideoMemorySampler", { width: 128, height: 96 }, { storyboard: ["board", 0], model: ["models", 0], memory_encoder: ["models", 1] }];
  const found = findFilm(graphOf({ board: FILM.board, models, sampler })("board"));
  assert.deepEqual([found.host, found.rates, found.bytes_per_weight], ["tiny", "4x4x2", 2]);
});

test("weights that their loader keeps in fp8 count as fp8, whatever the file's name says", () => {
  const unet = (dtype) => ["UNETLoader", { unet_name: "wan2.2_ti2v_5B_fp16.safetensors", weight_dtype: dtype }];
  const bytes = (dtype) => findFilm(graphOf({ ...FILM, unet: unet(dtype) })("board")).bytes_per_weight;
  assert.deepEqual(["fp8_e4m3fn", "fp8_e5m2", "default"].map(bytes), [1, 1, 2]);
});

test("a loaded encoder is named by its file, and a history is noticed", () => {
  const graph = {
    ...FILM,
    encoder: ["VideoMemoryEncoderLoader", { encoder_name: "film.safetensors" }],
    clip: ["VAEEncode", {}],
    sampler: [FILM.sampler[0], FILM.sampler[1], { ...FILM.sampler[2], history: ["clip", 0] }],
  };
  const found = findFilm(graphOf(graph)("board"));
  assert.deepEqual(found.encoders, ["film.safetensors"]);
  assert.equal(found.hasHistory, true);
});

test("combined encoders are all found, with a file or without", () => {
  const graph = {
    ...FILM,
    file: ["VideoMemoryEncoderLoader", { encoder_name: "film.safetensors" }],
    inner: ["VideoMemoryEncoderCombine", {}, { memory_encoder: ["encoder", 0], second_encoder: ["file", 1] }],
    cached: ["VideoMemoryEncoderNew", { rate: "2x2x8", padding: "ceil", memory_attention: "cached" }],
    outer: ["VideoMemoryEncoderCombine", {}, { memory_encoder: ["inner", 0], second_encoder: ["cached", 0] }],
    sampler: [FILM.sampler[0], FILM.sampler[1], { ...FILM.sampler[2], memory_encoder: ["outer", 0] }],
  };
  const found = findFilm(graphOf(graph)("board"));
  assert.deepEqual([found.encoders, found.rates, found.padding, found.cached], [["film.safetensors"], "2x2x2 + 2x2x8", "floor", false]);
});

test("without a sampler, or with a ring of reroutes, nothing is claimed", () => {
  assert.deepEqual(findFilm(graphOf({ board: ["VideoMemoryStoryboard", {}] })("board")), {});
  const ring = { board: ["VideoMemoryStoryboard", {}], dot: ["Reroute", {}, { a: ["board", 0], b: ["dot", 0] }] };
  assert.deepEqual(findFilm(graphOf(ring)("board")), {});
});

test("models are told by the names of their public files, and unknown names are not guessed", () => {
  assert.equal(hostOf("wan2.1_t2v_1.3B_fp16.safetensors"), "wan-1.3b");
  assert.equal(hostOf("wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors"), "wan-14b");
  assert.equal(hostOf("Wan2.2-T2V-A14B-HighNoise-Q4_K_M.gguf"), "wan-14b");
  assert.equal(hostOf("hunyuan_video_t2v_720p_bf16.safetensors"), "hunyuan");
  assert.equal(hostOf("hunyuan_video_v1_540p.safetensors"), "hunyuan");
  assert.equal(hostOf("hunyuanvideo1.5_720p_t2v_fp16.safetensors"), "hunyuan-1.5");
  assert.equal(hostOf("tiny_wan_host.safetensors"), undefined);
  assert.equal(bytesPerWeight("Wan2.2-T2V-A14B-HighNoise-Q4_K_M.gguf"), 0.6);
  assert.equal(bytesPerWeight("x_bf16.safetensors"), 2);
  assert.equal(bytesPerWeight("x.safetensors"), undefined);
});

test("the question takes the graph before the person's fields, and an encoder's file before its rate", () => {
  const numbers = { fps: 16, section_seconds: 5, total_seconds: 0 };
  const own = { plan_width: 640, plan_card_gib: 8, plan_opening_seconds: 2 };
  const asked = planRequest("a", numbers, { width: 1280, host: "wan-5b", horizon: 0 }, own);
  assert.ok(!("horizon" in asked), "0 lets a section see everything");
  assert.equal(planRequest("a", numbers, { horizon: 2000 }, own).horizon, 2000);
  assert.ok(!("sliding_window" in asked), "the server knows the sampler's own");
  assert.equal(planRequest("a", numbers, { sliding_window: 0 }, own).sliding_window, 0);
  assert.deepEqual([asked.width, asked.height, asked.card_gib, asked.host, asked.rates], [1280, 480, 8, "wan-5b", "4x4x2"]);
  assert.equal(asked.history_latents, 9);
  const loaded = planRequest("a", numbers, { encoders: ["e.safetensors"], host: "wan-5b" }, {});
  assert.deepEqual([loaded.encoders, loaded.host, loaded.rates], [["e.safetensors"], undefined, undefined]);
  assert.equal(openingLatents(0, 16), 0);
});

const answered = (ok, data) => Promise.resolve({ ok, status: ok ? 200 : 400, json: () => Promise.resolve(data) });
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

test("typing asks once, after the pause, and an equal question is not asked again", async () => {
  const sent = [];
  const states = [];
  const client = new PlanClient((body) => (sent.push(JSON.parse(body)), answered(true, { n: sent.length })), (s) => states.push(s), { delay: 5 }); // prettier-ignore
  for (const text of ["a", "ab", "abc"]) client.ask({ storyboard: text });
  await pause(30);
  client.ask({ storyboard: "abc" });
  await pause(30);
  assert.deepEqual(sent, [{ storyboard: "abc" }]);
  assert.deepEqual(states.at(-1), { status: "ok", answer: { n: 1 } });
});

test("a late answer to an old question is not shown", async () => {
  const states = [];
  const send = (body) => {
    const { wait } = JSON.parse(body);
    return pause(wait).then(() => answered(true, { wait }));
  };
  const client = new PlanClient(send, (state) => states.push(state), { delay: 1 });
  client.ask({ wait: 60 });
  await pause(15);
  client.ask({ wait: 1 });
  await pause(100);
  assert.deepEqual(states.filter((s) => s.status === "ok"), [{ status: "ok", answer: { wait: 1 } }]); // prettier-ignore
});

test("a refusal, a missing route and a server that is gone become messages", async () => {
  const refused = await askOnce(() => answered(false, { error: "fps is wrong", field: "fps" }), "{}");
  assert.deepEqual(refused, { status: "error", message: "fps is wrong", field: "fps" });
  const page = () => Promise.resolve({ ok: false, status: 404, json: () => Promise.reject(new SyntaxError("<html>")) });
  assert.equal((await askOnce(page, "{}")).message, "HTTP 404");
  assert.equal((await askOnce(() => Promise.reject(new TypeError("no network")), "{}")).message, "no network");
});

test("every language has the same words with the same values in them", () => {
  const values = (text) => [...text.matchAll(/\{(\w+)\}/g)].map((match) => match[1]).sort();
  for (const other of [zh, ja]) {
    assert.deepEqual(Object.keys(other).sort(), Object.keys(en).sort());
    for (const [key, text] of Object.entries(en)) assert.deepEqual(values(other[key]), values(text), key);
  }
});

test("an unknown language is English, and a regional one is its language", () => {
  setLanguage("zh-TW");
  assert.equal(t("storyboard.split"), zh["storyboard.split"]);
  setLanguage("xx");
  assert.equal(t("storyboard.split"), en["storyboard.split"]);
  setLanguage("en");
});
