/** Look of the render view; colours are ComfyUI's, so that all its themes work. */

export const STYLE = `
.vm-film { --vm-accent: var(--p-primary-color, #3b82f6); --vm-ok: var(--p-green-500, #22c55e);
  --vm-lock: var(--p-amber-500, #f59e0b); --vm-bad: var(--p-red-500, #ef4444);
  --vm-solid: #2563eb; --vm-quiet: color-mix(in srgb, var(--descrip-text, #999) 55%, var(--input-text, #ddd));
  display: flex; flex-direction: column; gap: 6px; box-sizing: border-box; width: 100%; height: 100%; padding: 7px 8px;
  overflow: hidden; border-radius: 8px; background: var(--comfy-menu-bg); color: var(--input-text);
  border: 1px solid var(--border-color); font: 13px/1.35 system-ui, sans-serif; }
.vm-film * { box-sizing: border-box; }
.vm-film [hidden] { display: none !important; }
.vm-film-head, .vm-film-detail-row, .vm-film-pending { display: flex; align-items: center; gap: 6px; min-width: 0; }
.vm-film-head { flex-wrap: wrap; row-gap: 3px; }
.vm-film-head > .vm-film-status { flex-basis: 100%; }
.vm-film-watching .vm-film-head > .vm-film-status { flex-basis: 0; }
.vm-film-head > :is(.primary, :last-child) { margin-inline-start: auto; }
.vm-film-head > .primary:not([hidden]) + :last-child { margin-inline-start: 0; }
.vm-film-status { flex: 1; min-width: 0; overflow: hidden; white-space: nowrap; text-overflow: ellipsis;
  font-variant-numeric: tabular-nums; }
.vm-film-status b { font-weight: 600; }
.vm-film-dim { color: var(--vm-quiet); }
.vm-film button { font: inherit; color: var(--input-text); cursor: pointer; }
.vm-film .vm-film-button { padding: 3px 9px; border: 1px solid var(--border-color); border-radius: 6px;
  background: var(--comfy-input-bg); white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.vm-film .vm-film-button:hover:not(:disabled) { border-color: var(--vm-accent); }
.vm-film .vm-film-button:disabled { opacity: 0.45; cursor: default; }
.vm-film .vm-film-button.primary { background: var(--vm-solid); border-color: var(--vm-solid); color: #fff; }
.vm-film .vm-film-button[aria-pressed="true"] { border-color: var(--vm-lock);
  background: color-mix(in srgb, var(--vm-lock) 22%, var(--comfy-input-bg)); }
.vm-film :focus-visible { outline: 2px solid var(--vm-accent); outline-offset: 1px; }
.vm-film-bar { height: 3px; border-radius: 2px; background: var(--border-color); overflow: hidden; flex: none; }
.vm-film-bar > div { height: 100%; width: 0; background: var(--vm-accent); transition: width 0.3s; }
.vm-film-strip { display: flex; gap: 6px; overflow-x: auto; overflow-y: hidden; flex: 1; min-height: 0; max-height: 208px;
  padding: 2px 2px 6px; container-type: size; scrollbar-width: thin; scrollbar-color: var(--border-color) transparent; }
.vm-film-tile { position: relative; display: flex; flex-direction: column; flex: none; padding: 0;
  width: clamp(128px, calc(1.6 * (100cqh - 30px)), 272px);
  border: 1px solid var(--border-color); border-radius: 6px; background: var(--comfy-input-bg); overflow: hidden;
  text-align: left; }
.vm-film-tile[aria-selected="true"] { border-color: var(--vm-accent); box-shadow: 0 0 0 1px var(--vm-accent); }
.vm-film-tile[data-state="failed"] { border-color: var(--vm-bad); }
.vm-film-picture { position: relative; width: 100%; flex: 1; min-height: 0; background: #000000a0; display: grid;
  place-items: center; overflow: hidden; }
.vm-film-picture > .vm-film-dim { color: #ddd; }
.vm-film-picture img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain; }
.vm-film-tile:is([data-state="waiting"], [data-state="failed"], [data-state="stopped"], [data-state="stale"], [data-state="again"]) img { opacity: 0.35;
  filter: saturate(0.4); }
.vm-film-number { position: absolute; left: 4px; top: 4px; padding: 0 5px; border-radius: 4px; background: #000a;
  color: #fff; font-weight: 600; font-variant-numeric: tabular-nums; }
.vm-film-lock { position: absolute; right: 4px; top: 4px; width: 18px; height: 18px; padding: 3px; border-radius: 4px;
  background: #000a; color: var(--vm-lock); }
.vm-film-odd { position: absolute; left: 4px; bottom: 4px; width: 18px; height: 18px; padding: 2px; border-radius: 4px;
  background: #000a; color: #ffb020; }
.vm-film-odd-text { padding-inline: 6px; border-radius: 4px; background: color-mix(in srgb, var(--vm-lock) 20%, transparent); }
.vm-film-odd svg { width: 100%; height: 100%; display: block; fill-rule: evenodd; }
.vm-film-lock svg { width: 100%; height: 100%; display: block; }
.vm-film-next { position: absolute; right: 4px; bottom: 4px; padding: 0 5px; border-radius: 4px;
  background: var(--vm-solid); color: #fff; font-size: 12px; }
.vm-film-progress { position: absolute; left: 0; bottom: 0; height: 3px; background: var(--vm-accent); }
.vm-film-text { padding: 3px 6px 4px; min-width: 0; width: 100%; flex: none; }
.vm-film-text > div { overflow: hidden; white-space: nowrap; text-overflow: ellipsis; min-height: 1.35em; }
@container (max-height: 130px) { .vm-film-text > :last-child { display: none; } }
.vm-film-state { display: flex; align-items: center; gap: 5px; font-size: 12px; }
.vm-film-state::before { content: ""; width: 7px; height: 7px; border-radius: 50%; background: var(--descrip-text);
  flex: none; }
:is([data-state="waiting"], [data-state="again"]) .vm-film-state::before { background: transparent; border: 1.5px solid var(--descrip-text); }
[data-state="sampling"] .vm-film-state::before { background: var(--vm-accent); animation: vm-film-pulse 1.2s infinite; }
[data-state="reading"] .vm-film-state::before { background: var(--vm-ok); animation: vm-film-pulse 1.2s infinite; }
:is([data-state="stored"], [data-state="kept"]) .vm-film-state::before { background: var(--vm-ok); }
[data-state="locked"] .vm-film-state::before { background: var(--vm-lock); }
[data-state="failed"] .vm-film-state::before { background: var(--vm-bad); }
@keyframes vm-film-pulse { 50% { opacity: 0.25; } }
.vm-film-detail { display: flex; flex-direction: column; gap: 6px; flex: none; padding-top: 6px;
  border-top: 1px solid var(--border-color); }
.vm-film-words { flex: none; overflow: hidden; white-space: pre; text-overflow: ellipsis; }
.vm-film-asking { order: -1; padding-top: 0; border-top: 0; }
.vm-film-detail-row { gap: 4px; }
.vm-film-detail-row .vm-film-button { flex: none; padding-inline: 7px; }
.vm-film-detail-row:not(.vm-film-ask) { gap: 2px; font-size: 12px; } /* six words, whole */
.vm-film-detail-row:not(.vm-film-ask) .vm-film-button { padding-inline: 4px; }
.vm-film-detail-row .vm-film-button:last-child { flex: initial; min-width: 0; }
.vm-film-ask { min-height: 49px; padding: 3px 5px 3px 8px; border-radius: 6px; background: color-mix(in srgb, var(--vm-lock) 20%, transparent); }
.vm-film-question, .vm-film-pending > .vm-film-status { flex: 1; min-width: 0; max-height: 2.5em; overflow: hidden; line-height: 1.25; white-space: normal; overflow-wrap: anywhere; }
.vm-film-pending { padding: 2px 4px 2px 8px; border-radius: 6px; flex: none; min-height: 36px; font-size: 12px;
  background: color-mix(in srgb, var(--vm-accent) 16%, transparent); }
.vm-film-pending[data-level="none"] { padding-inline: 0; background: none; color: var(--vm-quiet); }
.vm-film-pending[data-level="bad"] { background: color-mix(in srgb, var(--vm-bad) 18%, transparent); }
.vm-film-player { position: relative; flex: 1; min-height: 0; display: flex; flex-direction: column; border-radius: 6px;
  background: #000; color: #fff; overflow: hidden; }
.vm-film-screen { flex: 1; min-height: 0; width: 100%; object-fit: contain; }
.vm-film-pair { display: flex; flex: 1; gap: 4px; min-height: 0; }
.vm-film-side { display: flex; flex: 1; flex-direction: column; min-width: 0; }
.vm-film-side-row { display: flex; gap: 5px; padding: 4px 6px; background: #161616; }
.vm-film-side-row :is(select, .vm-film-button) { height: 24px; color: #fff; background: #2a2a2a; border: 1px solid #555; border-radius: 6px; font: inherit; }
.vm-film-side-row select { flex: 1; min-width: 0; }
.vm-film-side-row .vm-film-button { padding-block: 0; }
.vm-film-caption { position: absolute; left: 0; right: 0; top: 0; padding: 4px 8px; font-size: 12.5px;
  background: #000b; overflow: hidden; white-space: nowrap; text-overflow: ellipsis; }
.vm-film-controls { display: flex; align-items: center; gap: 5px; flex: none; padding: 5px 8px; background: #161616; }
.vm-film-controls .vm-film-button { display: grid; place-items: center; width: 28px; height: 24px; padding: 0; color: #fff;
  background: #2a2a2a; border-color: #555; flex: none; }
.vm-film-controls svg { width: 13px; height: 13px; }
.vm-film-seek { flex: 1; min-width: 60px; accent-color: var(--vm-accent); }
.vm-film-clock { font-variant-numeric: tabular-nums; white-space: nowrap; }
.vm-film-player:fullscreen { border-radius: 0; font-size: 16px; }
.vm-film-player:fullscreen .vm-film-caption { font-size: 18px; }
.vm-film-grid .vm-film-strip { display: grid; grid-template-columns: repeat(auto-fill, minmax(76px, 1fr)); grid-auto-rows: 56px;
  max-height: none; overflow: hidden auto; align-content: start; }
.vm-film-grid .vm-film-tile { width: auto; height: auto; }
.vm-film-grid .vm-film-text { position: absolute; bottom: 0; padding: 0 4px; background: #000b; color: #fff; }
.vm-film-grid :is(.vm-film-text > :last-child, .vm-film-picture > .vm-film-dim) { display: none; }
.vm-film-empty { flex: 1; min-height: 0; border: 1px dashed var(--border-color); border-radius: 6px; display: grid;
  place-content: center; text-align: center; gap: 2px; padding: 8px; }
@media (prefers-reduced-motion: reduce) { .vm-film-state::before { animation: none !important; } }
`;

/** Height of the view in pixels; a larger node gives what is left over to the pictures. */
export const HEIGHT = 280;
