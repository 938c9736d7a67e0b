/** Where the server's preview clips of a film lie. */

/** Address of a section's clip below ComfyUI's API; `still` asks for its first frame. */
export function clipPath(film, tile, still = false) {
  const path = `/video_memory/film/${encodeURIComponent(film)}/clip/${tile.index}?key=${encodeURIComponent(tile.key)}`;
  return still ? `${path}&still=1` : path;
}

/** Address of what is on disk of a section. */
export function takesPath(film, index) {
  return `${filmPath(film)}/takes/${index}`;
}

export function filmPath(film) {
  return `/video_memory/film/${encodeURIComponent(film)}`;
}
