/** What a node showed after its last run: ComfyUI's page keeps it, and its server where the page was loaded anew. */

import { api } from "/scripts/api.js";
import { app } from "/scripts/app.js";

import { LastRuns } from "./last_runs.mjs";
import { isLive } from "./live.mjs";
import { after } from "./panel.mjs";

const runs = new LastRuns(lastRun);
for (const ended of ["execution_success", "execution_error", "execution_interrupted"]) api.addEventListener(ended, () => runs.forget());

/** Calls `take` with a node's output whenever it has run, and when its workflow is opened again. */
export function onOutput(node, take) {
  after(node, "onExecuted", take);
  after(node, "onConfigure", () => setTimeout(() => restore(node, take)));
}

async function restore(node, take) {
  if (!isLive(node)) return;
  const inSubgraph = node.graph.isRootGraph === false;
  const kept = () => app.nodeOutputs?.[inSubgraph ? `${node.graph.id}:${node.id}` : String(node.id)];
  const found = kept() ?? (inSubgraph ? undefined : await ofServer(node)); // there nodes run under other numbers
  if (found && isLive(node)) take(kept() ?? found); // a run that has ended meanwhile is newer
}

async function ofServer({ graph, id, comfyClass }) {
  if (!graph.id) return undefined;
  const { prompt, outputs } = await runs.of(graph.id);
  return prompt?.[2]?.[id]?.class_type === comfyClass ? outputs?.[id] : undefined;
}

/** The newest run of a workflow that has ended, as the server's history has it; {} where there is none. */
async function lastRun(workflow) {
  const query = new URLSearchParams({ workflow_id: workflow, status: "completed,failed", limit: 1 });
  const [job] = (await (await api.fetchApi(`/jobs?${query}`)).json()).jobs;
  return job ? (await (await api.fetchApi(`/history/${job.id}`)).json())[job.id] : {};
}
