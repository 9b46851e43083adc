// The page: begin a world, walk through it, keep it. The address's hash names the session, so a reload goes on.

import * as api from "./api.js";
import { Begin } from "./begin.js";
import { CAPS, Controls } from "./controls.js";
import { Pictures } from "./pictures.js";
import { Player, plays } from "./player.js";
import { Preview } from "./preview.js";
import { Strip } from "./strip.js";

const AHEAD = 2;
const H264 = "avc1.64001f";
const WALK = matchMedia("(pointer: coarse)").matches
  ? "Hold a button to walk or to look around."
  : "Walk with W A S D, look around with the arrow keys.";
const MADE = {
  tiled: "It is being made.",
  forward: "It is being made, from its beginning on.",
  inverted: "It is being made from its end back to the picture; it plays when its beginning is there.",
};
const $ = (id) => document.getElementById(id);
const sent = new Map();
const denoised = new Map();
let session = null, stream = null, player = null, asked = 0, shown = 0, sending = false;
const strip = new Strip($("strip"));
const preview = new Preview($("preview"));
const controls = new Controls(() => press(), () => session !== null);
new Begin(enter, failed);

function say(text) { $("status").textContent = text; }

function failed(error) {
  if (error.status === 401) {
    $("tokenfield").hidden = false;
    $("token").focus();
  }
  const place = error.position ? ` You would be number ${error.position}.` : "";
  $("error").textContent = error.message + place;
  $("error").hidden = false;
}

// Nothing is wrong any more: how things stand shows again.
function fine() { $("error").hidden = true; state(session); }

const seconds = (value) => `${value.toFixed(2)} s`;

function enter(found) {
  session = found;
  asked = found.chunks.asked;
  shown = found.chunks.shown;
  location.hash = found.id;
  controls.limit(found.speeds);
  for (const pad of document.querySelectorAll(".pad, .speeds")) pad.hidden = !found.played;
  $("finish").hidden = !found.played;
  $("previewname").textContent = found.layout === "inverted" ? "preview of the end, not final" : "preview";
  $("begin").hidden = true;
  $("stage").hidden = false;
  $("screen").style.setProperty("--ratio", found.width / found.height);
  $("screen").focus({ preventScroll: true });
  watch(found.played && found.status !== "committed" ? Math.max(0, shown - AHEAD) : 0, plays(H264));
  fine();
  numbers();
}

// Show the world from chunk `from` on, as video where the browser can, else picture by picture.
function watch(from, video) {
  stream?.close();
  player?.close();
  $("video").hidden = !video;
  $("frames").hidden = video;
  const on = { stalled, broken: () => watch(session.played ? Math.max(0, shown - 1) : 0, false) };
  player = video ? new Player($("video"), on) : new Pictures($("frames"), session.fps, on);
  stream = new api.Stream(session.id, from, player.media, {
    event: heard,
    link,
    init: (codec, bytes) => player.init(codec, bytes),
    complete: () => { player.end(); shown = session.status === "committed" ? asked : shown; numbers(); },
    segment: (chunk, bytes) => { player.append(bytes); arrived(chunk); },
    frames: (chunk, start, pictures) => { player.frames(start, pictures); arrived(chunk); },
  });
}

function stalled(yes) { $("screen").classList.toggle("waiting", yes); }

function arrived(chunk) {
  shown = Math.max(shown, chunk + 1);
  preview.past(session.layout === "inverted" ? asked : chunk);  // its beginning comes last, and all else is there
  if (sent.has(chunk)) {
    $("n-latency").textContent = seconds((performance.now() - sent.get(chunk).since) / 1000);
    sent.delete(chunk);
  }
  numbers();
  press();
}

function link(up) {
  $("link").textContent = up ? "live" : "reconnecting";
  $("link").classList.toggle("off", !up);
  if (up) { fine(); press(); }
  else say("The service does not answer; trying again.");
}

// How the session is; `found` may be all of that, or what has changed.
function state(found) {
  session = { ...session, ...found };
  asked = Math.max(asked, session.chunks.asked);
  const { status, position, error } = session;
  if (status === "queued") say(position ? `In the queue: number ${position}.` : "In the queue.");
  else if (status === "resting") say("Resting. The next key wakes it up.");
  else if (status === "committed") finished();
  else if (status === "cancelled") over("Called off.");
  else if (status === "failed") {
    over("It is over.");
    failed(new Error(`${error.reason} ${error.remedy}`));
  } else say(session.open ? WALK : session.played ? "Being finished." : MADE[session.layout]);
  $("finish").disabled = !session.open;
}

