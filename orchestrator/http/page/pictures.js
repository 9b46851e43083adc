// For browsers that play no segments: a chunk's frames as pictures, drawn at the video's rate. The last one holds.

const AHEAD = 4;  // pictures decoded before their turn

export class Pictures {
  media = "jpeg";

  constructor(canvas, fps, on) {
    this.canvas = canvas;
    this.fps = fps;
    this.on = on;
    this.queue = [];
    this.drawn = 0;
    this.time = 0;
    this.running = false;
  }

  // `start`: the number of the first one among the session's frames.
  frames(start, pictures) {
    pictures.forEach((picture, place) => this.queue.push({ number: start + place, picture }));
    if (!this.running) this.run();
  }

  async run() {
    this.running = true;
    this.on.stalled(false);
    let due = performance.now();
    while (this.queue.length && !this.closed) {
      for (const each of this.queue.slice(0, AHEAD)) each.bitmap ??= createImageBitmap(each.picture);
      const { number, bitmap } = this.queue.shift();
      const image = await bitmap;
      await this.until(due);
      this.draw(image);
      this.time = (number + 1) / this.fps;
      // What was late stays late by as much: frames are neither dropped nor hurried.
      due = Math.max(due, performance.now() - 1000 / this.fps) + 1000 / this.fps;
    }
    this.running = false;
    if (!this.ended) this.on.stalled(true);
  }

  until(due) {
    return new Promise((done) => {
      const look = () => (performance.now() >= due - 4 || document.hidden ? done() : requestAnimationFrame(look));
      look();
    });
  }

  draw(image) {
    const { canvas } = this;
    if (canvas.width !== image.width || canvas.height !== image.height)
      Object.assign(canvas, { width: image.width, height: image.height });
    canvas.getContext("2d").drawImage(image, 0, 0);
    image.close();
    this.drawn += 1;
  }

  end() { this.ended = true; this.on.stalled(false); }
  close() { this.closed = true; }
}
