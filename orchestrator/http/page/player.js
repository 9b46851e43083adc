// Plays segments as they come. Between two the last frame holds, and play goes on by itself: nothing seeks.

const KEPT_SECONDS = 60;

export class Player {
  constructor(video) {
    this.video = video;
    this.queue = [];
    const Source = window.ManagedMediaSource ?? window.MediaSource;
    this.works = Boolean(Source);
    if (!this.works) return;
    this.source = new Source();
    video.disableRemotePlayback = true;
    video.src = URL.createObjectURL(this.source);
    this.ready = new Promise((done) => this.source.addEventListener("sourceopen", done, { once: true }));
  }

  async init(codec, bytes) {
    await this.ready;
    if (!this.buffer) {
      const type = `video/mp4; codecs="${codec}"`;
      this.buffer = this.source.addSourceBuffer(type);
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
    if (!buffer || buffer.updating) return;
    if (buffer.buffered.length && !this.begun) {
      this.begun = true;
      if (video.currentTime < buffer.buffered.start(0)) video.currentTime = buffer.buffered.start(0);
      video.play().catch(() => {});
    }
    if (buffer.buffered.length && video.currentTime - buffer.buffered.start(0) > 2 * KEPT_SECONDS) {
      buffer.remove(0, video.currentTime - KEPT_SECONDS);
      return;
    }
    if (!this.queue.length) {
      if (this.ended && this.source.readyState === "open") this.source.endOfStream();
      return;
    }
    buffer.appendBuffer(this.queue.shift());
  }

  end() {
    this.ended = true;
    this.pump();
  }
}
