/** Numbers about a list of PSNR values; null stands for identical frames, whose PSNR is infinite. */

/** `{mean, worst, frame}`, or null when every frame is identical. */
export function summary(values) {
  const finite = values.filter((value) => value !== null);
  if (!finite.length) return null;
  const worst = Math.min(...finite);
  return { mean: finite.reduce((sum, value) => sum + value, 0) / finite.length, worst, frame: values.indexOf(worst) };
}

/** Points "x,y x,y ..." of the curve in a box; identical frames lie at the top. */
export function curve(values, width, height) {
  const { low, high } = bounds(values);
  const x = (index) => (values.length > 1 ? (index * width) / (values.length - 1) : width / 2);
  const y = (value) => (value === null ? 0 : height * (1 - (value - low) / (high - low)));
  return values.map((value, index) => `${x(index).toFixed(2)},${y(value).toFixed(2)}`).join(" ");
}

/** Lowest and highest value of the axis, never equal. */
export function bounds(values) {
  const finite = values.filter((value) => value !== null);
  const low = finite.length ? Math.floor(Math.min(...finite)) : 0;
  const high = finite.length ? Math.ceil(Math.max(...finite)) : 1;
  return { low, high: high > low ? high : low + 1 };
}

/** Which of the pairs shows the frame that is nearest to `frame`. */
export function nearestPair(pairs, frame) {
  let best = 0;
  pairs.forEach((pair, index) => {
    if (Math.abs(pair.frame - frame) < Math.abs(pairs[best].frame - frame)) best = index;
  });
  return best;
}
