/**
 * What the graph says about the film of a Storyboard node: picture size, memory encoder and model.
 *
 * Works on ComfyUI's graph as plain data (nodes, links, widgets), one graph at a time; what it cannot find is left out, and
 * the person's own fields take its place.
 */

const PASS_THROUGH = new Set(["Reroute"]);
const MAX_NODES = 200; // a walk through a graph ends, also when the graph is a ring
const COMBINE = "VideoMemoryEncoderCombine";
const DEMO = "VideoMemoryDemoModels";
const MOST_ENCODERS = 4;
const LOADERS = /^(UNETLoader|UnetLoaderGGUF\w*|CheckpointLoader\w*|LoaderGGUF\w*)$/i;

/**
 * `{ width, height, horizon, sliding_window, attention_mode, encoders, rates, untrained, padding, cached, host, bytes_per_weight, text_model, hasHistory, sampler }`, each only
 * when known, and for a memory of pictures without a file `max_pictures` and `repeated_frames`.
 * Sizes are numbers; `encoders` are files, which know their rates; `rates` are those of encoders without a file.
 */
export function findFilm(node) {
  const sampler = downstream(node, "VideoMemorySampler");
  if (!sampler) return {};
  const found = { sampler: sampler.id };
  for (const name of ["width", "height", "horizon", "sliding_window"]) found[name] = numberOf(sampler, name);
  found.attention_mode = valueOf(sampler, "attention_mode");
  found.hasHistory = ["history", "memory", "branch_film"].some((name) => isLinked(sampler, name)) || Boolean(String(valueOf(sampler, "branch_film") ?? "").trim());
  Object.assign(found, describeEncoders(encodersOf(sampler)));
  const demo = encodersOf(sampler).find((node) => node.type === DEMO);
  if (demo) Object.assign(found, { host: "tiny", rates: valueOf(demo, "rate"), bytes_per_weight: 2, text_model: true });
  const { file, dtype } = modelFile(sampler);
  if (file) Object.assign(found, { host: hostOf(file), bytes_per_weight: /^fp8/.test(dtype) ? 1 : bytesPerWeight(file), text_model: isTextModel(file) });
  return Object.fromEntries(Object.entries(found).filter(([, value]) => value !== undefined && value !== ""));
}

/** The published model behind a file's name, as far as names tell; undefined when they do not. */
export function hostOf(file) {
  const name = file.toLowerCase();
  if (name.includes("hunyuan")) return /(^|[^\d.])1[._]5(?!\d)/.test(name) ? "hunyuan-1.5" : "hunyuan";
  if (!name.includes("wan")) return undefined;
  if (/(^|[^\d.])5b/.test(name)) return "wan-5b";
  if (/(^|[^\d.])1\.3b|1_3b/.test(name)) return "wan-1.3b";
  if (/(^|[^\d.])14b|a14b/.test(name)) return "wan-14b";
  return undefined;
}

/** Whether a model's file says that it makes video from text alone; undefined when it does not say. */
export function isTextModel(file) {
  return /(^|[^a-z])t2v/i.test(file) && !/i2v/i.test(file) ? true : undefined;
}

/** Bytes a weight takes on the card, by the usual words in a file's name. */
export function bytesPerWeight(file) {
  const name = file.toLowerCase();
  const quant = /q([2-8])(_|\.|-|k|$)/.exec(name);
  if (quant) return { 2: 0.35, 3: 0.45, 4: 0.6, 5: 0.7, 6: 0.82, 8: 1.06 }[quant[1]];
  if (/fp8|int8|e4m3|e5m2/.test(name)) return 1;
  if (/nvfp4|fp4|nf4/.test(name)) return 0.6;
  if (/fp32/.test(name)) return 4;
  return /fp16|bf16/.test(name) ? 2 : undefined;
}

