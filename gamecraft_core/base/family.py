"""What is known of a family without its models: what its sessions begin from, how long they are, where its code is.

A family of your own is a ``Family`` in a module of yours, named MODULE:NAME in its preset; every process that runs it
must be able to import that module. ``infra/adding-a-family.md`` shows one from beginning to end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from gamecraft_core.base.spec import StartKind

#: The field that says how long a session is: a camera's actions, one a chunk; the frames of the one chunk; or seconds.
Length = Literal["actions", "frames", "seconds"]

_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class Family:
    """A model lineage. ``denoiser``, ``starter`` and ``painter`` name classes as MODULE:NAME, imported by lanes only.

    ``denoiser``: a ``families.denoiser.Denoiser``. ``starter`` (encode lanes) and ``painter`` (decode lanes): what
    ``families.start`` and ``families.paint`` describe. ``work``: what a plan counts by, ``costs.family.FamilyWork`` or
    one derived from it. ``keeps_start``: every chunk is given the encoded start.
    """

    name: str
    starts: tuple[StartKind, ...]
    length: Length
    denoiser: str
    starter: str = "gamecraft_core.families.start:HistoryStarter"
    painter: str = "gamecraft_core.families.paint:ChunkPainter"
    work: str = "gamecraft_core.costs.family:FamilyWork"
    keeps_start: bool = False


_KNOWN = {
    each.name: each
    for each in (
        Family(
            "gamecraft",
            starts=("image", "video"),
            length="actions",
            denoiser="gamecraft_core.families.gamecraft:GameCraftDenoiser",
            work="gamecraft_core.costs.history:GameCraftWork",
        ),
        Family(
            "hunyuan_video",
            starts=("none",),
            length="frames",
            denoiser="gamecraft_core.families.hunyuan_video:HunyuanVideoDenoiser",
        ),
        Family(
            "hunyuan_video_i2v",
            starts=("image",),
            length="frames",
            denoiser="gamecraft_core.families.hunyuan_video_i2v:ImageToVideoDenoiser",
            work="gamecraft_core.costs.history:AfterImageWork",
        ),
        Family(
            "framepack",
            starts=("image",),
            length="seconds",
            denoiser="gamecraft_core.families.framepack:FramePackDenoiser",
            starter="gamecraft_core.families.framepack_start:SightStarter",
            painter="gamecraft_core.families.framepack_paint:SectionPainter",
            work="gamecraft_core.costs.framepack:FramePackWork",
            keeps_start=True,
        ),
    )
}


def family_of(name: str) -> Family:
    """The family of that name, or the one at MODULE:NAME. ValueError where there is none."""
    if name in _KNOWN:
        return _KNOWN[name]
    if not _REFERENCE.fullmatch(name):
        raise ValueError(f"unknown family {name!r}: use one of {', '.join(_KNOWN)}, or MODULE:NAME of your own")
    try:
        found = load(name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"the family {name} cannot be imported: {error}") from error
    if not isinstance(found, Family) or found.name != name:
        raise ValueError(f"{name} is not a Family whose name is {name!r}")
    return found


def load(reference: str) -> Any:
    """What MODULE:NAME names."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)
