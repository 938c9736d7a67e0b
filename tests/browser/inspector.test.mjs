import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { RENDERERS, SERVER, addNode, clear, fit, heightOf, loadWorkflow, openBrowser, openPage, picture, queueAndWait, ready, widgetValue } from "./page.mjs";

const RECALL = "video_memory_test";

let browser;

before(async () => {
  browser = await openBrowser();
});
after(() => browser?.close());

/** Puts plain pictures where the report would have put its frames. */
async function pairs(page, count) {
  const made = [];
  for (let frame = 0; frame < count; frame += 1) {
    const files = {};
    for (const [kind, colour] of [["original", "#d33"], ["recalled", "#a55"]]) {
      files[kind] = await page.evaluate(
        async ([name, fill, subfolder]) => {
          const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 48 });
          const context = canvas.getContext("2d");
          context.fillStyle = fill;
          context.fillRect(0, 0, 64, 48);
          const blob = await new Promise((done) => canvas.toBlob(done));
          const body = new FormData();
          body.append("image", new File([blob], name));
          body.append("type", "temp");
          body.append("subfolder", subfolder);
          return (await (await fetch("/upload/image", { method: "POST", body })).json()).name;
        },
        [`${kind}_${frame}.png`, colour, RECALL],
      );
    }
    made.push({ frame, ...files });
  }
  return made;
}

function executed(page, id, output) {
  return page.evaluate(([node, data]) => window.app.graph.getNodeById(node).onExecuted(data), [id, output]);
}

test("a report is there again after the page was loaded anew, for the node that it is of", async () => {
  const { page, quiet, close } = await openPage(browser);
  const [models, budget] = [await addNode(page, "VideoMemoryDemoModels"), await addNode(page, "VideoMemoryBudget", [600, 120])];
  await page.evaluate(([from, to]) => {
    const node = (id) => window.app.graph.getNodeById(id);
    node(from).connect(1, node(to), "memory_encoder");
  }, [models, budget]);
  const { outputs } = await queueAndWait(page);
  const workflow = await page.evaluate(async () => (await window.app.graphToPrompt()).workflow);
  await page.reload({ waitUntil: "domcontentloaded" });
  await ready(page);
  const shown = (text) => page.waitForFunction((words) => document.querySelector(".vm-report").textContent === words, text);
  await loadWorkflow(page, workflow);
  await shown(outputs[budget].text[0]);
  const other = { ...workflow, id: crypto.randomUUID() };
  await loadWorkflow(page, other, "another");
  await shown("Run the workflow to see the report here.");
  quiet();
  await close();
});

