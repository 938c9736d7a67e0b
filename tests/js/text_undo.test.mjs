import assert from "node:assert/strict";
import { test } from "node:test";

import { TextUndo } from "../../js/storyboard/text_undo.mjs";

/** A text field as far as undo needs it, with its caret at the end. */
class Field extends EventTarget {
  value = "";
  get selectionStart() {
    return this.value.length;
  }
  input(value, inputType) {
    this.dispatchEvent(new Event("beforeinput"));
    this.value = value;
    this.dispatchEvent(Object.assign(new Event("input"), { inputType }));
  }
  type(text) {
    for (const letter of text) this.input(this.value + letter, "insertText");
  }
  erase(count) {
    for (; count > 0; count -= 1) this.input(this.value.slice(0, -1), "deleteContentBackward");
  }
  press(key, shiftKey = false) {
    const event = Object.assign(new Event("keydown", { cancelable: true }), { key, shiftKey, ctrlKey: true, metaKey: false, altKey: false });
    this.dispatchEvent(event);
    return event.defaultPrevented;
  }
}

test("undo takes back a word, redo brings it again, and what is deleted or pasted is a step of its own", () => {
  const field = new Field();
  let told = 0;
  new TextUndo(field, () => (told += 1));
  field.type("a red door zzz");
  field.press("z");
  assert.equal(field.value, "a red door ");
  field.press("z");
  assert.equal(field.value, "a red ");
  field.press("z", true);
  assert.equal(field.value, "a red door ");
  field.press("y");
  assert.equal(field.value, "a red door zzz");
  assert.equal(told, 4);
  field.erase(4);
  field.input(`${field.value} and a pasted text`, "insertFromPaste");
  field.press("z");
  assert.equal(field.value, "a red door");
  field.press("z");
  assert.equal(field.value, "a red door zzz");
  for (let i = 0; i < 9; i += 1) assert.ok(field.press("z"), "ComfyUI's undo is not meant while one writes");
  assert.equal(field.value, "");
});

test("a text that was set from elsewhere is not mixed with what was typed before", () => {
  const field = new Field();
  new TextUndo(field, () => {});
  field.type("shot one");
  field.value = "shot two";
  field.press("z");
  assert.equal(field.value, "shot two");
  field.type(" more");
  field.press("z");
  field.press("z");
  field.press("z");
  assert.equal(field.value, "shot two");
});
