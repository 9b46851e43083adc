"""What is put around a prompt before the language model reads it.

The template is the public HunyuanVideo video template; GameCraft appends a fixed line and the image token after the
template's end-of-turn token (no image is given: the token is an ordinary embedding row).
"""

from __future__ import annotations

from dataclasses import dataclass

from gamecraft_core.base.errors import UsageError


@dataclass(frozen=True)
class Template:
    """``before`` + prompt + ``after``; the states of ``before`` are cut off."""

    before: str
    after: str

    def wrap(self, prompt: str) -> str:
        return self.before + prompt + self.after


_VIDEO_BEFORE = (
    "<|start_header_id|>system<|end_header_id|>\n\nDescribe the video by detailing the following aspects: "
    "1. The main content and theme of the video."
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects."
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects."
    "4. background environment, light, style and atmosphere."
    "5. camera angles, movements, and transitions used in the video:<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n"
)

TEMPLATES = {"gamecraft": Template(before=_VIDEO_BEFORE, after="<|eot_id|>\nThe person looks like<image>")}


def template(name: str) -> Template:
    """The template called ``name`` in a preset."""
    if name not in TEMPLATES:
        raise UsageError(
            f"there is no template {name!r}", field="text.template", remedy=f"use one of: {', '.join(TEMPLATES)}"
        )
    return TEMPLATES[name]
