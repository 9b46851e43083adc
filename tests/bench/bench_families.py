"""What a chunk costs in each family; FramePack's sections cost as much at any length of the video.

Tokens are counted in sections laid out at the real size, seconds measured on the tiny presets, on one thread: section
20 against section 2 of one long video, in interleaved pairs, denoise and decode.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from actors import models
from gamecraft_core.base.messages import StartPayload
from gamecraft_core.base.preset import Preset
from gamecraft_core.costs.family import family_work
from gamecraft_core.families.framepack import FramePackDenoiser
from gamecraft_core.footprint import sample
from gamecraft_core.parallel.collective import Solo
from gamecraft_core.timeline.frames import SPATIAL_RATIO
from gamecraft_core.timeline.sections import carried, section_count, window_of
from jobs.config import load_preset
from tests.bench.harness import Bench, timed

PAIRS, SECTIONS, EARLY, LATE = 9, 24, 2, 20
FLAT = 1.10
#: Of a section of 640 by 608 pixels, as the published code packs it.
TOKENS = 17_500
#: Seconds of the videos whose sections are counted.
LENGTHS = (5, 10, 60, 120)
FAMILIES = ("tiny-gamecraft", "tiny-hunyuan-video", "tiny-framepack", "tiny-framepack-f1")
CPU = torch.device("cpu")

Run = Callable[[int], object]


def main() -> int:
    bench = Bench("families", {"pairs": PAIRS, "sections": SECTIONS, "early": EARLY, "late": LATE, "seconds": LENGTHS})
    tokens(bench, load_preset("tiny-framepack"), load_preset("framepack"))
    for name in FAMILIES:
        preset = load_preset(name)
        models.prepare(preset, threads=1)
        denoise, decode = denoising(preset), decoding(preset)
        if preset.video.layout == "tiled":
            bench.figure(f"{name}_denoise", timed(lambda run=denoise: run(0), PAIRS), "s")  # type: ignore[misc]
            continue
        for stage, run in (("denoise", denoise), ("decode", decode)):
            pairs = [(_seconds(run, EARLY), _seconds(run, LATE)) for _ in range(1 + PAIRS)][1:]
            bench.figure(f"{name}_{stage}_section_{EARLY}", [early for early, _ in pairs], "s")
            bench.figure(
                f"{name}_{stage}_section_{LATE}_over_{EARLY}", [late / early for early, late in pairs], "x", goal=FLAT
            )
    return bench.finish()


def tokens(bench: Bench, tiny: Preset, real: Preset) -> None:
    """Video tokens of sections laid out at the real size, over videos of all ``LENGTHS``: how many, how they differ."""
    denoiser = models.denoiser(tiny, CPU, Solo())
    assert isinstance(denoiser, FramePackDenoiser)
    counted = []
    start = StartPayload(sample.latents(real, 1), np.zeros((1, tiny.dit.image_dim), np.float32))
    window = window_of(real.video.chunk_frames)
    size = (window, real.video.height // SPATIAL_RATIO, real.video.width // SPATIAL_RATIO)
    for seconds in LENGTHS:
        sections = section_count(seconds, real.video.chunk_frames, real.video.fps)
        for index in sorted({0, 1, sections // 2, sections - 1}):
            order = replace(sample.order(real, continuing=False), index=index, chunks=sections)
            stream, _ = denoiser._laid_out(order, sample.latents(real, carried(window)), start, size)
            counted.append(stream.shard.total)
    bench.figure("framepack_video_tokens_a_section", max(counted), "tokens", goal=TOKENS)
    bench.figure("framepack_video_tokens_most_over_least", max(counted) / min(counted), "x", goal=1.0)


def denoising(preset: Preset) -> Run:
    """Denoises a chunk by its number: of a long video, or of the only one."""
    denoiser, start = models.denoiser(preset, CPU, Solo()), sample.start(preset)
    text = sample.text(preset, 0)

    def denoise(index: int) -> object:
        order = sample.order(preset, continuing=index > 0, seed=index)
        if index:
            order = replace(order, index=index, chunks=SECTIONS)
        return denoiser.denoise(order, text, sample.history(preset, continuing=index > 0), start)

    return denoise


def decoding(preset: Preset) -> Run:
    painter = models.painter(preset, models.vae_codec(preset, CPU))
    start, latents = sample.start(preset), sample.latents(preset, family_work(preset).payload)
    assert isinstance(latents, np.ndarray)

    def decode(index: int) -> object:
        return painter.frames(sample.decode_order(preset, index, SECTIONS), latents, start)

    return decode


def _seconds(run: Run, index: int) -> float:
    began = time.perf_counter()
    run(index)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
