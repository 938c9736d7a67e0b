/** Small drawn pictures for thumbnails: four shots of one story, and a memory as a grid of tokens. */

export const TILE = [128, 72];
const SKIES = [
  ["#f6d9a8", "#7fa38c"],
  ["#6f8fae", "#33485f"],
  ["#8fb7d9", "#dfe9ee"],
  ["#c9a27b", "#5a4a56"],
];

/** One shot as an SVG, with Mira in her yellow raincoat in each. `blur` makes it a remembered one, `zoom` goes closer. */
export function shot(index, { blur = 0, width = TILE[0], zoom = 1 } = {}) {
  const [w, h] = TILE;
  const [top, low] = SKIES[index];
  const parts = [BACKDROPS[index], index === 2 ? tom(86, 42) : "", mira([44, 40, 40, 52][index], 42)];
  if (index === 3) parts.push(tom(80, 42));
  const soft = blur ? ` style="filter:blur(${blur}px) saturate(.85)"` : "";
  return `<svg class="shot" width="${width}" height="${(width * h) / w}" viewBox="${(w - w / zoom) / 2} ${h - h / zoom} ${w / zoom} ${h / zoom}"${soft}>
    <defs><linearGradient id="sky${index}" x2="0" y2="1"><stop stop-color="${top}"/><stop offset="1" stop-color="${low}"/>
    </linearGradient></defs><rect width="${w}" height="${h}" fill="url(#sky${index})"/>${parts.join("")}</svg>`;
}

const BACKDROPS = [
  `<g fill="#3f6b57"><rect y="56" width="128" height="16"/></g><g fill="#8fb8a0" opacity=".7">
   ${grid(8, 3, 16, 9, (x, y) => `<rect x="${x + 1}" y="${y + 22}" width="14" height="7"/>`)}</g>
   <rect x="78" y="10" width="34" height="24" fill="#ffeec2" stroke="#6b4b35" stroke-width="3"/>
   <path d="M78 56h32v-4h-32z" fill="#444"/><path d="M86 52q8-16 16 0z" fill="#b5673a"/>`,
  `<path d="M0 46h128v26H0z" fill="#2c3e50"/><path d="M0 72 44 46h20l24 26z" fill="#8a6f55"/>
   <path d="M100 46V16h10v30z" fill="#eee"/><path d="M100 24h10v6h-10zM100 36h10v6h-10z" fill="#c0392b"/>
   <circle cx="105" cy="13" r="5" fill="#ffe08a"/>
   <g stroke="#cfe2f2" stroke-width=".8" opacity=".8">${rain()}</g>`,
  `<path d="M56 72V0h72v72z" fill="#e9e4da"/><path d="M70 72V20h34v52z" fill="#b03a2e"/>
   <circle cx="76" cy="48" r="2" fill="#f1c40f"/><path d="M0 60q28-8 56 0v12H0z" fill="#5b8266"/>`,
  `<path d="M0 54h128v18H0z" fill="#4a3a34"/><rect x="10" y="10" width="26" height="26" fill="#3f5266" stroke="#6b4b35"
   stroke-width="3"/><g stroke="#cfe2f2" stroke-width=".8" opacity=".6">${rain(11, 12, 24, 22)}</g>
   <path d="M40 56h56v4H40z" fill="#8a5a35"/><path d="M64 56v-7h9v7z" fill="#f5f0e6"/>`,
];

function mira(x, y) {
  return `<path d="M${x - 9} ${y + 26}l3-20q6-5 12 0l3 20z" fill="#f2c230"/><circle cx="${x}" cy="${y - 2}" r="7" fill="#f3c9a5"/>
    <path d="M${x - 8} ${y}q-1-12 8-12t8 12q-3-7-8-7t-8 7z" fill="#b5351f"/>`;
}

function tom(x, y) {
  return `<path d="M${x - 10} ${y + 26}l3-20q7-5 14 0l3 20z" fill="#2d4a6b"/><circle cx="${x}" cy="${y - 2}" r="7" fill="#e8b996"/>
    <path d="M${x - 7} ${y}q7 12 14 0v3q-7 12-14 0z" fill="#f4f4f4"/><path d="M${x - 8} ${y - 5}q8-9 16 0z" fill="#2456a4"/>`;
}

function rain(x = 0, y = 0, width = 128, height = 50) {
  const line = (i) => {
    const at = [x + ((i * 37) % width), y + ((i * 23) % (height - 8))];
    return `<path d="M${at[0]} ${at[1]}l-2 7"/>`;
  };
  return Array.from({ length: Math.round((width * height) / 180) }, (_, i) => line(i)).join("");
}

function grid(columns, rows, dx, dy, draw) {
  return Array.from({ length: columns * rows }, (_, i) => draw((i % columns) * dx, Math.floor(i / columns) * dy)).join("");
}

/** A memory: a grid of tokens whose colours come from the shots. */
export function memory({ columns = 6, rows = 6, cell = 15 } = {}) {
  const colors = ["#f2c230", "#b5351f", "#7fa38c", "#6f8fae", "#2d4a6b", "#c9a27b", "#8fb7d9", "#3f6b57"];
  const token = (x, y) => {
    const number = Math.imul((x / cell) * 73 + (y / cell) * 151 + 7, 2654435761) >>> 0; // looks random, is always the same
    const color = colors[(number >>> 13) % colors.length];
    return `<rect x="${x + 1}" y="${y + 1}" width="${cell - 2}" height="${cell - 2}" rx="3" fill="${color}"/>`;
  };
  const [w, h] = [columns * cell, rows * cell];
  return `<svg class="memory" width="${w}" height="${h}" viewBox="0 0 ${w} ${h}">${grid(columns, rows, cell, cell, token)}</svg>`;
}

/** A falling loss curve. */
export function curve(color, width = 230, height = 120) {
  const at = (i) => `${(i * width) / 40} ${12 + (height - 30) * (1 - Math.exp(-i / 9)) + 7 * Math.sin(i * 2.4) * Math.exp(-i / 25)}`;
  const points = Array.from({ length: 41 }, (_, i) => at(i)).join(" L");
  return `<svg width="${width}" height="${height}"><path d="M1 0V${height - 1}H${width}" stroke="#667" fill="none"/>
    <path d="M${points}" stroke="${color}" stroke-width="3" fill="none"/></svg>`;
}
