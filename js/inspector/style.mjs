/** Look of the memory inspector; colours are ComfyUI's, so that all its themes work. */

export const STYLE = `
.vm-inspect { --vm-accent: var(--p-primary-color, #3b82f6); display: flex; flex-direction: column; gap: 8px;
  box-sizing: border-box; width: 100%; height: 100%; padding: 8px; overflow: hidden; border-radius: 8px;
  border: 1px solid var(--border-color); background: var(--comfy-menu-bg); color: var(--input-text);
  font: 13px/1.35 system-ui, sans-serif; }
.vm-inspect * { box-sizing: border-box; }
.vm-inspect [hidden] { display: none !important; }
.vm-inspect :focus-visible { outline: 2px solid var(--vm-accent); outline-offset: 1px; }
.vm-inspect-scrubber { display: flex; flex-direction: column; gap: 6px; flex: 1; min-height: 0; }
.vm-inspect-pair { position: relative; display: grid; grid-template-columns: 1fr 1fr; gap: 6px; flex: 1;
  min-height: 120px; }
.vm-inspect-pair figure { position: relative; margin: 0; min-height: 0; min-width: 0; border-radius: 6px;
  overflow: hidden; background: #000; }
.vm-inspect-pair img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain; }
.vm-inspect-pair figcaption { position: absolute; left: 5px; top: 5px; padding: 0 6px; border-radius: 4px;
  background: #000a; color: #fff; font-size: 12px; }
.vm-inspect-gone { position: absolute; inset: 0; display: grid; place-content: center; padding: 12px;
  text-align: center; background: #000c; color: #fff; border-radius: 6px; }
.vm-inspect-row { display: flex; align-items: center; gap: 8px; flex: none; }
.vm-inspect-text { flex: 1; min-width: 0; overflow: hidden; white-space: nowrap; text-overflow: ellipsis;
  font-variant-numeric: tabular-nums; }
.vm-inspect-scrubber > .vm-inspect-text, .vm-inspect-memory > .vm-inspect-text { flex: none; }
.vm-inspect-memory > .vm-inspect-text { white-space: normal; display: -webkit-box; -webkit-line-clamp: 2;
  -webkit-box-orient: vertical; }
.vm-inspect-dim { color: color-mix(in srgb, var(--descrip-text, #999) 55%, var(--input-text, #ddd)); }
.vm-inspect input[type="range"] { width: 100%; margin: 0; flex: none; accent-color: var(--vm-accent); }
.vm-inspect-button { font: inherit; color: var(--input-text); cursor: pointer; padding: 2px 9px;
  border: 1px solid var(--border-color); border-radius: 6px; background: var(--comfy-input-bg); white-space: nowrap; }
.vm-inspect-button:hover:not(:disabled) { border-color: var(--vm-accent); }
.vm-inspect-plot { display: flex; gap: 4px; flex: none; height: 48px; }
.vm-inspect-plot svg { flex: 1; min-width: 0; height: 100%; color: var(--vm-accent); cursor: ew-resize;
  background: var(--comfy-input-bg); border-radius: 4px; touch-action: none; }
.vm-inspect-mark { stroke: var(--input-text); opacity: 0.7; }
.vm-inspect-axis { display: flex; flex-direction: column; justify-content: space-between; text-align: right;
  font-size: 12px; line-height: 1; color: color-mix(in srgb, var(--descrip-text, #999) 55%, var(--input-text, #ddd)); min-width: 32px; padding: 1px 0; }
.vm-inspect-empty { flex: 1; display: grid; place-content: center; text-align: center; min-height: 60px; padding: 8px;
  border: 1px dashed var(--border-color); border-radius: 6px; color: color-mix(in srgb, var(--descrip-text, #999) 55%, var(--input-text, #ddd)); }
.vm-inspect-memory { display: flex; flex-direction: column; gap: 4px; flex: none; }
.vm-inspect-timeline { position: relative; height: 34px; border-radius: 6px; overflow: hidden; cursor: crosshair;
  background: var(--comfy-input-bg); touch-action: none; user-select: none; }
.vm-inspect-section { position: absolute; top: 0; bottom: 0; padding: 2px 5px; font-size: 12px; overflow: hidden;
  white-space: nowrap; text-overflow: ellipsis; border-right: 1px solid var(--border-color); color: color-mix(in srgb, var(--descrip-text, #999) 55%, var(--input-text, #ddd)); }
.vm-inspect-chosen { position: absolute; inset: 0; pointer-events: none; }
.vm-inspect-range { position: absolute; top: 0; bottom: 0; min-width: 3px; border: 1.5px solid var(--vm-accent);
  border-radius: 4px; background: color-mix(in srgb, var(--vm-accent) 30%, transparent); }
`;

/** Heights in pixels: of the pictures with their slider and curve, and of the memory's timeline above them. */
export const SCRUBBER_HEIGHT = 300;
export const TIMELINE_HEIGHT = 80;
