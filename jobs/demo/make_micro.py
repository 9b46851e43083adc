"""Renders the micro world's sample inputs: ``python -m jobs.demo.make_micro``.

A dozen first pictures of worlds that no training draws, and ``micro/manifest.jsonl``: one session of four chunks from
each, in the words that the world was made from.
"""

from __future__ import annotations

import json
from pathlib import Path

from gamecraft_core.micro.episodes import make_episode
from gamecraft_core.micro.words import Words
from jobs.config import load_preset

HERE = Path(__file__).with_name("micro")
FIRST_SEED = 2**43

SESSIONS: tuple[tuple[Words, str], ...] = (
    (Words("corridor", "violet", "noon", "clear"), "w:2 w:2 left_rot:30 s:1"),
    (Words("corridor", "orange", "dusk", "misty"), "s:1 w:2 right_rot:30 left_rot:30"),
    (Words("corridor", "white", "night", "clear"), "w:1 a:0.4 d:0.4 w:1"),
    (Words("courtyard", "blue", "noon", "clear"), "left_rot:45 left_rot:45 right_rot:45 right_rot:45"),
    (Words("courtyard", "red", "dawn", "clear"), "d:1.5 left_rot:30 w:1 up_rot:15"),
    (Words("courtyard", "grey", "dusk", "snowy"), "right_rot:30 w:2 right_rot:30 w:2"),
    (Words("plain", "yellow", "noon", "clear"), "a:2 a:2 w:2 right_rot:30"),
    (Words("plain", "green", "dawn", "misty"), "w:2 d:2 w:2 a:2"),
    (Words("plain", "red", "night", "clear"), "up_rot:20 down_rot:20 right_rot:40 w:2"),
    (Words("hills", "red", "noon", "clear"), "w:3 left_rot:30 w:3 right_rot:30"),
    (Words("hills", "violet", "dusk", "clear"), "right_rot:40 right_rot:40 w:2 up_rot:15"),
    (Words("hills", "white", "noon", "snowy"), "d:2 w:2 a:2 s:2"),
)


def main() -> None:
    from PIL import Image

    preset = load_preset("micro-gamecraft")
    size = (preset.video.height, preset.video.width)
    HERE.mkdir(exist_ok=True)
    rows = []
    for number, (words, actions) in enumerate(SESSIONS):
        name = f"{words.colour}-{words.place}"
        picture = make_episode(FIRST_SEED + number, 1, size, preset.control, words=words).chunk(0)[0]
        Image.fromarray(picture.numpy()).save(HERE / f"{name}.png", optimize=True)
        row = {"session_id": name, "image": f"{name}.png", "prompt": words.prompt(0), "actions": actions}
        rows.append(json.dumps(row | {"seed": number}))
    (HERE / "manifest.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
