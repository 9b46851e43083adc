"""Renders the micro world's sample inputs: ``python -m jobs.demo.make_micro``.

A dozen first pictures of worlds that no training draws, and ``micro/manifest.jsonl``: one session of three chunks from
each, in the words that the world was made from.
"""

from __future__ import annotations

import json
from pathlib import Path

from gamecraft_core.base.spec import ActionControl
from gamecraft_core.micro.episodes import make_episode
from gamecraft_core.micro.words import Words
from jobs.config import load_preset

HERE = Path(__file__).with_name("micro")
FIRST_SEED = 2**43
#: A walk that every world leaves room for.
ROOM = (ActionControl("w", 3.0),)

SESSIONS: tuple[tuple[Words, str], ...] = (
    (Words("corridor", "violet", "noon", "clear"), "w:2 w:2 s:2"),
    (Words("corridor", "orange", "dusk", "misty"), "left_rot:40 right_rot:40 w:2"),
    (Words("corridor", "white", "night", "clear"), "d:0.8 a:0.8 w:2"),
    (Words("courtyard", "blue", "noon", "clear"), "left_rot:45 left_rot:45 right_rot:45"),
    (Words("courtyard", "red", "dawn", "clear"), "d:2 right_rot:40 w:2"),
    (Words("courtyard", "grey", "dusk", "snowy"), "right_rot:45 w:2 up_rot:20"),
    (Words("plain", "yellow", "noon", "clear"), "a:2 w:2 w+right_rot:2"),
    (Words("plain", "green", "dawn", "misty"), "w:3 d:3 s:3"),
    (Words("plain", "red", "night", "clear"), "up_rot:20 down_rot:20 right_rot:40"),
    (Words("hills", "red", "noon", "clear"), "w:3 left_rot:30 w:3"),
    (Words("hills", "violet", "dusk", "clear"), "right_rot:45 right_rot:45 w:2"),
    (Words("hills", "white", "noon", "snowy"), "down_rot:15 up_rot:15 a:3"),
)


def main() -> None:
    from PIL import Image

    preset = load_preset("micro-gamecraft")
    size = (preset.video.height, preset.video.width)
    HERE.mkdir(exist_ok=True)
    rows = []
    for number, (words, actions) in enumerate(SESSIONS):
        name = f"{words.colour}-{words.place}"
        world = make_episode(FIRST_SEED + number, 1, size, preset.control, words=words, controls=ROOM)
        picture = world.chunk(0)[0]
        Image.fromarray(picture.numpy()).save(HERE / f"{name}.png", optimize=True)
        row = {"session_id": name, "image": f"{name}.png", "prompt": words.prompt(0), "actions": actions}
        rows.append(json.dumps(row | {"seed": number}))
    (HERE / "manifest.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
