import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { SHOTS, drag, openEditor, setWidget, undoSteps } from "./editor.mjs";
import { RENDERERS, fit, loadPrompt, openBrowser, picture, queuedPrompt, settle, widgetValue } from "./page.mjs";

let browser;

before(async () => {
  browser = await openBrowser();
});
after(() => browser?.close());

for (const renderer of RENDERERS) {
  const once = renderer === "nodes2" ? test : () => {}; // for what is the editor's alone

  test(`shots are resized, moved and taken back with the mouse, one step of undo each, ${renderer}`, async () => {
    const { page, id, editor, times, keys, quiet, close } = await openEditor(browser, renderer);
    const shot = (number) => editor.locator(`.vm-sb-shot[data-index="${number - 1}"]`);
    const second = (await shot(1).boundingBox()).width / 5;
    const before = await undoSteps(page);

    await drag(page, shot(1), second * 1.1, { edge: true });
    assert.deepEqual(await times(), [[0, 6, "a kitchen"], [6, 11, "a street"], [11, 16, "a garden"]]); // prettier-ignore
    assert.equal(await undoSteps(page), before + 1);

    await keys("Control+z");
    assert.deepEqual(await times(), SHOTS.map(({ start, end, prompt }) => [start, end, prompt])); // prettier-ignore
    await shot(1).waitFor();

    await drag(page, shot(1), -second, { edge: true, shift: true });
    assert.deepEqual(await times(), [[0, 4, "a kitchen"], [4, 10, "a street"], [10, 15, "a garden"]]); // prettier-ignore

    await drag(page, shot(3), -second * 12);
    assert.deepEqual(await times(), [[0, 5, "a garden"], [5, 9, "a kitchen"], [9, 15, "a street"]]); // prettier-ignore
    assert.equal(await editor.locator(".vm-sb-shot-panel .vm-sb-panel-title").textContent(), "Shot 1");

    const unchanged = await undoSteps(page);
    await drag(page, shot(2), second * 3, { edge: true, cancel: true });
    await shot(2).click();
    assert.deepEqual(await times(), [[0, 5, "a garden"], [5, 9, "a kitchen"], [9, 15, "a street"]]); // prettier-ignore
    assert.equal(await undoSteps(page), unchanged, "looking is no edit");
    assert.equal((await queuedPrompt(page))[id].inputs.storyboard, await widgetValue(page, id, "storyboard"));
    quiet();
    await close();
  });

  test(`a storyboard is written with the keyboard alone, ${renderer}`, async () => {
    const { page, id, editor, shots, focus, keys, quiet, close } = await openEditor(browser, renderer);
    await focus();
    await keys("ArrowRight", "Shift+ArrowRight", "n");
    await page.keyboard.type("rain on the window");
    await keys("Escape", "c", "l", "Alt+ArrowLeft", "d", "Delete", "Home", "s");
    const now = await shots();
    assert.deepEqual(
      now.map((shot) => [shot.start, shot.end, shot.prompt, shot.transition, Boolean(shot.locked)]),
      [
        [0, 2.5, "a kitchen", undefined, false],
        [2.5, 5, "a kitchen", "continue", false],
        [5, 10, "rain on the window", "continue", true],
        [10, 15, "a garden", "cut", false],
      ].toSpliced(3, 0, [10, 15.25, "a street", "cut", false]).map((row, i) => (i === 4 ? [15.25, 20.25, ...row.slice(2)] : row)),
    ); // prettier-ignore
    assert.equal(await page.evaluate((node) => Boolean(window.app.graph.getNodeById(node)), id), true, "Delete deletes shots, not the node");
    await keys("Control+z");
    assert.equal((await shots()).length, 4, "the split is taken back");
    await page.waitForFunction(() => document.activeElement?.classList.contains("vm-sb-timeline"));
    await keys("s", "Delete");
    assert.equal((await shots()).length, 4, "the shot that is chosen now is locked, and neither split nor deleted");
    await editor.getByText("Shot 2 is locked; unlock it first (L)").waitFor();
    await keys("Home", "s");
    assert.equal((await shots()).length, 5, "after an undo the keyboard goes on where it was");
    await keys("Control+z", "Control+z", "Control+Shift+z");
    assert.equal((await shots()).length, 4);
    await settle(page, 70); // as long as a new node looks after its place in the page
    await keys("Home", "s");
    assert.equal((await shots()).length, 5, "nor do several steps in a row take the keyboard away");
    quiet();
    await close();
  });

  test(`several shots are chosen, moved, locked, deleted and copied into another Storyboard, ${renderer}`, async () => {
    const { page, id, editor, times, shots, focus, keys, quiet, close } = await openEditor(browser, renderer);
    const shot = (number) => editor.locator(`.vm-sb-shot[data-index="${number - 1}"]`);
    const chosen = () => editor.locator('.vm-sb-shot[aria-selected="true"]').evaluateAll((all) => all.map(({ dataset }) => Number(dataset.index) + 1));
    const second = (await shot(1).boundingBox()).width / 5;
    await shot(1).click();
    await shot(3).click({ modifiers: ["Control"] });
    assert.deepEqual(await chosen(), [1, 3]);
    await shot(3).click({ modifiers: ["Control"] });
    await shot(2).click({ modifiers: ["Shift"] });
    assert.deepEqual(await chosen(), [1, 2]);
    await editor.getByText("Shot 2 of 2 chosen").waitFor();
    await drag(page, shot(1), second * 12);
    assert.deepEqual((await times()).map(([, , prompt]) => prompt), ["a garden", "a kitchen", "a street"]);
    assert.deepEqual(await chosen(), [2, 3]);
    await keys("l", "Alt+ArrowLeft");
    assert.deepEqual((await shots()).map(({ prompt, locked }) => [prompt, Boolean(locked)]), [["a kitchen", true], ["a street", true], ["a garden", false]]);
    await keys("Delete");
    await editor.getByText("Shot 1 is locked; unlock it first (L)").waitFor();
    await keys("l", "Home", "Alt+Shift+ArrowRight", "Control+c", "Delete");
    assert.deepEqual(await times(), [[0, 5, "a garden"]]); // prettier-ignore
    await keys("Control+v", "Control+a");
    assert.deepEqual((await times()).map(([, , prompt]) => prompt), ["a garden", "a kitchen", "a street"]);
    assert.deepEqual(await chosen(), [1, 2, 3]);
    await picture(page, `storyboard-chosen-${renderer}`);

    // The left edge is the boundary to the shot before; with Shift that one gets longer and all later ones move along.
    await shot(2).click();
    const left = shot(2).locator(".vm-sb-left");
    await drag(page, left, second, { edge: true });
    assert.deepEqual((await times()).map(([start, end]) => [start, end]), [[0, 6], [6, 10], [10, 15]]); // prettier-ignore
    await drag(page, left, -second, { edge: true, shift: true });
    assert.deepEqual((await times()).map(([start, end]) => [start, end]), [[0, 5], [5, 9], [9, 14]]); // prettier-ignore
    await focus();
    await keys("Control+x");
    assert.equal(await page.evaluate((node) => Boolean(window.app.graph.getNodeById(node)), id), true, "the shot is cut, and not the node");
    assert.equal((await shots()).length, 2);
    quiet();
    await close();
  });

  test(`a prompt is one step of undo however long it is, and is in the queue at once, ${renderer}`, async () => {
    const { page, id, editor, shots, focus, keys, quiet, close } = await openEditor(browser, renderer);
    const before = await undoSteps(page);
    await focus();
    await keys("Enter");
    await page.keyboard.type(" at night, a lamp");
    assert.match((await queuedPrompt(page))[id].inputs.storyboard, /a kitchen at night, a lamp/);
    await keys("Escape");
    assert.equal(await undoSteps(page), before + 1);
    await editor.locator(".vm-sb-seed").fill("18446744073709551615");
    await editor.locator(".vm-sb-seed").press("Enter");
    assert.match(await widgetValue(page, id, "storyboard"), /"seed": 18446744073709551615[,}]/);
    await editor.locator(".vm-sb-seed").fill("a seed");
    await editor.locator(".vm-sb-seed").press("Enter");
    assert.equal(await editor.locator(".vm-sb-seed").getAttribute("aria-invalid"), "true");
    await page.locator(".vm-sb:not(.vm-sb-busy)").waitFor();
    assert.equal(await editor.locator(".vm-sb-seed").inputValue(), "a seed", "a refused seed stays, to be corrected");
    assert.equal((await shots())[0].prompt, "a kitchen at night, a lamp");
    await editor.locator(".vm-sb-negative input").fill("blurred");
    assert.equal(JSON.parse((await queuedPrompt(page))[id].inputs.storyboard).negative, "blurred");
    quiet();
    await close();
  });

  test(`a text in another format is left alone until it is converted, ${renderer}`, async () => {
    const { page, editor, read, write, keys, quiet, close } = await openEditor(browser, renderer);
    for (const text of ["[0s: a kitchen] [5s-10s: a street]", "a kitchen | a street", '"0": "a kitchen", "5": "a street"']) {
      await write(text);
      await editor.getByText("This text is in another format").waitFor();
      await editor.locator(".vm-sb-shot").nth(1).click();
      await editor.locator(".vm-sb-timeline").focus();
      await keys("d", "Delete", "l", "Shift+ArrowRight");
      assert.equal(await read(), text);
    }
    await picture(page, `storyboard-foreign-${renderer}`);
    await editor.getByRole("button", { name: "Convert" }).click();
    await settle(page);
    assert.deepEqual(JSON.parse(await read()).shots.map((shot) => shot.prompt), ["a kitchen", "a street"]); // prettier-ignore

    const broken = '{"version": 1, "shots": [{"start": 0, "prompt": "a", "camera": 1}]}';
    await write(broken);
    await editor.getByText("unknown field 'camera'").waitFor();
    assert.equal(await editor.getByRole("button", { name: "Convert" }).count(), 0);
    assert.equal(await read(), broken);
    quiet();
    await close();
  });

  once(`storyboards in all five formats are pasted, and a refused one stays in the field, ${renderer}`, async () => {
    const { page, editor, times, focus, quiet, close } = await openEditor(browser, renderer);
    const field = editor.locator(".vm-sb-paste textarea");
    const open = () => editor.locator('[data-action="paste"]').click();
    const formats = [
      "[0s: one] [5s: two]", "one | two", '"0": "one", "5": "two"',
      '{"shots": [{"start": 0, "end": 5, "prompt": "one"}, {"start": 5, "end": 10, "prompt": "two"}]}',
      '{"scenes": [{"video_prompts": ["one", "two"], "cut": [true, false]}]}',
    ]; // prettier-ignore
    for (const text of formats) {
      await open();
      await field.fill(text);
      await editor.getByRole("button", { name: "Replace all shots" }).click();
      await editor.locator(".vm-sb-paste").waitFor({ state: "hidden" });
      assert.deepEqual((await times()).map((row) => [row[0], row[2]]), [[0, "one"], [5, "two"]]); // prettier-ignore
    }
    await open();
    await field.fill("[0s: one");
    await editor.getByRole("button", { name: "Replace all shots" }).click();
    await editor.getByText("the bracket is not closed").waitFor();
    assert.equal(await field.inputValue(), "[0s: one");
    await field.fill("three");
    await editor.getByRole("button", { name: "Add at the end" }).click();
    await editor.locator(".vm-sb-paste").waitFor({ state: "hidden" });
    assert.equal((await times()).length, 3);
    await focus();
    await page.keyboard.press("l");
    await open();
    await field.fill("- one\n- two");
    for (const name of ["Replace all shots", "Replace: each line a shot"]) {
      await editor.getByRole("button", { name, exact: true }).click();
      await editor.locator(".vm-sb-paste").getByText("Shot 3 is locked; unlock it first (L)").waitFor();
      assert.equal(await field.inputValue(), "- one\n- two", "nothing that was written is lost");
      await field.fill("- one\n- two");
    }
    assert.equal((await times()).length, 3, "a locked shot is not replaced");
    await editor.getByRole("button", { name: "Add at the end" }).click();
    await editor.locator(".vm-sb-paste").waitFor({ state: "hidden" });
    assert.equal((await times()).length, 4);
    quiet();
    await close();
  });

  once(`the plan follows the graph and the typing, and a refusal loses nothing, ${renderer}`, async () => {
    const { page, id, editor, read, quiet, close } = await openEditor(browser, renderer);
    const tokens = () => editor.locator(".vm-sb-numbers").textContent();
    assert.match(await tokens(), /3,120 tokens/);
    await page.evaluate((node) => {
      const sampler = window.LiteGraph.createNode("VideoMemorySampler");
      window.app.canvas.emitBeforeChange();
      window.app.graph.add(sampler);
      sampler.pos = [900, 100];
      window.app.graph.getNodeById(node).connect(0, sampler, "storyboard");
      sampler.widgets.find((widget) => widget.name === "width").value = 1280;
      sampler.widgets.find((widget) => widget.name === "height").value = 704;
      window.app.canvas.emitAfterChange();
    }, id);
    await editor.getByText("Planned for wan-14b, 1280×704").waitFor();
    const begins = await read();
    await editor.locator(".vm-sb-timeline").focus();
    for (const key of ["Home", "c"]) await page.keyboard.press(key);
    await editor.locator(".vm-sb-notices").getByText("Nothing comes before the first shot").waitFor();
    assert.equal(await read(), begins, "a key does what its button does");
    // What the budget advises is set by a button, and taken back as one step.
    const shown = (name) => page.evaluate((what) => window.app.graph.nodes.flatMap(({ widgets }) => widgets).find((widget) => widget.name === what).value, name);
    await page.evaluate((node) => (window.app.graph.getNodeById(node).properties.plan_card_gib = 1), id);
    await setWidget(page, id, "total_seconds", 0);
    await editor.getByRole("button", { name: "Picture of 960×528" }).click();
    await editor.getByText("Planned for wan-14b, 960×528").waitFor();
    await editor.locator(".vm-sb-timeline").focus();
    await page.keyboard.press("Control+z");
    await editor.getByText("Planned for wan-14b, 1280×704").waitFor();
    assert.deepEqual([await shown("width"), await shown("height")], [1280, 704]);
    await editor.getByRole("button", { name: "Sections of 2.5 s" }).click();
    await editor.getByText("6 sections").waitFor();
    const text = await read();
    await setWidget(page, id, "storyboard", text.replace("a street", ""));
    const top = async () => (await editor.locator(".vm-sb-timeline").boundingBox()).y;
    const before = await top();
    await editor.locator(".vm-sb-empty").getByText("no prompt yet").waitFor();
    await editor.locator(".vm-sb-list tbody").getByText("no prompt yet").first().waitFor({ state: "attached" }); // the plan has come
    assert.equal(await editor.locator(".vm-sb-error").count(), 0, "an empty shot is no error before a run");
    assert.equal(await top(), before, "nothing moves under the pointer");
    assert.equal(await editor.locator(".vm-sb-shot").count(), 3, "the shots stay where they are");
    quiet(); // and nothing is logged

    await page.route("**/video_memory/plan", (route) => route.abort());
    await editor.locator(".vm-sb-shot").nth(1).click();
    await editor.locator(".vm-sb-shot-panel textarea").fill("a street again");
    await editor.getByText("The plan is not available").waitFor();
    assert.equal(JSON.parse(await read()).shots[1].prompt, "a street again");
    await page.unroute("**/video_memory/plan");
    await editor.getByRole("button", { name: "Try again" }).click();
    await editor.getByText("6 sections").waitFor();
    await editor.getByText("The plan is not available").waitFor({ state: "hidden" });
    await close();
  });

  test(`the text stays reachable, and a connected text is shown as such, ${renderer}`, async () => {
    const { page, id, editor, quiet, close } = await openEditor(browser, renderer);
    const hidden = () => page.evaluate((node) => window.app.graph.getNodeById(node).widgets.find((w) => w.name === "storyboard").hidden, id);
    assert.equal(await hidden(), true);
    await editor.locator('[data-action="text"]').click();
    await settle(page, 12);
    assert.equal(await hidden(), false);
    await fit(page, id);
    const box = page.locator("textarea:not(.vm-sb textarea)").first();
    await box.waitFor({ state: "visible" });
    await box.fill('{"version": 1, "shots": [{"start": 0, "end": 3, "prompt": "typed"}]}');
    await editor.locator(".vm-sb-shot", { hasText: "typed" }).waitFor();
    await picture(page, `storyboard-text-${renderer}`);
    await page.evaluate((node) => {
      const text = window.LiteGraph.createNode("PrimitiveStringMultiline");
      text.pos = [-420, 120];
      window.app.graph.add(text);
      text.widgets[0].value = "from afar";
      const board = window.app.graph.getNodeById(node);
      text.connect(0, board, board.inputs.findIndex((input) => input.name === "storyboard"));
    }, id);
    await editor.getByText("The storyboard comes from a connected node").waitFor();
    assert.equal(await editor.locator('[data-action="insert"]').isDisabled(), true);
    await editor.getByText("Read as one shot from plain text.").waitFor();
    await page.evaluate(() => {
      const text = window.app.graph.nodes.find((node) => node.type === "PrimitiveStringMultiline").widgets[0];
      window.app.canvas.emitBeforeChange();
      text.value = "```json\n{\"shots\": [{\"prompt\": \"a kitchen\", \"duration\": 5}, {\"prompt\": \"a road\", \"duration\": 4}]}\n```";
      window.app.canvas.emitAfterChange();
    });
    await editor.getByText("Read as 2 shots from a list of shots in JSON.").waitFor();
    await picture(page, `storyboard-linked-${renderer}`);
    quiet();
    await close();
  });

  once(`how a text was read is said as soon as it is known, ${renderer}`, async () => {
    const { page, id, editor, write, quiet, close } = await openEditor(browser, renderer);
    const said = (words) => editor.getByText(words).waitFor();
    await write('"0": "a kitchen", "16": "a road"');
    await said("Read as 2 shots from keyframes. Keys without a unit are seconds");
    await picture(page, `storyboard-read-${renderer}`);
    await setWidget(page, id, "keyframe_unit", "frames");
    await said("Read as 2 shots from keyframes. Keys without a unit are frames.");
    await editor.getByRole("button", { name: "Convert" }).click();
    await editor.locator(".vm-sb-shot").nth(1).waitFor();
    await said("Keys without a unit are frames.");
    await write("a kitchen\na road");
    await said("Read as one shot from plain text. A line break does not begin a new shot");
    await write("| Scene | Text |\n|---|---|\n| 1 | a kitchen |");
    await said("line 1: the text is a table");
    await picture(page, `storyboard-refused-${renderer}`);
    // A text that another node makes is known after a run.
    await page.evaluate((node) => {
      const text = window.LiteGraph.createNode("StringConcatenate");
      window.app.graph.add(text);
      const board = window.app.graph.getNodeById(node);
      text.connect(0, board, board.inputs.findIndex((input) => input.name === "storyboard"));
    }, id);
    await said("What it says is known after a run.");
    await page.evaluate((node) => {
      const storyboard = JSON.stringify({ version: 1, shots: [{ start: 0, end: 5, prompt: "made in a run" }], negative: "" });
      window.app.graph.getNodeById(node).onExecuted({ storyboard: [storyboard], read_as: [{ form: "bars", shots: 1, remarks: [], note: "" }] });
    }, id);
    await said("Read as one shot from texts between bars");
    await said("This is the text of the last run");
    await editor.locator(".vm-sb-shot", { hasText: "made in a run" }).waitFor();
    await picture(page, `storyboard-run-${renderer}`);
    quiet();
    await close();
  });

  test(`a node is copied, saved and loaded with its storyboard and nothing else, ${renderer}`, async () => {
    const { page, id, focus, keys, quiet, close } = await openEditor(browser, renderer);
    await focus();
    await keys("l");
    const [saved, prompt] = await page.evaluate(async () => [window.app.graph.serialize(), (await window.app.graphToPrompt()).output]);
    const node = saved.nodes.find((entry) => String(entry.id) === String(id));
    assert.equal(node.widgets_values.length, 5);
    assert.deepEqual(Object.keys(prompt[id].inputs).sort(), ["fps", "keyframe_unit", "section_seconds", "storyboard", "total_seconds"]);
    await page.evaluate((node) => window.app.graph.add(window.app.graph.getNodeById(node).clone()), id);
    await settle(page, 12);
    assert.equal(await page.locator(".vm-sb").count(), 2);
    await page.evaluate((data) => window.app.loadGraphData(data), saved);
    await settle(page, 12);
    assert.match(await widgetValue(page, id, "storyboard"), /"locked": true/);
    assert.equal(await page.locator(".vm-sb").count(), 1);
    await loadPrompt(page, prompt);
    await page.locator(".vm-sb-shot").nth(2).waitFor();
    quiet();
    await close();
  });
}

