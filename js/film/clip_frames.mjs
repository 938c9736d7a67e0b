/** The frames of one animated preview, any of them when it is asked for. */

export class ClipFrames {
  /** `blob`: a promise of the clip. `changed()` is called when a frame that was asked for can be drawn. */
  constructor(blob, changed) {
    this.changed = changed;
    this.count = 1;
    this.ready = false; // or given up, so that a film goes on without a clip that cannot be read
    this.drawn = -1;
    this.open(blob).catch(() => {
      this.ready = true;
      this.changed();
    });
  }

  async open(blob) {
    const data = await blob;
    if (typeof ImageDecoder === "undefined") {
      this.still = await createImageBitmap(data); // an older browser shows one frame of each section
    } else {
      this.decoder = new ImageDecoder({ data: await data.arrayBuffer(), type: data.type || "image/webp" });
      await this.decoder.tracks.ready;
      await this.decoder.completed;
      this.count = Math.max(1, this.decoder.tracks.selectedTrack.frameCount);
    }
    this.ready = true;
    if (!this.closed) this.changed();
  }

  /** Draws a frame onto a canvas, as soon as it is decoded; the newest that was asked for counts. */
  async draw(canvas, frame) {
    this.asked = frame;
    if (!this.ready || this.busy || (this.drawn === frame && canvas.vmClip === this)) return;
    this.busy = true;
    try {
      const image = this.still ?? (await this.decoder?.decode({ frameIndex: frame }))?.image;
      if (image && !this.closed) paint(canvas, image);
      if (image !== this.still) image?.close();
      this.drawn = frame;
      canvas.vmClip = this;
    } catch {
      this.drawn = frame; // a frame that cannot be read is left out
    } finally {
      this.busy = false;
    }
    if (this.asked !== frame && !this.closed) this.draw(canvas, this.asked);
  }

  close() {
    this.closed = true;
    this.decoder?.close();
    this.still?.close();
  }
}

function paint(canvas, image) {
  const [width, height] = [image.displayWidth ?? image.width, image.displayHeight ?? image.height];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  canvas.getContext("2d").drawImage(image, 0, 0, width, height);
}
