"""What a person does on the page: choose a picture, begin, hold keys; and what there is to see."""

from __future__ import annotations

import base64

from tests.fakes.studio import picture
from tests.ray.runs import ROOT
from tests.servers.browser import Page

ARTIFACTS = ROOT / "tests" / "artifacts"

CHOOSE = """(() => {{
  const bytes = Uint8Array.from(atob("{data}"), (letter) => letter.charCodeAt(0));
  const files = new DataTransfer();
  files.items.add(new File([bytes], "start", {{ type: "{kind}" }}));
  document.getElementById("image").files = files.files;
  document.getElementById("image").dispatchEvent(new Event("change"));
}})()"""

#: Stalls and seeks of the player from here on: each stall's seconds and the media time at which it was.
WATCH = """(() => {
  const video = document.getElementById("video");
  window.stalls = []; window.seeks = 0;
  let since = null;
  video.addEventListener("waiting", () => { since = performance.now(); });
  video.addEventListener("playing", () => {
    if (since) window.stalls.push([(performance.now() - since) / 1000, video.currentTime]);
    since = null;
  });
  video.addEventListener("seeking", () => { window.seeks += 1; });
})()"""

#: The stages whose bars are on the strip, by their colours.
PAINTED = """(() => {
  const strip = document.getElementById("strip"), style = getComputedStyle(strip);
  const { data } = strip.getContext("2d").getImageData(0, 0, strip.width, strip.height);
  const seen = new Set(), pixels = new DataView(data.buffer);
  for (let at = 0; at < data.length; at += 4) seen.add(pixels.getUint32(at).toString(16).padStart(8, "0"));
  const colour = (stage) => style.getPropertyValue(`--${stage}`).slice(-6) + "ff";
  return ["denoise", "decode", "write"].filter((stage) => seen.has(colour(stage)));
})()"""

SHOWN = "Number(document.getElementById('n-chunks').textContent)"
TIME = "document.getElementById('video').currentTime"
CHUNK_S = 1.32


def choose(page: Page, data: bytes | None = None, kind: str = "image/png") -> None:
    page.run(CHOOSE.format(data=base64.b64encode(picture() if data is None else data).decode(), kind=kind))


def begin(page: Page, data: bytes | None = None) -> None:
    choose(page, data)
    page.run("document.getElementById('play').click()")
    page.until("!document.getElementById('stage').hidden")
    page.run(WATCH)


def walk(page: Page, chunks: int, seconds: float = 60.0) -> None:
    """Hold a key until so many chunks can be seen."""
    page.press("w")
    page.until(f"{SHOWN} >= {chunks}", seconds)
    page.press("w", up=True)


def text(page: Page, element: str) -> str:
    return str(page.run(f"document.getElementById('{element}').textContent"))