/** The value of a widget, or of the node that is connected to it when that is a plain value. */
export function valueOf(node, name) {
  const link = inputOf(node, name)?.link;
  if (link == null) return node.widgets?.find((widget) => widget.name === name)?.value;
  const origin = throughReroutes(node.graph, link);
  return origin?.widgets?.find((widget) => widget.name === "value")?.value;
}

/** Whether a widget is fed by another node. */
export function isLinked(node, name) {
  return inputOf(node, name)?.link != null;
}

/** A widget's number, undefined when it is none or comes from a node that computes it. */
export function numberOf(node, name) {
  const value = valueOf(node, name);
  return typeof value === "number" && Number.isFinite(value) ? value : undefined;
}

function downstream(node, type) {
  const queue = [node];
  const seen = new Set();
  while (queue.length && seen.size < MAX_NODES) {
    const at = queue.shift();
    if (seen.has(at)) continue;
    seen.add(at);
    if (at.type === type) return at;
    if (at !== node && !PASS_THROUGH.has(at.type)) continue;
    // Only what carries the storyboard itself: its first output, or the one output of a reroute.
    for (const id of at.outputs?.[0]?.links ?? []) {
      const target = at.graph?.getNodeById(linkOf(at.graph, id)?.target_id);
      if (target) queue.push(target);
    }
  }
  return undefined;
}

/** The encoder nodes behind an input, combined ones in their order. */
function encodersOf(node, depth = 0) {
  const inputs = node.type === COMBINE ? ["memory_encoder", "second_encoder"] : ["memory_encoder"];
  return inputs.flatMap((name) => {
    const encoder = originOf(node, name);
    if (!encoder || depth > MOST_ENCODERS) return [];
    return encoder.type === COMBINE ? encodersOf(encoder, depth + 1) : [encoder];
  });
}

function describeEncoders(nodes) {
  const loaded = nodes.filter((node) => node.type === "VideoMemoryEncoderLoader").map((node) => valueOf(node, "encoder_name"));
  const made = nodes.filter((node) => node.type === "VideoMemoryEncoderNew");
  const found = {};
  if (loaded.length && loaded.every((name) => typeof name === "string")) found.encoders = loaded;
  if (made.some((node) => valueOf(node, "variant") === "keyframes")) {
    found.max_pictures = valueOf(made[0], "max_pictures");
    found.repeated_frames = valueOf(made[0], "repeated_frames");
  } else if (made.length) {
    found.rates = made.map((node) => valueOf(node, "rate")).join(" + ");
    if (!loaded.length) found.untrained = true;
    found.padding = valueOf(made[0], "padding");
    found.cached = made.every((node) => valueOf(node, "memory_attention") === "cached");
  }
  return found;
}

/** The file of the model behind the sampler, and the type that its loader is told to keep the weights in. */
function modelFile(sampler) {
  let node = originOf(sampler, "model");
  for (let steps = 0; node && steps < MAX_NODES; steps += 1) {
    if (LOADERS.test(node.type ?? "")) {
      const widget = node.widgets?.find((w) => /^(unet_name|ckpt_name|gguf_name|model_name)$/.test(w.name));
      return typeof widget?.value === "string" ? { file: widget.value, dtype: String(valueOf(node, "weight_dtype")) } : {};
    }
    node = originOf(node, "model");
  }
  return {};
}

function originOf(node, name) {
  const link = inputOf(node, name)?.link;
  return link == null ? undefined : throughReroutes(node.graph, link);
}

function throughReroutes(graph, id) {
  let node = graph?.getNodeById(linkOf(graph, id)?.origin_id);
  for (let steps = 0; node && PASS_THROUGH.has(node.type) && steps < MAX_NODES; steps += 1) {
    const link = node.inputs?.[0]?.link;
    node = link == null ? undefined : graph.getNodeById(linkOf(graph, link)?.origin_id);
  }
  return node ?? undefined;
}

function inputOf(node, name) {
  return node.inputs?.find((input) => input.name === name);
}

function linkOf(graph, id) {
  return graph?.getLink?.(id) ?? graph?.links?.get?.(id) ?? graph?.links?.[id];
}
