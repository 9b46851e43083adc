// The service's API: requests that end in readable errors, and a stream that comes back when it is cut off.

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
  const answer = await fetch(path, options);
  if (answer.status === 204) return null;
  const body = await answer.json().catch(() => ({ error: { message: answer.statusText } }));
  if (!answer.ok) throw new Wrong(answer.status, body.error ?? { message: answer.statusText });
  return body;
}

const post = (path, body) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

export const create = (form) => ask("/v1/sessions", { method: "POST", body: form });
export const describe = (id) => ask(`/v1/sessions/${id}`);
export const finish = (id) => post(`/v1/sessions/${id}/finish`, {});
export const control = (id, actions, at) => post(`/v1/sessions/${id}/controls`, { actions, at });

export function remember(token) {
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `framelane_token=${encodeURIComponent(token)}; Path=/; SameSite=Strict${secure}`;
}

// Everything of a session from chunk `from` on. Handlers: event, init(codec, bytes), segment(chunk, bytes), link(up).
export class Stream {
  constructor(id, from, handlers) {
    this.id = id;
    this.next = from;
    this.after = null;
    this.on = handlers;
    this.over = false;
    this.pause = 500;
    this.open();
  }

  open() {
    const cursor = this.after === null ? "" : `&after=${this.after}`;
    const base = location.href.replace(/^http/, "ws").replace(/\/[^/]*$/, "");
    const socket = new WebSocket(`${base}/v1/sessions/${this.id}/stream?from=${this.next}${cursor}`);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    let announced = null;
    socket.onopen = () => { this.pause = 500; this.on.link(true); };
    socket.onmessage = ({ data }) => {
      if (typeof data !== "string") {
        if (announced.type === "init") this.on.init(announced.codec, data);
        else { this.next = announced.chunk + 1; this.on.segment(announced.chunk, data); }
        return;
      }
      const message = JSON.parse(data);
      if (message.type === "init" || message.type === "segment") { announced = message; return; }
      if (message.seq) this.after = message.seq;
      const status = message.type === "state" ? message.session.status : message.type;
      if (["committed", "failed", "cancelled"].includes(status)) this.over = true;
      this.on.event(message);
    };
    socket.onclose = () => {
      if (this.over || this.closed) return;
      this.on.link(false);
      setTimeout(() => this.open(), this.pause);
      this.pause = Math.min(this.pause * 2, 8000);
    };
  }

  close() { this.closed = true; this.socket.close(); }
}
