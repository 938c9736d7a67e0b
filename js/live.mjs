/** Which nodes are in the workflow that is open: ComfyUI makes others, and does not tell all of them when they are gone. */

import { app } from "/scripts/app.js";

/**
 * Whether a node is in the root graph of the page, or in one of its subgraphs.
 *
 * Copying makes nodes that are in no graph; copying a subgraph, or inserting a workflow, makes nodes in a graph that is
 * thrown away at once. When a workflow is cleared, as by an undo, those in its subgraphs keep their graph and hear nothing.
 */
export function isLive(node) {
  const { graph } = node;
  if (graph?.getNodeById(node.id) !== node) return false;
  const root = app.rootGraph ?? app.graph;
  // By the graph itself: a copy, and a workflow that is loaded again, have the same number.
  return graph === root || root?.subgraphs?.get(graph.id) === graph;
}
