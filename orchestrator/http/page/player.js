// Plays segments as they come. Between two the last frame holds, and play goes on by itself: nothing seeks.

const KEPT_SECONDS = 60, KEPT_WHEN_FULL = 2;  // more than a chunk
const Source = window.ManagedMediaSource ?? window.MediaSource;

export const plays = (codec) => Boolean(Source?.isTypeSupported(`video/mp4; codecs="${codec}"`));

// Handlers: stalled(yes), broken() where the browser refuses what it is given.
export class Player {
  media = "mp4";

  constructor(video, on) {
    this.video = video;
    this.on = on;
    this.queue = [];
    this.kept = KEPT_SECONDS;
    this.most = 2 * KEPT_SECONDS;
    this.source = new Source();
    video.disableRemotePlayback = true;
    video.src = URL.createObjectURL(this.source);
    this.ready = new Promise((done) => this.source.addEventListener("sourceopen", done, { once: true }));
    video.addEventListener("waiting", () => on.stalled(true));
    video.addEventListener("ended", () => on.stalled(false));
    video.addEventListener("playing", () => on.stalled(false));
    video.addEventListener("error", () => { if (!this.closed) on.broken(); });
  }

  get time() { return this.video.currentTime; }

  async init(codec, bytes) {
    await this.ready;
    if (!this.buffer) {
      try {
        this.buffer = this.source.addSourceBuffer(`video/mp4; codecs="${codec}"`);
      } catch {
        this.on.broken();
        return;
      }
      this.buffer.addEventListener("updateend", () => this.pump());
    }
    this.append(bytes);
  }

  append(bytes) {
    this.queue.push(bytes);
    this.pump();
  }

  pump() {
    const { buffer, video } = this;
    if (!buffer || buffer.updating || this.closed) return;
    if (buffer.buffered.length && !this.begun) {
      this.begun = true;
      if (video.currentTime < buffer.buffered.start(0)) video.currentTime = buffer.buffered.start(0);
      video.play().catch(() => {});
    }
    if (!this.queue.length) {
      if (this.ended && this.source.readyState === "open") this.source.endOfStream();
      return;
    }
    if (buffer.buffered.length && video.currentTime - buffer.buffered.start(0) > this.most) {
      buffer.remove(0, video.currentTime - this.kept);
      return;
    }
    try {
      buffer.appendBuffer(this.queue[0]);
      this.queue.shift();
    } catch (error) {
      if (error.name !== "QuotaExceededError") throw error;
      this.kept = this.most = KEPT_WHEN_FULL;  // what is played makes room
      clearTimeout(this.again);
      this.again = setTimeout(() => this.pump(), 250);
    }
  }

  end() {
    this.ended = true;
    this.pump();
  }

  close() {
    this.closed = true;
    this.video.removeAttribute("src");
  }
}
