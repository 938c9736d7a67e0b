/**
 * Thumbnails for the template browser: node thumbnails.mjs LIST OUT. They are drawn, so that no model's frames are
 * pretended; those of the first film are what came out of it (tools/workflows/first_film).
 */

import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";

import { openBrowser } from "../../tests/browser/page.mjs";
import { curve, memory, shot } from "./scenes.mjs";

const [listFile, out] = process.argv.slice(2);
const ARROW = '<span class="arrow">→</span>';
const STORY = [0, 1, 2, 3].map((i) => shot(i, { width: 132 })).join("");

/** A section of the first film as it was made. */
function made(index) {
  const data = readFileSync(join(import.meta.dirname, "first_film", `section_${index}.webp`));
  return `<img class="shot" width="128" src="data:image/webp;base64,${data.toString("base64")}">`;
}

/** What stands below the title of each workflow. */
const SCENES = {
  film: () => `<div class="column"><div class="strip">${STORY}</div><div class="row">${memory({ columns: 22, rows: 4, cell: 16 })}</div></div>`,
  first: () => `<div class="column"><div class="strip">${[0, 1, 2, 3].map(made).join("")}</div><div class="row">${memory({ columns: 22, rows: 3, cell: 16 })}</div></div>`,
  two: () => `<div class="column"><div class="strip">${STORY}</div>
    <div class="row">${memory({ columns: 15, rows: 4, cell: 16 })}<b>+</b>${memory({ columns: 11, rows: 6, cell: 11 })}</div></div>`,
  guided: () => `<div class="column"><div class="row near"><div class="strip">${shot(0, { width: 126 })}${shot(0, { width: 126, zoom: 1.35 })}</div>
    <div class="strip">${shot(1, { width: 126 })}${shot(1, { width: 126, zoom: 1.35 })}</div></div><div class="row">${memory({ columns: 20, rows: 4, cell: 16 })}<b class="badge">× 1.5</b></div></div>`,
  cached: () => `<div class="row">${memory({ cell: 18 })}${ARROW}<div class="column near"><div class="store"><b>K</b>${memory({ columns: 8, rows: 3, cell: 13 })}</div>
    <div class="store"><b>V</b>${memory({ columns: 8, rows: 3, cell: 13 })}</div></div>${ARROW}<div class="strip pair">${shot(2, { width: 126 })}</div></div>`,
  branch: () => `<div class="row"><div class="strip pair">${shot(0, { width: 112 })}${shot(1, { width: 112 })}</div><svg width="60" height="150" fill="none" stroke-width="3">
    <path d="M4 75C34 75 26 32 56 32" stroke="#5a6470" stroke-dasharray="5 5"/><path d="M4 75C34 75 26 118 50 118M42 109l10 9-10 9" stroke="#7d8996"/></svg>
    <div class="column near"><div class="strip old">${shot(2, { width: 112 })}</div><div class="strip">${shot(3, { width: 112 })}</div></div></div>`,
  image: () => `<div class="row"><div class="photo">${shot(0, { width: 170 })}</div>${ARROW}<div class="strip pair">${shot(1, { width: 132 })}${shot(2, { width: 132 })}</div></div>`,
  video: () => `<div class="row"><div class="photo play">${shot(1, { width: 170 })}</div>${ARROW}<div class="strip pair">${shot(2, { width: 132 })}${shot(3, { width: 132 })}</div></div>`,
  memory: () => `<div class="row">${memory({ cell: 21 })}${ARROW}<div class="strip pair">${shot(2, { width: 160 })}${shot(3, { width: 160 })}</div></div>`,
  sampler: () => `<div class="row">${memory({ cell: 21 })}${ARROW}<div class="node"><i></i><span>model</span><span>memory</span><u></u></div>${ARROW}${shot(2, { width: 150 })}</div>`,
  check: () => `<div class="column tight"><div class="strip">${[0, 1, 2, 3].map((i) => shot(i, { width: 112 })).join("")}</div><div class="row small">${memory({ columns: 30, rows: 2, cell: 12 })}</div>
    <div class="strip">${[0, 1, 2, 3].map((i) => shot(i, { width: 112, blur: 1.6 })).join("")}</div></div>`,
  pretrain: () => `<div class="row">${shot(0, { width: 150 })}${ARROW}${memory({ cell: 18 })}${ARROW}${curve("#6fb1e8", 170)}</div>`,
  finetune: () => `<div class="row">${memory({ cell: 18 })}${ARROW}${shot(3, { width: 150 })}${ARROW}${curve("#7cc48f", 170)}</div>`,
};

const STYLE = `*{box-sizing:border-box}body{margin:0;width:640px;height:360px;padding:26px 30px;color:#eef1f5;
  background:linear-gradient(140deg,#1d232b,#11151a);font-family:"DejaVu Sans","Liberation Sans",Arial,sans-serif;display:flex;
  flex-direction:column}h1{font-size:35px;margin:0 0 5px;letter-spacing:-.5px}p{font-size:16.5px;margin:0;color:#a9b4c0}
  main{flex:1;display:flex;align-items:center;justify-content:center}.row{display:flex;align-items:center;justify-content:center;gap:18px}
  .column{display:flex;flex-direction:column;gap:20px;align-items:center}.column.tight{gap:9px}.column.near,.row.near{gap:10px}.old{opacity:.3}.badge{color:#f2c230}.store{display:flex;align-items:center;gap:8px}
  .store b{font-size:20px;width:16px}.strip{display:flex;gap:6px;padding:11px 8px;
  border-radius:5px;background:radial-gradient(circle 2.6px at 9px 5px,#5a6470 98%,transparent) 0 0/18px 10px repeat-x,
  radial-gradient(circle 2.6px at 9px 5px,#5a6470 98%,transparent) 0 100%/18px 10px repeat-x,#050607}.shot{border-radius:3px;display:block}
  .photo{background:#f4f1ea;padding:8px 8px 24px;transform:rotate(-4deg);box-shadow:0 6px 16px #0009}.play{background:#000;padding:6px;transform:none;
  position:relative;border-radius:6px}.play::after{content:"";position:absolute;inset:0;margin:auto;width:0;height:0;border:18px solid transparent;
  border-left:28px solid #fffd;border-right:0}.arrow{font-size:34px;color:#7d8996}b{font-size:28px;color:#7d8996}.node{width:120px;height:100px;border-radius:10px;
  background:#353535;padding:34px 14px 0;position:relative;font-size:14px;color:#ccc;display:flex;flex-direction:column;gap:7px}.node i{position:absolute;
  inset:0 0 auto;height:25px;background:#262626;border-radius:10px 10px 0 0}.node u{position:absolute;right:-5px;top:38px;width:10px;height:10px;border-radius:5px;background:#b39ddb}`;

const browser = await openBrowser();
try {
  const page = await browser.newPage({ viewport: { width: 640, height: 360 } });
  for (const { file, label, line, scene } of JSON.parse(await readFile(listFile, "utf8"))) {
    await page.setContent(`<style>${STYLE}</style><h1></h1><p></p><main>${SCENES[scene]()}</main>`);
    await page.locator("h1").evaluate((element, text) => (element.textContent = text), label);
    await page.locator("p").evaluate((element, text) => (element.textContent = text), line);
    await page.screenshot({ path: join(out, `${file}.jpg`), type: "jpeg", quality: 88 });
  }
} finally {
  await browser.close();
}
