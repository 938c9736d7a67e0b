/** The views of one kind that hear of a run: each for as long as its node is in the workflow. */

import { isLive } from "./live.mjs";
import { after } from "./panel.mjs";

export class OpenViews {
  #views = new Set();

  /**
   * Opens and closes a view with its node. It has a `node`, and `open()` and `close()` where it does more than be here; both
   * may come again, since a node can be taken out of a graph and put into another.
   */
  follow(view) {
    after(view.node, "onAdded", () => isLive(view.node) && this.#begin(view));
    after(view.node, "onRemoved", () => this.#end(view));
  }

  /** Those that are open; others are closed as soon as they are found dead, and never act. */
  live() {
    for (const view of this.#views) if (!isLive(view.node)) this.#end(view);
    return [...this.#views];
  }

  /** Whether a view is open still. */
  has(view) {
    return this.live().includes(view);
  }

  #begin(view) {
    this.live(); // a new node may have come in the place of one that was not told of its end
    if (this.#views.has(view)) return;
    this.#views.add(view);
    view.open?.();
  }

  #end(view) {
    if (this.#views.delete(view)) view.close?.();
  }
}
