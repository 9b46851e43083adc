// The page: begin a world, walk through it, keep it. The address's hash names the session, so a reload goes on.

import * as api from "./api.js";
import { Player } from "./player.js";
import { Strip } from "./strip.js";

const KEYS = {
  w: "w", a: "a", s: "s", d: "d",
  arrowup: "up_rot", arrowleft: "left_rot", arrowdown: "down_rot", arrowright: "right_rot",
};
const AHEAD = 2;
const $ = (id) => document.getElementById(id);
const held = new Set(), tapped = new Set();
const sent = new Map();
let session = null, stream = null, player = null, asked = 0, shown = 0, sending = false, chosen = null;
const strip = new Strip($("strip"));

function say(text, wrong = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
}

function failed(error) {
  if (error.status === 401) {
    $("tokenfield").hidden = false;
    $("token").focus();
  }
  const place = error.position ? ` You would be number ${error.position}.` : "";
  say(error.message + place, true);
}

function choose(file) {
  if (!file) return;
  chosen = file;
  $("chosen").src = URL.createObjectURL(file);
  $("chosen").hidden = false;
  $("hint").hidden = true;
}

async function begin(event) {
  event.preventDefault();
  if (!chosen) { say("Choose a picture first.", true); $("drop").focus(); return; }
  if ($("token").value) api.remember($("token").value);
  const form = new FormData();
  form.set("image", chosen);
  form.set("prompt", $("prompt").value);
  if ($("seed").value) form.set("seed", $("seed").value);
  $("play").disabled = true;
  try {
    const made = await api.create(form);
    location.hash = made.id;
    enter(made);
  } catch (error) {
    failed(error);
  } finally {
    $("play").disabled = false;
  }
}

function enter(found) {
  session = found;
  asked = found.chunks.asked;
  shown = found.chunks.shown;
  $("begin").hidden = true;
  $("stage").hidden = false;
  $("screen").style.setProperty("--ratio", found.width / found.height);
  player = new Player($("video"));
  if (!player.works) $("video").src = `/v1/sessions/${found.id}/stream.mp4`;
  const done = found.status === "committed";
  const from = done ? 0 : Math.max(0, shown - AHEAD);
  stream = new api.Stream(found.id, from, { event: heard, init, segment, link });
  state(found);
  numbers();
}

const init = (codec, bytes) => { if (player.works) player.init(codec, bytes); };

function segment(chunk, bytes) {
  shown = Math.max(shown, chunk + 1);
  if (player.works) player.append(bytes);
  if (sent.has(chunk)) {
    $("n-latency").textContent = `${((performance.now() - sent.get(chunk)) / 1000).toFixed(2)} s`;
    sent.delete(chunk);
  }
  numbers();
  press();
}

function link(up) {
  if (!up) say("The service does not answer; trying again.", true);
}

function state(found) {
  session = found;
  asked = Math.max(asked, found.chunks.asked);
  if (found.status === "queued") say(found.position ? `In the queue: number ${found.position}.` : "In the queue.");
  else if (found.status === "committed") finished();
  else if (found.error) say(`${found.error.reason} ${found.error.remedy}`, true);
  else say(found.open ? "Walk: W A S D. Turn: arrow keys." : "Being finished.");
}

function heard(event) {
  const seconds = event.ended - event.started;
  switch (event.type) {
    case "state": state(event.session); break;
    case "queued": say(`In the queue: number ${event.position}.`); break;
    case "running": say("Walk: W A S D. Turn: arrow keys."); break;
    case "denoising":
      veil(`Chunk ${event.chunk + 1}: step ${event.step} of ${event.steps}`, event.step / event.steps);
      break;
    case "denoised":
      veil(`Chunk ${event.chunk + 1}: decoding`, 1);
      strip.add("denoise", event.chunk, event.started, event.ended, event.at);
      $("n-denoise").textContent = `${seconds.toFixed(2)} s`;
      break;
    case "decoded":
      veil("", 0);
      strip.add("decode", event.chunk, event.started, event.ended, event.at);
      $("n-decode").textContent = `${seconds.toFixed(2)} s`;
      break;
    case "stored": strip.add("write", event.chunk, event.started, event.ended, event.at); break;
    case "expiring": say(`Nothing to do: the lanes go to others in ${Math.round(event.seconds)} s. Any key keeps them.`); break;
    case "resting": say("Resting. The next key wakes it up."); break;
    case "draining": say("The service restarts; it will go on by itself."); break;
    case "committed": finished(); break;
    case "cancelled": say("Called off."); break;
    case "failed": say(`${event.reason} ${event.remedy}`, true); break;
    case "error": say(event.error.message, true); break;
  }
}

