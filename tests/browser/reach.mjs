/** What a screen reader is told of an element's controls, and which of them the keyboard reaches. */

const NAMED = /^\s*- (button|textbox|searchbox|combobox|slider|spinbutton|checkbox|option|listbox|grid|toolbar|alertdialog)\b(?! ")/;

/** Controls without a name, as lines of the accessibility tree. */
export async function unnamed(root) {
  return (await root.ariaSnapshot()).split("\n").filter((line) => NAMED.test(line));
}

/** Names of controls that can be used and that Tab does not come to or, with `arrows`, neither Tab nor arrow keys. The focus stays where it was. */
export async function unreached(root, arrows = false) {
  const page = root.page();
  const count = await root.evaluate((element) => {
    const usable = (one) => one.checkVisibility({ visibilityProperty: true }) && !one.disabled && one.getBoundingClientRect().width > 0;
    const some = (one, _, list) => {
      const beside = list.filter((other) => other.parentElement === one.parentElement);
      return one.tabIndex >= 0 || beside.indexOf(one) < 5 || one === beside.at(-1); // of forty sections the first ones and the last
    };
    const all = [...element.querySelectorAll("button, input, select, textarea, summary, tr[aria-selected]")].filter(usable).filter(some);
    // What stands beside the focus and takes Tab is one Tab away.
    const note = ({ target }) => window.walk.all.filter((one) => one === target || (one.tabIndex >= 0 && one.parentElement === target.parentElement)).forEach((one) => window.walk.reached.add(one));
    window.walk = { all, reached: new Set(), before: document.activeElement, note };
    document.addEventListener("focusin", note, true);
    const first = all.find((one) => one.tabIndex >= 0);
    first?.blur();
    first?.focus();
    return all.filter((one) => one.tabIndex >= 0).length;
  });
  for (let press = 0; press < count + 3; press += 1) await page.keyboard.press("Tab"); // three more: what has the focus and is no control
  const left = () => page.evaluate((all) => window.walk.all.filter((one) => !window.walk.reached.has(one) && (all || one.tabIndex >= 0)).map((one) => `${one.tagName} ${one.ariaLabel ?? one.textContent}`.slice(0, 60)), arrows);
  for (let turn = 0; arrows && turn < 4 && (await left()).length; turn += 1) {
    // From a control that Tab came to, through those of its group.
    const others = await page.evaluate(() => {
      const { all, reached } = window.walk;
      const group = all.find((one) => !reached.has(one)).closest("[role=listbox], [role=grid], [role=group]");
      const inside = all.filter((one) => group?.contains(one));
      inside.find((one) => reached.has(one))?.focus();
      return inside.length;
    });
    const way = (await page.evaluate(() => document.activeElement.tagName)) === "TR" ? "ArrowDown" : "ArrowRight";
    await page.keyboard.press("Home");
    for (let press = 0; press < others; press += 1) await page.keyboard.press(way);
    await page.keyboard.press("End");
  }
  const found = await left();
  await page.evaluate(() => {
    document.removeEventListener("focusin", window.walk.note, true);
    window.walk.before?.focus({ preventScroll: true });
    delete window.walk;
  });
  return found;
}
