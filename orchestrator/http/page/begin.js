// The form: a picture from a file, from the clipboard or from the shelf, and words for it.

import * as api from "./api.js";

const $ = (id) => document.getElementById(id);

export class Begin {
  // `begun` is called with each new session, `failed` with what went wrong.
  constructor(begun, failed) {
    this.chosen = null;
    this.begun = begun;
    this.failed = failed;
    $("begin").addEventListener("submit", (event) => { event.preventDefault(); this.play(); });
    $("image").addEventListener("change", (event) => this.choose(event.target.files[0]));
    for (const kind of ["dragenter", "dragover", "dragleave", "drop"])
      addEventListener(kind, (event) => {
        event.preventDefault();  // a file that is let go anywhere would be opened instead of the page
        if ($("begin").hidden) return;
        $("drop").classList.toggle("over", kind !== "dragleave" && kind !== "drop");
        if (kind === "drop") this.choose(event.dataTransfer.files[0]);
      });
    addEventListener("paste", (event) => { if (!$("begin").hidden) this.choose(event.clipboardData.files[0]); });
    api.starts().then((found) => this.shelve(found)).catch(() => {});
    this.kinds = [];
    $("preset").addEventListener("change", () => this.ask());
    $("token").addEventListener("change", () => { api.remember($("token").value); this.load(); });
    this.load();
  }

  async load() {
    try {
      this.offer((await api.presets()).presets);
      if (!$("tokenfield").hidden) $("error").hidden = true;
    } catch (error) {
      if (error.status === 401) this.failed(error);  // what is served only those may know who have a token
    }
  }

  // The models that are served; with more than one there is a choice.
  offer(presets) {
    this.kinds = presets;
    $("preset").replaceChildren(...presets.map(({ name }) => new Option(name)));
    $("presetfield").hidden = presets.length < 2;
    this.ask();
  }

  get kind() { return this.kinds.find(({ name }) => name === $("preset").value); }

  get needsPicture() { return !this.kind || !this.kind.starts.includes("none"); }

  // Only what the chosen model takes.
  ask() {
    const { starts, length } = this.kind, pictures = starts.includes("image");
    $("drop").hidden = !pictures;
    $("starts").hidden = !pictures || !$("starts").querySelector("label");
    $("keys").hidden = length.field !== "actions";
    $("lengthfield").hidden = length.field === "actions";
    $("lengthname").textContent = length.field === "frames" ? "Frames" : "Seconds";
    $("length").value = length.default ?? "";
  }

  shelve(found) {
    $("starts").hidden = !found.length || $("drop").hidden;
    for (const { image, prompt } of found) {
      const label = document.createElement("label"), input = document.createElement("input"), picture = new Image();
      Object.assign(input, { type: "radio", name: "start", ariaLabel: prompt });
      Object.assign(picture, { src: image, alt: "" });
      label.title = prompt;
      label.append(input, picture);
      input.addEventListener("change", async () => {
        $("prompt").value = prompt;
        const blob = await (await fetch(image)).blob();
        if (input.checked) this.take(blob);
      });
      $("starts").querySelector(".shelf").append(label);
    }
  }

  choose(file) {
    if (!file) return;
    if (!file.type.startsWith("image/")) { this.failed(new Error("That is not a picture.")); return; }
    for (const each of document.querySelectorAll("[name=start]")) each.checked = false;
    this.take(file);
  }

  take(file) {
    this.chosen = file;
    URL.revokeObjectURL($("chosen").src);
    $("chosen").src = URL.createObjectURL(file);
    $("chosen").hidden = false;
    $("hint").hidden = true;
  }

  async play() {
    if ($("token").value) {
      api.remember($("token").value);
      if (location.hash.length > 1) { location.reload(); return; }  // it was asked for to see that world
    }
    if (this.needsPicture && !this.chosen) { this.failed(new Error("Choose a picture first.")); $("image").focus(); return; }
    const form = new FormData();
    if (this.chosen && !$("drop").hidden) form.set("image", this.chosen);
    form.set("prompt", $("prompt").value);
    if (this.kind) form.set("preset", this.kind.name);
    if (!$("lengthfield").hidden && $("length").value) form.set(this.kind.length.field, $("length").value);
    if ($("seed").value) form.set("seed", $("seed").value);
    $("play").disabled = true;
    try {
      const { id } = await api.create(form);
      this.begun(await api.describe(id));
    } catch (error) {
      this.failed(error);
    } finally {
      $("play").disabled = false;
    }
  }
}