function veil(text, share) {
  $("veil").hidden = !text;
  $("veiltext").textContent = text;
  $("steps").value = share;
}

function finished() {
  if (player.works) player.end();
  veil("", 0);
  say("Done. It is yours to keep.");
  $("finish").disabled = true;
  $("download").href = `/v1/sessions/${session.id}/video.mp4`;
  $("download").hidden = false;
}

function numbers() {
  $("n-chunks").textContent = shown;
  $("n-ahead").textContent = Math.max(0, asked - shown);
}

// What is held becomes the next chunk's control, as soon as few enough are waiting.
async function press() {
  const keys = [...new Set([...held, ...tapped])];
  if (!session?.open || sending || !keys.length || asked - shown >= AHEAD) return;
  sending = true;
  tapped.clear();
  const speed = Number($("speed").value);
  try {
    const at = asked;
    sent.set(at, performance.now());
    const answer = await api.control(session.id, [{ keys: keys.map((action) => ({ action, speed })) }], at);
    asked = answer.chunks.asked;
  } catch (error) {
    if (error.status === 409) asked = (await api.describe(session.id)).chunks.asked;
    else if (error.status === 429) await new Promise((done) => setTimeout(done, 1000 * (error.retryAfter ?? 1)));
    else failed(error);
  } finally {
    sending = false;
  }
  numbers();
  press();
}

function show() {
  for (const button of document.querySelectorAll("[data-action]"))
    button.setAttribute("aria-pressed", held.has(button.dataset.action));
}

function down(action) {
  held.add(action);
  tapped.add(action);
  show();
  press();
}

function up(action) {
  held.delete(action);
  show();
}

addEventListener("keydown", (event) => {
  const action = KEYS[event.key.toLowerCase()];
  const typing = ["INPUT", "TEXTAREA"].includes(event.target.tagName);
  if (!action || !session || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  if (!event.repeat) down(action);
});
addEventListener("keyup", (event) => { if (KEYS[event.key.toLowerCase()]) up(KEYS[event.key.toLowerCase()]); });
addEventListener("blur", () => { held.clear(); show(); });
for (const button of document.querySelectorAll("[data-action]")) {
  button.addEventListener("pointerdown", (event) => { event.preventDefault(); down(button.dataset.action); });
  for (const end of ["pointerup", "pointerleave", "pointercancel"]) button.addEventListener(end, () => up(button.dataset.action));
  button.addEventListener("click", (event) => { if (event.detail === 0) { tapped.add(button.dataset.action); press(); } });
}

$("begin").addEventListener("submit", begin);
$("image").addEventListener("change", (event) => choose(event.target.files[0]));
$("drop").addEventListener("keydown", (event) => { if (["Enter", " "].includes(event.key)) $("image").click(); });
$("drop").addEventListener("dragover", (event) => { event.preventDefault(); $("drop").classList.add("over"); });
$("drop").addEventListener("dragleave", () => $("drop").classList.remove("over"));
$("drop").addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  choose(event.dataTransfer.files[0]);
});
$("speed").addEventListener("input", () => { $("speedout").textContent = $("speed").value; });
$("finish").addEventListener("click", () => api.finish(session.id).then(state, failed));
$("share").addEventListener("click", () => navigator.clipboard.writeText(location.href).then(() => say("Link copied."), failed));
$("again").addEventListener("click", () => { location.hash = ""; location.reload(); });

if (location.hash.length > 1)
  api.describe(location.hash.slice(1)).then(enter, (error) => { if (error.status !== 404) failed(error); });
