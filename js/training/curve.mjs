/** Draws losses on a canvas as large as the node gives it. */

import { extent, levelled, nothingShown, smoothed, ticks } from "./losses.mjs";

const MARGIN = { left: 44, right: 10, top: 8, bottom: 20 };
export const FONT = "11px system-ui, sans-serif";

const DASHES = [5, 4]; // of what a memory is compared with

/**
 * `colours` are `{loss, heldout, without, nothing, grid, text}`. Nothing is drawn while there are no losses. The lines are
 * those of the run's loss.png.
 */
export function drawCurve(canvas, run, colours, ratio = window.devicePixelRatio || 1) {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width || !height) return;
  const [pixelsX, pixelsY] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== pixelsX || canvas.height !== pixelsY) Object.assign(canvas, { width: pixelsX, height: pixelsY });
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const { losses, heldout } = run;
  const ends = extent(run);
  if (!ends) return;
  const inner = { width: width - MARGIN.left - MARGIN.right, height: height - MARGIN.top - MARGIN.bottom };
  const x = (step) => MARGIN.left + (inner.width * (step - ends.first)) / (ends.last - ends.first);
  const y = (value) => MARGIN.top + inner.height * (1 - (value - ends.low) / (ends.high - ends.low));
  drawAxes(context, { ...ends, x, y, width, height }, colours);
  context.save();
  context.beginPath();
  context.rect(MARGIN.left, MARGIN.top - 2, inner.width + 2, inner.height + 4);
  context.clip();
  context.setLineDash(DASHES);
  drawLine(context, levelled(run.withoutMemory, ends), x, y, colours.without, 1.5, 1);
  if (nothingShown(run)) drawLine(context, levelled([[ends.first, run.nothing]], ends), x, y, colours.nothing, 1.5, 1);
  context.setLineDash([]);
  drawLine(context, losses, x, y, colours.loss, 1, 0.35);
  drawLine(context, smoothed(losses), x, y, colours.loss, 2, 1);
  drawLine(context, heldout, x, y, colours.heldout, 2, 1);
  drawDots(context, heldout, x, y, colours.heldout);
  context.restore();
}

function drawAxes(context, { first, last, low, high, x, y, width, height }, colours) {
  context.font = FONT;
  context.lineWidth = 1;
  context.strokeStyle = colours.grid;
  context.fillStyle = colours.text;
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const { value, text } of ticks(low, high, Math.max(3, Math.floor(height / 32)))) {
    context.beginPath();
    context.moveTo(MARGIN.left, Math.round(y(value)) + 0.5);
    context.lineTo(width - MARGIN.right, Math.round(y(value)) + 0.5);
    context.stroke();
    context.fillText(text, MARGIN.left - 6, y(value));
  }
  context.textAlign = "center";
  context.textBaseline = "alphabetic";
  for (const { value } of ticks(first, last, Math.max(2, Math.floor(width / 90)))) {
    // Steps are whole numbers; the last label must not be cut off.
    if (Number.isInteger(value)) context.fillText(String(value), Math.min(x(value), width - 16), height - 5);
  }
}

function drawLine(context, points, x, y, colour, width, alpha) {
  if (points.length < 2) return;
  context.globalAlpha = alpha;
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.lineJoin = "round";
  context.beginPath();
  points.forEach(([step, value], index) => (index ? context.lineTo(x(step), y(value)) : context.moveTo(x(step), y(value))));
  context.stroke();
  context.globalAlpha = 1;
}

function drawDots(context, points, x, y, colour) {
  if (points.length > 40) return;
  context.fillStyle = colour;
  for (const [step, value] of points) {
    context.beginPath();
    context.arc(x(step), y(value), 2.5, 0, 2 * Math.PI);
    context.fill();
  }
}
