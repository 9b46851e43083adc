"""Seconds of every stage of a preset on a card: predicted from its work, or measured where a profile is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from gamecraft_core.base.preset import Preset
from gamecraft_core.costs.chunk import chunk_work
from gamecraft_core.costs.family import MANY, FamilyWork, family_work
from gamecraft_core.costs.figure import Figure
from gamecraft_core.costs.hardware import (
    Card,
    Common,
    compute_seconds,
    exchange_seconds,
    host_seconds,
    sp_loss_seconds,
)
from gamecraft_core.costs.text import text_work
from gamecraft_core.costs.vae import decode_work, encode_work
from gamecraft_core.costs.work import Work
from gamecraft_core.sampling.guidance import is_guided

#: Stages that a profile measures: one lane, one rank.
PROFILED = ("text", "encode", "denoise_first", "denoise_next", "decode", "encode_video")


@dataclass(frozen=True, slots=True)
class Denoise:
    """One chunk on a group; ``apart`` is the part of it that one rank alone would not have: exchanges and losses."""

    seconds: Figure
    apart: float


@dataclass(frozen=True)
class StageCosts:
    """What a plan asks of costs, of sessions of so many ``chunks``.

    ``measured`` holds seconds by the names of ``PROFILED``, from ``hardware``; those of decode are of a chunk that
    continues. ``continuing`` is as in ``FamilyWork``.
    """

    preset: Preset
    card_name: str
    card: Card
    cpu: Card
    common: Common
    block_bytes: int = 0
    measured: dict[str, float] = field(default_factory=dict)
    hardware: str = ""
    chunks: int = MANY

    @cached_property
    def family(self) -> FamilyWork:
        return family_work(self.preset)

    def text(self, *, host: bool = False, offloaded: bool = False) -> Figure:
        """A session's prompts, on the card, on the host's processors, or on the card with weights brought for it."""
        work = text_work(self.preset, offloaded=offloaded)
        if host:
            cores = self.common.host_text_cores.value
            seconds = compute_seconds(work, self.cpu, self.common, "float32") / cores
            return Figure(seconds, "assumed", f"FLOPs on {cores:g} cores of the table's cpu")
        copies = host_seconds(work, self.card, self.common)
        seconds = compute_seconds(work, self.card, self.common, self._type("text_dtype"))
        known = self._known("text", seconds)
        return Figure(known.value + copies, "assumed" if copies else known.basis, known.source)

    def encode(self) -> Figure:
        """A session's start: an image."""
        if self.family.family.starts == ("none",):
            return Figure(0.0, "measured", "sessions begin from nothing")
        work = encode_work(self.preset)
        # The image encoder is of the text models' type, not the VAE's.
        sight = compute_seconds(self.family.sight(), self.card, self.common, self._type("text_dtype"))
        return self._known("encode", self._vae(work) + sight)

    def decode(self, devices: int = 1, *, continuing: bool = True) -> Figure:
        """Latents to pixels by a lane of so many cards."""
        alone = self._vae(decode_work(self.preset, chunks=self.chunks))
        asked = decode_work(self.preset, devices, continuing=continuing, chunks=self.chunks)
        return self._scaled(self._known("decode", alone), self._vae(asked) / alone)

    def encode_video(self) -> Figure:
        video, rate = self.preset.video, self.common.video_pixels_per_second
        frames = self.family.settled(*self.family.place(continuing=True, chunks=self.chunks))
        return self._known("encode_video", frames * video.height * video.width / rate.value, source=rate.source)

    def write(self) -> Figure:
        return Figure(self.common.write_seconds.value, "assumed", self.common.write_seconds.source)

    def denoise(self, degree: int = 1, *, split: bool = False, continuing: bool = True) -> Denoise:
        """One chunk on a group of ``degree`` ranks."""
        continuing = continuing and self.family.continues
        alone, _ = self._denoise(1, split=False, continuing=continuing)
        known = self._known("denoise_next" if continuing else "denoise_first", alone)
        if degree == 1:
            return Denoise(known, 0.0)
        together, apart = self._denoise(degree, split=split, continuing=continuing)
        # What ranks do scales with what one was measured at; what lies between them does not.
        measured = (together - apart) * known.value / alone + apart
        return Denoise(self._scaled(known, measured / known.value), apart)

    def _denoise(self, degree: int, *, split: bool, continuing: bool) -> tuple[float, float]:
        work = chunk_work(self.preset, continuing=continuing, world=degree, split=split)
        runtime, halved = self.preset.runtime, split and self._guided
        compute = compute_seconds(work, self.card, self.common, self._type("dtype"), fp8=runtime.fp8)
        forwards = self.preset.sampling.steps * (2 if self._guided and not halved else 1)
        if runtime.offload == "blocks":
            # Copies run beside the blocks before them.
            copies = Work(host_bytes=forwards * self.block_bytes)
            compute = max(compute, host_seconds(copies, self.card, self.common))
        whole = chunk_work(self.preset, continuing=continuing).flops / (2 if halved else 1)
        apart = exchange_seconds(work, self.card, self.common)
        apart += sp_loss_seconds(whole, degree // 2 if halved else degree, self.common)
        return compute + apart, apart

    @cached_property
    def _guided(self) -> bool:
        return is_guided(self.preset.sampling.guidance)

    def _vae(self, work: Work) -> float:
        return compute_seconds(work, self.card, self.common, self._type("vae_dtype"))

    def _type(self, key: str) -> str:
        """A processor computes in float32 whatever it stores."""
        dtype: str = getattr(self.preset.runtime, key)
        return "float32" if self.card_name == "cpu" else dtype

    def _known(self, stage: str, predicted: float, source: str = "") -> Figure:
        if stage in self.measured:
            return Figure(self.measured[stage], "measured", f"profile on {self.hardware}")
        return Figure(predicted, "assumed", source or f"FLOPs and bytes at stated efficiencies of {self.card_name}")

    @staticmethod
    def _scaled(known: Figure, factor: float) -> Figure:
        if factor == 1.0:
            return known
        return Figure(known.value * factor, "assumed", f"{known.source}, scaled by counted work and exchanges")


def profile_of(preset: Preset) -> dict[str, Any]:
    """The part of ``preset`` that decides how long its stages take: a profile holds for equal ones only."""
    values = preset.model_dump(mode="json", include={"family", "dit", "vae", "vision", "runtime"})
    values["sampling"] = {key: getattr(preset.sampling, key) for key in ("steps", "guidance", "tea_cache")}
    values["video"] = {key: getattr(preset.video, key) for key in ("height", "width", "chunk_frames", "fps", "layout")}
    return values
