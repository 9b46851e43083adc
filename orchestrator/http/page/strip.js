// Each chunk's stages as bars over the last seconds: where they lie above one another, they ran at the same time.

const SPAN = 20, EVERY_MS = 80;
const LANES = ["denoise", "decode", "write"];

export class Strip {
  constructor(canvas) {
    this.canvas = canvas;
    this.bars = [];
    this.shift = 0;
    setInterval(() => { if (!document.hidden) this.draw(); }, EVERY_MS);
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
    if (canvas.width !== Math.round(width * ratio)) Object.assign(canvas, { width: width * ratio, height: height * ratio });
    const pen = canvas.getContext("2d"), style = getComputedStyle(canvas);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const now = Date.now() / 1000 - this.shift, row = height / LANES.length;
    pen.fillStyle = style.getPropertyValue("--line");
    for (let second = Math.ceil(now - SPAN); second < now; second += 1)
      if (second % 5 === 0) pen.fillRect(width * (1 - (now - second) / SPAN), 0, 1, height);
    pen.font = "600 11px system-ui";
    for (const { lane, chunk, started, ended } of this.bars) {
      const left = width * (1 - (now - started) / SPAN), right = width * (1 - (now - ended) / SPAN);
      if (right < 0) continue;
      const wide = Math.max(3, right - left - 1);
      pen.fillStyle = style.getPropertyValue(`--${LANES[lane]}`);
      pen.beginPath();
      pen.roundRect(left, lane * row + 4, wide, row - 8, Math.min(4, wide / 2));
      pen.fill();
      const long = `${chunk + 1} · ${(ended - started).toFixed(1)} s`;
      const text = pen.measureText(long).width < wide - 8 ? long : `${chunk + 1}`;
      if (pen.measureText(text).width > wide - 6) continue;
      pen.fillStyle = "#08111f";
      pen.fillText(text, left + 5, lane * row + row / 2 + 4);
    }
  }
}
