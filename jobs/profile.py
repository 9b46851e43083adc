"""Measured stage costs: the real roles' models in this process, on the device at hand, without Ray.

One lane of each stage, one rank of denoise; the median of several runs after one that is not counted. What comes back
from every model is an array in host memory, so that a device has finished when its time is taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from gamecraft_core.base.messages import EncodeOrder
from gamecraft_core.base.preset import Preset
from gamecraft_core.base.spec import Start

if TYPE_CHECKING:
    import torch


def profile(preset: Preset, runs: int, stages: Sequence[str]) -> dict[str, Any]:
    """Seconds of ``stages``, with the name of the hardware and what of the preset they hold for."""
    from actors import models
    from gamecraft_core.base.version import VERSION
    from gamecraft_core.costs.stages import profile_of

    device = models.prepare(preset, None)
    seconds: dict[str, Any] = {}
    for stage in stages:
        for name, run in _RUNS[stage](preset, device):
            times = timed(run, runs)
            seconds[name] = {"median": median(times), "least": min(times), "most": max(times), "n": runs}
    return {
        "preset": preset.name,
        "hardware": models.hardware(device),
        "code_version": VERSION,
        "measured": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        "shape": profile_of(preset),
        "seconds": seconds,
    }


def timed(run: Callable[[int], object], runs: int) -> list[float]:
    """Seconds of ``run(1)``.. after ``run(0)``."""
    run(0)
    times = []
    for number in range(1, runs + 1):
        began = time.perf_counter()
        run(number)
        times.append(time.perf_counter() - began)
    return times


Runs = Iterator[tuple[str, Callable[[int], object]]]


def _text(preset: Preset, device: torch.device) -> Runs:
    """Prompts of the greatest length, each new: one seen before is answered from memory."""
    from actors import models

    encoder = models.text_encoder(preset, device)
    words = " ".join(["a quiet harbour at dawn"] * preset.text.max_tokens)

    def encode(number: int) -> None:
        encoder.encode(f"{number} {words}")
        if preset.sampling.guidance > 1:
            encoder.encode(f"not {number} {words}")

    yield "text", encode


def _encode(preset: Preset, device: torch.device) -> Runs:
    """An image; nothing in a family whose sessions begin from nothing."""
    from actors import models
    from gamecraft_core.base.family import family_of

    if "image" not in family_of(preset.family).starts:
        return
    starter, video = models.starter(preset, device), preset.video

    def encode(number: int) -> None:
        order = EncodeOrder(
            session_id="sample",
            start=Start("image", ""),
            height=video.height,
            width=video.width,
            chunk_frames=video.chunk_frames,
            seed=number,
        )
        starter.of_image(_picture(1, video.height, video.width)[0], order)

    yield "encode", encode


def _decode(preset: Preset, device: torch.device) -> Runs:
    from actors import models
    from gamecraft_core.costs.family import family_work
    from gamecraft_core.footprint import sample

    painter = models.painter(preset, models.vae_codec(preset, device))
    own, start = family_work(preset), sample.start(preset)
    order, latents = sample.decode_order(preset, *own.place(continuing=True)), sample.latents(preset, own.payload)
    yield "decode", lambda number: painter.frames(order, latents, start)


def _denoise(preset: Preset, device: torch.device) -> Runs:
    """A first chunk with a prompt of its own, whose tables it makes, and one that continues with the same prompt."""
    from actors import models
    from gamecraft_core.costs.family import family_work
    from gamecraft_core.footprint import sample
    from gamecraft_core.parallel.collective import Solo

    denoiser, start = models.denoiser(preset, device, Solo()), sample.start(preset)

    def chunk(number: int, prompt: int, continuing: bool) -> object:
        order = sample.order(preset, continuing=continuing, seed=number)
        return denoiser.denoise(
            order, sample.text(preset, prompt), sample.history(preset, continuing=continuing), start
        )

    yield "denoise_first", lambda number: chunk(number, 100 + number, continuing=False)
    if family_work(preset).continues:
        yield "denoise_next", lambda number: chunk(number, 0, continuing=True)


def _encode_video(preset: Preset, device: torch.device) -> Runs:
    from gamecraft_core.costs.family import family_work
    from gamecraft_core.footprint import sample
    from gamecraft_core.media.fragment import encode_fragment

    order = sample.decode_order(preset, *family_work(preset).place(continuing=True))
    frames = _picture(order.frames, order.height, order.width)
    yield (
        "encode_video",
        lambda number: encode_fragment(frames, index=number, start_frame=number * len(frames), fps=order.fps),
    )


_RUNS: dict[str, Callable[[Preset, torch.device], Runs]] = {
    "text": _text,
    "encode": _encode,
    "denoise": _denoise,
    "decode": _decode,
    "encode_video": _encode_video,
}


def _picture(frames: int, height: int, width: int) -> Any:
    """Smooth moving gradients: what an encoder meets in a video, unlike noise."""
    t, y, x = np.ogrid[:frames, :height, :width]
    planes = [(x + 3 * t) % 256 + 0 * y, (y + 2 * t) % 256 + 0 * x, (x + y + t) % 256]
    return np.stack(planes, axis=-1).astype(np.uint8)
