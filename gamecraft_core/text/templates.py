"""What is put around a prompt before the language model reads it.

The templates are HunyuanVideo's public ones, for videos and for single images; GameCraft appends a fixed line and the
image token after the end-of-turn token (no image is given: the token is an ordinary embedding row).
"""

from __future__ import annotations

from dataclasses import dataclass

from gamecraft_core.base.errors import UsageError


@dataclass(frozen=True)
class Template:
    """``before`` + prompt + ``after``; the states of ``before`` are cut off. ``strips``: outer blanks go first."""

    before: str
    after: str
    strips: bool = False

    def prepared(self, prompt: str) -> str:
        """The prompt as both encoders read it."""
        return prompt.strip() if self.strips else prompt

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

_IMAGE_BEFORE = (
    "<|start_header_id|>system<|end_header_id|>\n\nDescribe the image by detailing the color, shape, size, texture, "
    "quantity, text, spatial relationships of the objects and background:<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n"
)

TEMPLATES = {
    "gamecraft": Template(before=_VIDEO_BEFORE, after="<|eot_id|>\nThe person looks like<image>"),
    "hunyuan-video": Template(before=_VIDEO_BEFORE, after="<|eot_id|>", strips=True),
    "hunyuan-image": Template(before=_IMAGE_BEFORE, after="<|eot_id|>", strips=True),
}


def template(name: str, field: str = "text.template") -> Template:
    """The template called ``name`` in a preset's ``field``."""
    if name not in TEMPLATES:
        raise UsageError(f"there is no template {name!r}", field=field, remedy=f"use one of: {', '.join(TEMPLATES)}")
    return TEMPLATES[name]
