// What the next chunk will look like, while it is still to be decoded: its latent frames, blurred, at their pace.

const calm = matchMedia("(prefers-reduced-motion: reduce)");

export class Preview {
  constructor(figure) {
    this.figure = figure;
    this.canvas = figure.querySelector("canvas");
    this.seen = -1;
    this.shown = null;
  }

  // `image` holds `count` frames beside each other, which last for `seconds`.
  async show(chunk, image, count, seconds) {
    const strip = new Image();
    strip.src = image;
    await strip.decode();
    if (chunk <= this.seen) return;
    this.shown = { chunk, strip, count, seconds, since: performance.now() };
    Object.assign(this.canvas, { width: strip.width / count, height: strip.height });
    this.figure.hidden = false;
    this.draw(this.shown);
  }

  // The frames of `chunk` are there.
  past(chunk) {
    this.seen = Math.max(this.seen, chunk);
    if (this.shown && this.shown.chunk <= this.seen) this.hide();
  }

  hide() {
    this.shown = null;
    this.figure.hidden = true;
  }

  draw(what) {
    if (this.shown !== what) return;
    const { strip, count, seconds, since } = what, { width, height } = this.canvas;
    const place = Math.min(count - 1, ((performance.now() - since) / 1000 / seconds) * count);
    const pen = this.canvas.getContext("2d"), at = calm.matches ? count - 1 : Math.floor(place);
    pen.globalAlpha = 1;
    pen.drawImage(strip, at * width, 0, width, height, 0, 0, width, height);
    if (at + 1 >= count) return;
    pen.globalAlpha = place - at;
    pen.drawImage(strip, (at + 1) * width, 0, width, height, 0, 0, width, height);
    requestAnimationFrame(() => this.draw(what));
  }
}
