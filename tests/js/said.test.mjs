import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { setLanguage } from "../../js/i18n.mjs";
import { said } from "../../js/said.mjs";
import { askOnce } from "../../js/storyboard/plan.mjs";

afterEach(() => setLanguage("en"));

const EMPTY = "shot 3: the prompt is empty; say what is seen, or delete the shot";
const TIGHT = "Does not fit even with streamed weights. Change one or more of: shorter sections (section_seconds 2.5); "
  + "a higher compression rate such as 8x8x2 or 8x8x4; a smaller picture, for example 624x352.";

test("what the server says stays English in English, and where it is not known", () => {
  assert.equal(said(EMPTY), EMPTY);
  setLanguage("ja");
  assert.equal(said("something of a newer server"), "something of a newer server");
  assert.equal(said(""), "");
  assert.equal(said(undefined), undefined);
});

test("what the server says is told in the language, with its values, and with what is said inside of them", () => {
  setLanguage("zh-TW");
  assert.equal(said(EMPTY), "镜头 3：提示词是空的；请写出画面，或删除此镜头");
  assert.equal(said(TIGHT), "即使分批载入权重也放不下。请改动其中一项或几项：更短的段落（section_seconds 2.5）；更高的压缩率，例如 8x8x2 或 8x8x4；更小的画面，例如 624x352。");
  const seen = "Section 5 s: 31,200 tokens; each step sees 40,040, 4,680 of them in the last latents as they are (sliding_window 3)";
  assert.equal(said(seen), "段落 5 秒：31,200 个 token；每步看到 40,040，其中 4,680 个是未压缩的最后几个潜变量帧（sliding_window 3）");
  assert.equal(said("History 20 s: 124,800 tokens, in memory 4,160 (3.3%), horizon 20,000"), "历史 20 秒：124,800 个 token，在记忆中为 4,160（3.3%），horizon 为 20,000");
  setLanguage("ja");
  assert.equal(said("Fits.\n-  no such line"), "入ります。\n-  no such line");
});

test("a person's own words are never taken for the server's", () => {
  setLanguage("ja");
  const name = "line 4; Fits. {0} $& (a|b)";
  assert.ok(said(`film '${name}' has no section 7`).includes(name));
});

test("the plan that the editor shows is told in the language", async () => {
  setLanguage("zh");
  const answer = (body) => async () => ({ ok: true, json: async () => body });
  const refused = await askOnce(answer({ error: EMPTY, field: "storyboard" }), "{}");
  assert.deepEqual(refused, { status: "error", message: said(EMPTY), field: "storyboard" });
  const { answer: plan } = await askOnce(answer({ frames: 9, budget: { advice: [TIGHT], report: "Fits." } }), "{}");
  assert.deepEqual(plan, { frames: 9, budget: { advice: [said(TIGHT)], report: "放得下。" } });
});
