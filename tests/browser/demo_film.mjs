/** Films that the tests make with the tiny family: what feeds the sampler of the shipped demo, and nothing else of it. */

import { readFile } from "node:fs/promises";

const DEMO = JSON.parse(await readFile(new URL("../../workflows/api/tiny_demo.json", import.meta.url), "utf8"));
const numbered = (kind) => Object.keys(DEMO).filter((id) => DEMO[id].class_type === kind);
const [SAMPLER] = numbered("VideoMemorySampler");

/** A prompt that makes a film of one section of half a second for each text. */
export function tinyFilm(name, texts, steps = 2) {
  const prompt = {};
  const take = (id) => {
    if (prompt[id]) return;
    prompt[id] = structuredClone(DEMO[id]);
    if (id === SAMPLER) delete prompt[id].inputs.history;
    Object.values(prompt[id].inputs).filter(Array.isArray).forEach(([from]) => take(from));
  };
  take(SAMPLER);
  const [board] = Object.keys(prompt).filter((id) => prompt[id].class_type === "VideoMemoryStoryboard");
  const shots = texts.map((text, i) => ({ start: i / 2, end: (i + 1) / 2, prompt: text, transition: "cut" }));
  prompt[board].inputs.storyboard = JSON.stringify({ version: 1, shots });
  prompt[prompt[SAMPLER].inputs.sigmas[0]].inputs.steps = steps;
  prompt[SAMPLER].inputs.film = name;
  prompt.report = { class_type: "PreviewAny", inputs: { source: [SAMPLER, 2] } };
  return prompt;
}

/** The same film, whose sampler stops where tests/integration/hold_node.py is told. */
export function held(prompt) {
  prompt.hold = { class_type: "TestHold", inputs: { sampler: prompt[SAMPLER].inputs.sampler } };
  prompt[SAMPLER].inputs.sampler = ["hold", 0];
  return prompt;
}
