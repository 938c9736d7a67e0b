/** Names of films, training runs, datasets and memories that exist, offered where one is typed; any other name may be typed too. */

import { element } from "../dom.mjs";

/** Widgets that ask for a name, by node, and what kind of thing they name. */
const KINDS = {
  VideoMemorySampler: { film: "films", branch_film: "films" },
  VideoMemorySaveFilm: { film: "films" },
  VideoMemoryFilmReport: { film: "films" },
  VideoMemoryTrain: { run: "runs" },
  VideoMemoryDataset: { name: "datasets" },
  VideoMemoryLoad: { memory_name: "memories" },
};

export class NameLists {
  /** `ask()` gives a promise of `{ films, runs, datasets, memories }`, each a list of names. */
  constructor(ask) {
    this.ask = ask;
    this.lists = {};
  }

  /** Follows the focus: Nodes 2.0 draws a text as a field that is labelled with the widget's name. */
  watch(page, nodeOf) {
    page.addEventListener("focusin", ({ target }) => {
      const id = target instanceof HTMLInputElement && target.closest("[data-node-id]")?.dataset.nodeId;
      const kind = id && KINDS[nodeOf(id)?.comfyClass]?.[target.getAttribute("aria-label")];
      if (kind) this.offer(target, kind);
    });
  }

  /** The classic canvas asks for a text in a dialog, which opens on a click; `around()` is the element that holds it. */
  attach(node, around) {
    for (const [name, kind] of Object.entries(KINDS[node.comfyClass] ?? {})) {
      const widget = node.widgets.find((candidate) => candidate.name === name);
      const own = widget?.onClick;
      if (!own) continue;
      widget.onClick = (...values) => {
        own.apply(widget, values);
        const field = around()?.querySelector(".graphdialog input.value");
        if (field) this.offer(field, kind);
      };
    }
  }

  /** Gives a field the list of its kind, and brings the list up to date. */
  async offer(field, kind) {
    const list = (this.lists[kind] ??= element("datalist", { id: `vm-names-${kind}` }));
    if (!list.isConnected) document.body.append(list);
    field.setAttribute("list", list.id);
    try {
      const names = (await this.ask())[kind] ?? [];
      list.replaceChildren(...names.map((value) => element("option", { value })));
    } catch {
      // Without an answer the name is typed, as ever.
    }
  }
}
