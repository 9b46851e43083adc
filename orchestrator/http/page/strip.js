// Each chunk's stages as bars over the last seconds: where they lie above one another, they ran at the same time.

const SPAN = 20;
const LANES = ["denoise", "decode", "write"];

export class Strip {
  constructor(canvas) {
    this.canvas = canvas;
    this.bars = [];
    this.shift = 0;
    const draw = () => { this.draw(); requestAnimationFrame(draw); };
    requestAnimationFrame(draw);
  }

  add(lane, chunk, started, ended, at) {
    this.shift = Date.now() / 1000 - at;  // the server's clock is not ours
    this.bars.push({ lane: LANES.indexOf(lane), chunk, started, ended });
    if (this.bars.length > 300) this.bars.splice(0, 100);
  }

  draw() {
    const { canvas } = this, ratio = devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width) return;
    if (canvas.width !== Math.round(width * ratio)) { canvas.width = width * ratio; canvas.height = height * ratio; }
    const pen = canvas.getContext("2d"), style = getComputedStyle(canvas);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = "10px system-ui";
    const now = Date.now() / 1000 - this.shift, row = height / LANES.length;
    for (const bar of this.bars) {
      const left = width * (1 - (now - bar.started) / SPAN), right = width * (1 - (now - bar.ended) / SPAN);
      if (right < 0) continue;
      pen.fillStyle = style.getPropertyValue(`--${LANES[bar.lane]}`);
      pen.fillRect(left, bar.lane * row + 5, Math.max(2, right - left - 1), row - 10);
      if (right - left > 14) { pen.fillStyle = "#08111f"; pen.fillText(bar.chunk, left + 4, bar.lane * row + row / 2 + 3); }
    }
  }
}