for (const renderer of RENDERERS) {
  test(`frames are chosen by dragging and by keys, and compared side by side, ${renderer}`, async () => {
    const { page, quiet, close } = await openPage(browser, { renderer });
    const retrieve = await addNode(page, "VideoMemoryRetrieve", [100, 120]);
    const decode = await addNode(page, "VAEDecode", [620, 120]);
    const report = await addNode(page, "VideoMemoryRetrievalReport", [900, 120]);
    await page.evaluate(([a, b, c]) => {
      const node = (id) => window.app.graph.getNodeById(id);
      node(a).connect(0, node(b), 0);
      node(b).connect(0, node(c), 1);
    }, [retrieve, decode, report]);
    const heights = async () => [await heightOf(page, retrieve), await heightOf(page, report)];
    await fit(page);
    const empty = await heights();
    const sections = [{ first: 0, last: 16, prompt: "a red door" }, { first: 17, last: 32, prompt: "a street" }];
    await executed(page, retrieve, { video_memory_timeline: [{ frames: 33, sections, asked: [[1, 4]] }] });
    await fit(page, retrieve);

    const bar = page.locator(".vm-inspect-timeline");
    const box = await bar.boundingBox();
    const at = (frame) => [box.x + (box.width * (frame + 0.5)) / 33, box.y + box.height / 2];
    await page.mouse.move(...at(6));
    await page.mouse.down();
    await page.mouse.move(...at(14), { steps: 4 });
    await page.mouse.up();
    assert.equal(await widgetValue(page, retrieve, "frame_indices"), "5-16", "whole latents");
    await page.keyboard.press("ArrowRight");
    assert.equal(await widgetValue(page, retrieve, "frame_indices"), "9-20");
    await page.keyboard.press("Shift+ArrowLeft");
    assert.equal(await widgetValue(page, retrieve, "frame_indices"), "9-16");

    const shown = { subfolder: RECALL, type: "temp", psnr: [20, 15.5, null, 18], pairs: await pairs(page, 4) };
    await fit(page); // ComfyUI hides what lies outside of the window
    await executed(page, report, { video_memory_recall: [shown] });
    // The node of the frames shows what its report compares, under the frames' numbers in the film.
    const [first, second] = [page.locator(".vm-inspect-scrubber").nth(0), page.locator(".vm-inspect-scrubber").nth(1)];
    await first.getByText("Frame 1 of 4 · PSNR 20.00 dB").waitFor();
    assert.deepEqual(await heights(), empty, "the pictures have had their room from the start");
    await second.getByText("Frame 0 of 3 · PSNR 20.00 dB").waitFor();
    await first.getByRole("button", { name: "Worst frame" }).click();
    await first.getByText("Frame 2 of 4 · PSNR 15.50 dB").waitFor();
    await second.getByRole("slider").focus();
    await page.keyboard.press("End");
    await second.getByText("Frame 3 of 3 · PSNR 18.00 dB").waitFor();
    await page.waitForFunction(() => [...document.querySelectorAll(".vm-inspect-pair img")].every((image) => image.naturalWidth === 64));
    await picture(page, `inspector-${renderer}`);
    // The memory of a film that goes on from another one.
    const sampler = await addNode(page, "VideoMemorySampler", [-500, 120]);
    const timeline = [{ frames: 33, sections: sections.map((one, i) => ({ ...one, number: i + 1 })), asked: [] }];
    // At once: the sampler's strip soon reads the disk, on which there is no such film.
    const titles = await page.evaluate(([from, to, shownThen]) => {
      const [made, asked] = [from, to].map((id) => window.app.graph.getNodeById(id));
      made.connect(1, asked, "memory");
      const film = made.widgets.find(({ name }) => name === "film").value;
      window.app.api.dispatchCustomEvent("video_memory.section", { node: String(from), film, count: 1, state: "started", sections: [], before: 1 });
      asked.onExecuted({ video_memory_timeline: shownThen });
      return [...document.querySelectorAll(".vm-inspect-section")].map(({ title }) => title);
    }, [sampler, retrieve, timeline]);
    assert.deepEqual(titles, ["Section 1: a red door", "Section 1 of this film, 1 before it: a street"]);
    quiet();
    await close();
  });

  test(`reports are read on the node, in the room they have had from the start, ${renderer}`, async () => {
    const { page, quiet, close } = await openPage(browser, { renderer });
    for (const name of ["VideoMemoryBudget", "VideoMemoryCut", "VideoMemoryJoin", "VideoMemorySave"]) {
      const id = await addNode(page, name);
      await fit(page, id);
      await page.getByText("Run the workflow to see the report here.").waitFor();
      const empty = await heightOf(page, id);
      const lines = Array.from({ length: 12 }, (_, line) => `<b>line ${line} of the report`);
      await executed(page, id, { text: [lines.join("\n")] });
      assert.equal(await page.locator(".vm-report").textContent(), lines.join("\n"), "text, never markup");
      assert.deepEqual(await heightOf(page, id), empty);
      await picture(page, `report-${name}-${renderer}`);
      await clear(page);
    }
    quiet();
    await close();
  });

  test(`losses of a training are drawn as they come and no run is invented on disk, ${renderer}`, async () => {
    const { page, quiet, close } = await openPage(browser, { renderer });
    const id = await addNode(page, "VideoMemoryTrain", [100, 120]);
    await page.getByText("No run of this name yet").waitFor();
    const losses = Array.from({ length: 200 }, (_, step) => [step, 0.3 + Math.exp(-step / 60) + 0.1 * Math.sin(step * 7)]);
    await fit(page, id);
    const empty = await heightOf(page, id);
    const told = { node: String(id), run: "my_memory", steps: 400 };
    await page.evaluate((messages) => {
      for (const detail of messages) window.app.api.dispatchEvent(new CustomEvent("video_memory.training", { detail }));
    }, [
      { ...told, state: "started", first_step: 0 },
      { ...told, state: "losses", losses },
      { ...told, state: "heldout", heldout: [[50, 0.9], [100, 0.6], [199, 0.5]] },
      { ...told, state: "parts", parts: { continuation: 0.5 }, without_memory: [[199, 0.8]], nothing: 2 },
    ]);
    await page.getByText(/Step 200 of 400 · loss 0\.\d{4} · held-out 0\.5000/).waitFor();
    await page.getByText("held out, without memory").waitFor();
    await page.getByText("predicting nothing 2.00 (not on the scale)").waitFor();
    await fit(page, id);
    // Drawn anew when the node has been resized, which takes a frame or two.
    await page.waitForFunction(() => {
      const canvas = document.querySelector(".vm-train-curve");
      if (!canvas?.width || !canvas.height) return false;
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return new Set(Array.from({ length: data.length / 4 }, (_, i) => data.slice(4 * i, 4 * i + 3).join())).size > 10;
    });
    assert.deepEqual(await heightOf(page, id), empty, "the curve has had its room from the start");
    await picture(page, `training-${renderer}`);
    const say = (event, detail) => page.evaluate(([name, data]) => window.app.api.dispatchEvent(new CustomEvent(name, { detail: data })), [event, detail]);
    const status = page.locator(".vm-train-status");
    for (const [phase, words, end] of [["saving", "saving", "success"], ["pictures", "drawing pictures", "interrupted"], ["heldout", "measuring held-out clips", "error"]]) {
      await say("video_memory.training", { ...told, state: "phase", phase });
      await status.getByText(words).waitFor();
      await say(`execution_${end}`, end === "success" ? {} : { node_id: String(id), node_type: "VideoMemoryTrain", traceback: [], exception_message: end === "error" ? "no room\nat all" : undefined });
      await status.filter({ hasNotText: words }).waitFor();
    }
    await status.getByText("stopped: no room").waitFor();
    const answer = await (await fetch(`${SERVER}/video_memory/training/my_memory`)).json();
    assert.deepEqual(answer, { run: "my_memory", losses: [], heldout: [], without_memory: [], nothing: null, recalled: null });
    quiet();
    await close();
  });
}
