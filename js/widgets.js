/** Which widgets the pack's nodes show, and the names of what exists where one is asked for. */

import { api } from "/scripts/api.js";
import { app } from "/scripts/app.js";

import { followComfy } from "./i18n.mjs";
import { after } from "./panel.mjs";
import { NameLists } from "./widgets/names.mjs";
import { Shown } from "./widgets/shown.mjs";

const names = new NameLists(async () => (await api.fetchApi("/video_memory/names")).json());

app.registerExtension({
  name: "VideoMemory.Widgets",
  setup() {
    followComfy(app);
    names.watch(document, (id) => app.canvas?.graph?.getNodeById?.(id) ?? app.graph?.getNodeById?.(id));
  },
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("VideoMemory") || !node.widgets?.length) return;
    const shown = new Shown(node);
    names.attach(node, () => app.canvas?.canvas?.parentNode);
    for (const method of ["onConfigure", "onConnectionsChange", "onDrawForeground"]) after(node, method, () => shown.update());
  },
});
