/** Look of the training view; colours are ComfyUI's, so that all its themes work. */

export const STYLE = `
.vm-train { --vm-loss: var(--p-primary-color, #3b82f6); --vm-heldout: var(--p-green-500, #22c55e);
  --vm-without: color-mix(in srgb, var(--p-orange-500, #f97316) 40%, var(--input-text, #ddd));
  --vm-words: color-mix(in srgb, var(--descrip-text, #999) 55%, var(--input-text, #ddd));
  display: flex; flex-direction: column; gap: 8px; box-sizing: border-box; width: 100%; height: 100%; padding: 8px;
  overflow: hidden; border-radius: 8px; border: 1px solid var(--border-color); background: var(--comfy-menu-bg);
  color: var(--input-text); font: 13px/1.35 system-ui, sans-serif; }
.vm-train * { box-sizing: border-box; }
.vm-train [hidden] { display: none !important; }
.vm-train-head { display: flex; gap: 10px; flex: none; flex-wrap: wrap; row-gap: 2px; }
.vm-train-status { flex: 1 1 auto; min-width: 0; max-width: 100%; overflow: hidden; white-space: nowrap; text-overflow: ellipsis;
  font-variant-numeric: tabular-nums; }
.vm-train-legend { display: flex; flex-wrap: wrap; gap: 0 12px; flex: 0 1 auto; color: var(--vm-words); }
.vm-train-key { display: inline-flex; align-items: center; gap: 5px; }
.vm-train-key::before { content: ""; width: 12px; height: 2.5px; border-radius: 2px; background: var(--vm-loss); }
.vm-train-key-heldout::before { background: var(--vm-heldout); }
.vm-train-key:is(.vm-train-key-without, .vm-train-key-nothing)::before { height: 0; border-radius: 0; background: none; border-top: 2px dashed var(--vm-without); }
.vm-train-key-nothing::before { border-top-color: var(--vm-words) !important; }
.vm-train-details { flex: none; max-height: 48px; overflow: hidden; white-space: pre-line; color: var(--vm-words); font-size: 12px;
  font-variant-numeric: tabular-nums; }
.vm-train-curve { flex: 2; min-height: 120px; max-height: 240px; width: 100%; border-radius: 6px; background: var(--comfy-input-bg); }
.vm-train-picture { flex: 3; min-height: 0; width: 100%; padding: 0; border: 0; background: none; cursor: zoom-in; }
.vm-train-picture img { display: block; width: 100%; height: 100%; object-fit: contain; object-position: center top; }
.vm-train-picture:focus-visible { outline: 2px solid var(--vm-loss); outline-offset: 1px; }
.vm-train-picture:fullscreen { background: #000; cursor: zoom-out; }
.vm-train-picture:fullscreen img { object-position: center; }
.vm-train-none { flex: none; text-align: center; color: var(--vm-words); }
`;