function heard(event) {
  const took = event.ended - event.started;
  switch (event.type) {
    case "state":
      state(event.session);
      if (session.chunks.shown) veil("", 0);
      press();
      break;
    case "queued": case "running": case "resting": case "committed": case "cancelled": case "failed":
      state({ status: event.type, position: event.position, error: event });
      break;
    case "error": state({ status: "failed", error: { reason: event.error.message, remedy: event.error.remedy } }); break;
    case "denoising":
      veil(`Chunk ${event.chunk + 1}: step ${event.step} of ${event.steps}`, event.step / event.steps);
      break;
    case "denoised":
      veil(`Chunk ${event.chunk + 1}: decoding`, 1);
      strip.add("denoise", event.chunk, event.started, event.ended, event.at);
      denoised.set(event.chunk, event.ended);
      $("n-denoise").textContent = seconds(took);
      break;
    case "preview":
      $("n-preview").textContent = seconds(event.at - (denoised.get(event.chunk) ?? event.at));
      preview.show(event.chunk, event.image, event.frames, session.chunk_frames / session.fps);
      break;
    case "decoded":
      veil("", 0);
      strip.add("decode", event.chunk, event.started, event.ended, event.at);
      $("n-decode").textContent = seconds(took);
      break;
    case "stored": strip.add("write", event.chunk, event.started, event.ended, event.at); break;
    case "expiring": say(`Nothing to do: the lanes go to others in ${Math.round(event.seconds)} s. Any key keeps them.`); break;
    case "draining": say("The service restarts; it will go on by itself."); break;
  }
}

function veil(text, share) {
  $("veil").classList.toggle("busy", Boolean(text));
  $("veiltext").textContent = text;
  $("steps").value = share;
  $("steps").hidden = !text;
}

// Nothing more comes.
function over(text) {
  session.open = false;
  controls.rest();
  $("link").textContent = "ended";
  preview.hide();
  veil("", 0);
  sent.clear();
  numbers();
  say(text);
  $("finish").hidden = true;
}

function finished() {
  over("Done. It is yours to keep.");
  $("download").href = `/v1/sessions/${session.id}/video.mp4`;
  $("download").download = `framelane-${session.id}.mp4`;
  $("download").hidden = false;
}

function numbers() {
  $("n-chunks").textContent = shown;
  $("n-ahead").textContent = Math.max(0, asked - shown);
  const waiting = [...sent].filter(([chunk]) => chunk >= shown).map(([, { keys }]) => keys);
  $("queue").replaceChildren(...waiting.map((keys) => {
    const group = document.createElement("span");
    group.append(...keys.map(({ action }) => Object.assign(document.createElement("kbd"), { textContent: CAPS[action] })));
    return group;
  }));
}

// What is held becomes the next chunk's control, as soon as few enough are waiting.
async function press() {
  if (!session?.open || sending || !controls.any || asked - shown >= AHEAD) return;
  sending = true;
  const taken = controls.take(), at = asked;
  sent.set(at, taken);
  try {
    const answer = await api.control(session.id, [{ keys: taken.keys }], at);
    asked = Math.max(asked, answer.chunks.asked);
    fine();
  } catch (error) {
    sent.delete(at);
    await refused(error, taken);
  } finally {
    sending = false;
  }
  numbers();
  press();
}

// A control did not get through: another try where that makes sense, or what is wrong.
async function refused(error, taken) {
  if (error.status === 409) {
    await api.describe(session.id).then(state, failed);
  } else if ([0, 429, 503].includes(error.status)) {
    controls.giveBack(taken);
    if (error.status === 429) failed(error);
    else say("The service does not answer; trying again.");
    await new Promise((done) => setTimeout(done, 1000 * (error.retryAfter ?? 1)));
  } else {
    failed(error);
  }
}

async function share() {
  const address = location.href;
  try {
    if (navigator.share) await navigator.share({ title: "Framelane", text: session.prompt, url: address });
    else {
      await navigator.clipboard.writeText(address);
      say("Its address is copied.");
    }
  } catch (error) {
    if (error.name === "AbortError") return;
    $("address").hidden = false;  // no clipboard here: to be copied by hand
    $("address").value = address;
    $("address").select();
  }
}

async function resume(id) {
  try {
    enter(await api.describe(id));
  } catch (error) {
    if (error.status === 404) {
      history.replaceState(null, "", location.pathname);
      say("That world is not there any more. Begin another.");
    } else if ([0, 503].includes(error.status)) {
      say("The service is not ready; trying again.");
      setTimeout(() => resume(id), 1000 * (error.retryAfter ?? 1));
    } else failed(error);
  }
}

setInterval(() => { if (player) $("clock").textContent = `${player.time.toFixed(1)} s`; }, 100);
$("finish").addEventListener("click", () => api.finish(session.id).then(state, failed));
$("share").addEventListener("click", share);
$("full").addEventListener("click", () => (document.fullscreenElement ? document.exitFullscreen() : $("stage").requestFullscreen()));
$("full").hidden = !document.fullscreenEnabled;
$("again").addEventListener("click", () => { history.replaceState(null, "", location.pathname); location.reload(); });
addEventListener("hashchange", () => { if (location.hash.slice(1) !== session?.id) location.reload(); });
if (location.hash.length > 1) resume(location.hash.slice(1));
