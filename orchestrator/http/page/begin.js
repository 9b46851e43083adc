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
  }

  shelve(found) {
    $("starts").hidden = !found.length;
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
    if (!this.chosen) { this.failed(new Error("Choose a picture first.")); $("image").focus(); return; }
    const form = new FormData();
    form.set("image", this.chosen);
    form.set("prompt", $("prompt").value);
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
