/** The pack's templates open in the language that ComfyUI is set to, and large enough to read. */

import { app } from "/scripts/app.js";

import { followComfy, language } from "./i18n.mjs";
import { translate } from "./templates/words.mjs";

const TRANSLATED = ["zh", "ja"];
const RESTORED = "Comfy.EnableWorkflowViewRestore";

/** Where the workflow that is being opened says that it opens. ComfyUI shows a template as a whole, too small to read. */
let view;

function restore() {
  if (!view || app.extensionManager?.setting?.get(RESTORED) === false) return;
  app.canvas.ds.scale = view.scale;
  app.canvas.ds.offset = [...view.offset];
  app.canvas.setDirty(true, true);
}

app.registerExtension({
  name: "VideoMemory.Templates",
  async beforeConfigureGraph(workflow) {
    followComfy(app);
    const ours = workflow?.nodes?.some?.(({ type }) => String(type).startsWith("VideoMemory"));
    view = ours && workflow.extra?.name ? workflow.extra.ds : undefined;
    if (!ours || !TRANSLATED.includes(language())) return;
    try {
      translate(workflow, await (await fetch(new URL(`./templates/${language()}.json`, import.meta.url))).json());
    } catch (error) {
      console.warn("Video memory: the template stays in English;", error); // a workflow opens all the same
    }
  },
  afterConfigureGraph: restore,
});
