/** The pack's templates open in the language that ComfyUI is set to. */

import { app } from "/scripts/app.js";

import { followComfy, language } from "./i18n.mjs";
import { translate } from "./templates/words.mjs";

const TRANSLATED = ["zh", "ja"];

app.registerExtension({
  name: "VideoMemory.Templates",
  async beforeConfigureGraph(workflow) {
    followComfy(app);
    const ours = workflow?.nodes?.some?.(({ type }) => String(type).startsWith("VideoMemory"));
    if (!ours || !TRANSLATED.includes(language())) return;
    try {
      translate(workflow, await (await fetch(new URL(`./templates/${language()}.json`, import.meta.url))).json());
    } catch (error) {
      console.warn("Video memory: the template stays in English;", error); // a workflow opens all the same
    }
  },
});
