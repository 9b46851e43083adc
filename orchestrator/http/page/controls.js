// What a person asks for: keys and buttons that are held or were tapped, and how fast.

const KEYS = {
  w: "w", a: "a", s: "s", d: "d",
  arrowup: "up_rot", arrowleft: "left_rot", arrowdown: "down_rot", arrowright: "right_rot",
};
export const CAPS = {
  w: "W", a: "A", s: "S", d: "D", up_rot: "↑", left_rot: "←", down_rot: "↓", right_rot: "→",
};
const $ = (id) => document.getElementById(id);
const isTurn = (action) => action.endsWith("_rot");

export class Controls {
  // `pressed` is called when something new is asked for; `active` says whether keys are meant for the world.
  constructor(pressed, active) {
    this.held = new Set();
    this.tapped = new Set();
    this.pressed = pressed;
    this.listen(active);
  }

  // What the next chunk shall do, once, and since when: what is only held is asked for anew with each chunk.
  take() {
    const since = this.tapped.size ? this.since : performance.now();
    const keys = [...new Set([...this.held, ...this.tapped])];
    this.tapped.clear();
    this.show();
    return { since, keys: keys.map((action) => ({ action, speed: Number($(isTurn(action) ? "turn" : "move").value) })) };
  }

  // It could not be sent.
  giveBack({ since, keys }) { this.since = since; for (const { action } of keys) this.tapped.add(action); this.show(); }

  // Nothing more can be asked for.
  rest() {
    this.held.clear();
    this.tapped.clear();
    this.show();
    for (const button of document.querySelectorAll("[data-action]")) button.disabled = true;
  }

  get any() { return this.held.size + this.tapped.size > 0; }

  // The preset's own speeds; a turn of less than half of what is possible could hardly be seen.
  limit(speeds) {
    for (const [kind, id] of [["move", "move"], ["turn", "turn"]]) {
      if (!speeds?.[kind]) continue;
      const { most } = speeds[kind], slider = $(id);
      slider.max = most;
      slider.min = slider.step = most / 60;
      slider.value = kind === "turn" ? Math.max(speeds[kind].default, most / 2) : speeds[kind].default;
    }
    this.name();
  }

  listen(active) {
    addEventListener("keydown", (event) => {
      const action = KEYS[event.key.toLowerCase()];
      const typing = ["INPUT", "TEXTAREA"].includes(event.target.tagName);
      if (!action || !active() || typing || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      if (!event.repeat) this.down(action);
    });
    addEventListener("keyup", (event) => { const action = KEYS[event.key.toLowerCase()]; if (action) this.up(action); });
    addEventListener("blur", () => { this.held.clear(); this.show(); });
    for (const button of document.querySelectorAll("[data-action]")) {
      const { action } = button.dataset;
      button.addEventListener("pointerdown", (event) => { event.preventDefault(); this.down(action); });
      button.addEventListener("contextmenu", (event) => event.preventDefault());
      for (const end of ["pointerup", "pointerleave", "pointercancel"]) button.addEventListener(end, () => this.up(action));
      button.addEventListener("click", (event) => { if (event.detail === 0) { this.down(action); this.up(action); } });
    }
    for (const id of ["move", "turn"]) $(id).addEventListener("input", () => this.name());
  }

  down(action) {
    if (!this.tapped.size) this.since = performance.now();
    this.held.add(action);
    this.tapped.add(action);
    this.show();
    this.pressed();
  }

  up(action) {
    this.held.delete(action);
    this.show();
  }

  show() {
    for (const button of document.querySelectorAll("[data-action]")) {
      button.setAttribute("aria-pressed", this.held.has(button.dataset.action));
      button.classList.toggle("noted", this.tapped.has(button.dataset.action));
    }
  }

  name() {
    $("moveout").textContent = Number($("move").value).toFixed(2);
    $("turnout").textContent = `${Number($("turn").value).toFixed(1)}°`;
  }
}
