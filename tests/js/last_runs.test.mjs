import assert from "node:assert/strict";
import { test } from "node:test";

import { LastRuns } from "../../js/last_runs.mjs";

test("a workflow's last run is asked for once until another run ends", async () => {
  let run = 1;
  const asked = [];
  const runs = new LastRuns(async (workflow) => (asked.push(workflow), { run }));
  assert.deepEqual(await runs.of("a"), { run: 1 });
  run = 2;
  assert.deepEqual(await runs.of("a"), { run: 1 });
  assert.deepEqual(await runs.of("b"), { run: 2 });
  runs.forget();
  assert.deepEqual(await runs.of("a"), { run: 2 }, "what the run before last showed is not shown again");
  assert.deepEqual(asked, ["a", "b", "a"]);
});

test("a question that failed is asked anew", async () => {
  let fails = true;
  const runs = new LastRuns(async () => {
    if (fails) throw new Error("the server is gone");
    return { run: 1 };
  });
  assert.deepEqual(await runs.of("a"), {});
  fails = false;
  assert.deepEqual(await runs.of("a"), { run: 1 });
});
