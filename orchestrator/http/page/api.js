// The service's API: requests that end in readable errors, and a stream that comes back when it is cut off.

const REFUSED = 4000;  // the service's code for "do not come again"

export class Wrong extends Error {
  constructor(status, error) {
    const where = error.field ? `${error.field}: ` : "";
    super(`${where}${error.message}${error.remedy ? ` (${error.remedy})` : ""}`);
    this.status = status;
    this.retryAfter = error.retry_after;
    this.position = error.position;
  }
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Wrong(0, { message: "The service does not answer", remedy: "it may be restarting; try again" });
  }
  if (answer.status === 204) return null;
  const body = await answer.json().catch(() => ({ error: { message: answer.statusText } }));
  if (!answer.ok) throw new Wrong(answer.status, body.error ?? { message: answer.statusText });
  return body;
}

const post = (path, body) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

export const create = (form) => ask("/v1/sessions", { method: "POST", body: form });
export const describe = (id) => ask(`/v1/sessions/${encodeURIComponent(id)}`);
export const finish = (id) => post(`/v1/sessions/${id}/finish`, {});
export const control = (id, actions, at) => post(`/v1/sessions/${id}/controls`, { actions, at });
export const presets = () => ask("/v1/presets");
export const starts = () => ask("/page/starts.json");

export function remember(token) {
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `framelane_token=${encodeURIComponent(token)}; Path=/; SameSite=Strict${secure}`;
}

function cut(bytes, sizes) {
  let start = 0;
  return sizes.map((size) => new Blob([bytes.slice(start, (start += size))], { type: "image/jpeg" }));
}

// Everything of a session from chunk `from` on, as `media` ("mp4" or "jpeg").
// Handlers: event, init(codec, bytes), segment(chunk, bytes) or frames(chunk, start, pictures), link(up), complete().
// Chunks are counted by their places in time here, and those that settle no frames do not come.
export class Stream {
  constructor(id, from, media, handlers) {
    this.id = id;
    this.next = from;
    this.media = media;
    this.after = null;
    this.on = handlers;
    this.over = false;
    this.pause = 500;
    this.open();
  }

  open() {
    const cursor = this.after === null ? "" : `&after=${this.after}`;
    const base = location.href.replace(/^http/, "ws").replace(/[#?].*$/, "").replace(/\/[^/]*$/, "");
    const socket = new WebSocket(`${base}/v1/sessions/${this.id}/stream?from=${this.next}&media=${this.media}${cursor}`);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    let announced = null;
    socket.onopen = () => { this.pause = 500; this.on.link(true); };
    socket.onmessage = ({ data }) => {
      if (this.closed) return;
      if (typeof data !== "string") { this.take(announced, data); return; }
      const message = JSON.parse(data);
      if (["init", "segment", "frames"].includes(message.type)) { announced = message; return; }
      if (message.seq) this.after = message.seq;
      const status = message.type === "state" ? message.session.status : message.type;
      if (["committed", "failed", "cancelled"].includes(status)) this.over = true;
      this.on.event(message);
    };
    socket.onclose = ({ code }) => {
      if (this.closed) return;
      if (code === REFUSED || (this.over && code === 1000)) { this.on.complete(); return; } // what is over may still have segments to come
      this.on.link(false);
      setTimeout(() => { if (!this.closed) this.open(); }, this.pause);
      this.pause = Math.min(this.pause * 2, 8000);
    };
  }

  take(announced, data) {
    if (announced.type === "init") { this.on.init(announced.codec, data); return; }
    this.next = announced.chunk + 1;
    if (announced.type === "segment") this.on.segment(announced.chunk, data);
    else this.on.frames(announced.chunk, announced.start, cut(data, announced.sizes));
  }

  close() { this.closed = true; this.socket.close(); }
}