for (const renderer of RENDERERS) {
  test(`forty shots are told apart, keep the wheel, and the chosen one in view, ${renderer}`, async () => {
    const shots = Array.from({ length: 40 }, (_, i) => ({ start: 5 * i, end: 5 * i + 5, prompt: `shot of a street, number ${i + 1}`, name: i === 2 ? "The pier" : "" }));
    const { page, editor, quiet, close } = await openEditor(browser, renderer, JSON.stringify({ version: 1, shots }), { frames: "3,201" });
    const timeline = editor.locator(".vm-sb-timeline");
    const numbers = () => editor.locator(".vm-sb-shot-head b").evaluateAll((all) => all.map((one) => one.textContent).filter(Boolean).length);
    assert.ok((await numbers()) >= 18, "every shot that is seen has its number");
    assert.ok(await editor.locator(".vm-sb-map").isVisible(), "the whole film is seen in small");
    const scale = () => page.evaluate(() => window.app.canvas.ds.scale);
    const before = await scale();
    await timeline.hover();
    for (let turn = 0; turn < 30; turn += 1) await page.mouse.wheel(0, 240);
    await settle(page);
    assert.equal(await scale(), before, "at its end the timeline keeps the wheel");
    await timeline.focus();
    await page.keyboard.press("Home");
    for (let press = 0; press < 4; press += 1) await page.keyboard.press("+");
    await settle(page);
    const inView = await editor.locator(".vm-sb-selected").evaluate((block) => {
      const [a, b] = [block.getBoundingClientRect(), block.closest(".vm-sb-timeline").getBoundingClientRect()];
      return a.right > b.left && a.left < b.right;
    });
    assert.ok(inView, "the shot that is edited is seen");
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowRight");
    const named = editor.locator('.vm-sb-shot[data-index="2"] .vm-sb-shot-text');
    await named.getByText("The pier").waitFor();
    await named.getByText("number 3").waitFor();
    await picture(page, `storyboard-forty-${renderer}`);
    for (const summary of await editor.locator("summary").all()) await summary.click();
    const [bar, view] = await editor.evaluate((root) => {
      root.scrollTop = root.scrollHeight;
      return [root.querySelector(".vm-sb-toolbar"), root].map((one) => one.getBoundingClientRect().top);
    });
    assert.ok(Math.abs(bar - view) <= 2, "what one does with shots stays in sight");
    quiet();
    await close();
  });

  test(`cast and look are written once and stand in what is encoded, ${renderer}`, async () => {
    const text = JSON.stringify({ version: 1, shots: SHOTS });
    const { page, editor, read, quiet, close } = await openEditor(browser, renderer, text);
    await editor.locator(".vm-sb-cast summary").click();
    await editor.getByRole("textbox", { name: "Cast and look" }).fill("the kitchen: no one\nkitchen: green tiles\nwatercolour");
    assert.deepEqual(JSON.parse(await read()).cast.map(({ name }) => name ?? ""), ["the kitchen", "kitchen", ""]);
    await editor.getByText("Cast and look (3)").waitFor();
    await editor.locator(".vm-sb-list summary").click();
    await editor.getByText("a kitchen, green tiles. watercolour").waitFor();
    await picture(page, `storyboard-cast-${renderer}`);
    quiet();
    await close();
  });
}
