/** Contrast of all words in an element, as the browser draws them, by the WCAG's formula. Runs in the page. */

/**
 * Words with less than `least`:1, as [ratio, class, words]. `base` is the colour below the element where no element is, as on
 * the classic canvas. What is disabled does not count; over pictures the worst of black and white does.
 */
export function lowContrast(root, [base, least]) {
  const context = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  const rgba = (css) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = css;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((value, i) => value * a + below[i] * (1 - a));
  const linear = (value) => (value <= 10.3 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  const light = (colour) => colour.reduce((sum, value, i) => sum + [0.2126, 0.7152, 0.0722][i] * linear(value), 0);
  const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
  const PICTURES = ".vm-film-picture, .vm-picture, .vm-inspect-pair figure, .vm-film-player > .vm-film-caption";

  /** Ratio of a colour to what is below the element's words, which ancestors may fade. */
  const contrast = (element, colour, opacity) => {
    const chain = [];
    for (let at = element; at; at = at.parentElement) chain.unshift(at);
    const start = chain.findLastIndex((one) => rgba(getComputedStyle(one).backgroundColor)[3] > 0.99 && chain.indexOf(one) <= chain.indexOf(root.parentElement));
    const picture = chain.findIndex((one) => one.matches(PICTURES));
    const bases = picture >= 0 ? [[0, 0, 0], [255, 255, 255]] : [over(rgba(base), [0, 0, 0])];
    const from = picture >= 0 ? picture : Math.max(start, chain.indexOf(root.closest("[data-node-id]") ?? root));
    return Math.min(...bases.map((below) => {
      let [back, fade] = [below, opacity];
      for (const one of chain.slice(from)) {
        const style = getComputedStyle(one);
        fade *= Number(style.opacity);
        back = over(rgba(style.backgroundColor), back);
      }
      const [r, g, b, a] = rgba(colour);
      return ratio(over([r, g, b, a * fade], back), back);
    }));
  };

  const found = [];
  const check = (element, words, colour, opacity = 1) => {
    const value = contrast(element, colour, opacity);
    if (value < least) found.push([Number(value.toFixed(2)), element.className, words.trim().slice(0, 40)]);
  };
  for (const element of root.querySelectorAll("*")) {
    if (!element.checkVisibility({ visibilityProperty: true }) || element.closest(":disabled, [aria-disabled=true], svg, option, script, style")) continue;
    const words = [...element.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE).map((node) => node.data).join("");
    if (words.trim() && element.getBoundingClientRect().width > 0) check(element, words, getComputedStyle(element).color);
    if (element.matches("input:not([type=range], [type=file]), textarea, select")) {
      if (element.value) check(element, element.value, getComputedStyle(element).color);
      else if (element.placeholder) {
        const style = getComputedStyle(element, "::placeholder");
        check(element, element.placeholder, style.color, Number(style.opacity));
      }
    }
  }
  return found;
}
