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

from gamecraft_core.base.messages import DenoiseOrder, TextPayload, TextStates
from gamecraft_core.base.preset import Preset
from gamecraft_core.base.spec import ActionControl
from gamecraft_core.timeline.frames import clip_latents

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
    from actors import models

    codec, video = models.vae_codec(preset, device), preset.video
    yield "encode", lambda number: codec.encode_image(_picture(1, video.height, video.width)[0], number)


def _decode(preset: Preset, device: torch.device) -> Runs:
    from actors import models

    codec, latents = models.vae_codec(preset, device), _noise(preset, clip_latents(preset.video.chunk_frames))
    yield "decode", lambda number: codec.decode(latents)


def _denoise(preset: Preset, device: torch.device) -> Runs:
    """A first chunk with a prompt of its own, whose tables it makes, and one that continues with the same prompt."""
    from actors import models
    from gamecraft_core.parallel.collective import Solo

    denoiser = models.denoiser(preset, device, Solo())
    prompts = [_prompt(preset, seed) for seed in range(2)]

    def first(number: int) -> object:
        prompt = TextPayload(_prompt(preset, 100 + number), prompts[1])
        return denoiser.denoise(_order(preset, 0, number), prompt, _noise(preset, 1))

    def later(number: int) -> object:
        history = _noise(preset, clip_latents(preset.video.chunk_frames))
        return denoiser.denoise(_order(preset, 1, number), TextPayload(prompts[0], prompts[1]), history)

    yield "denoise_first", first
    yield "denoise_next", later


def _encode_video(preset: Preset, device: torch.device) -> Runs:
    from gamecraft_core.media.fragment import encode_fragment

    video = preset.video
    frames = _picture(video.chunk_frames, video.height, video.width)
    yield (
        "encode_video",
        lambda number: encode_fragment(frames, index=number, start_frame=number * len(frames), fps=video.fps),
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


def _noise(preset: Preset, latents: int) -> Any:
    shape = (preset.vae.latent_channels, latents, preset.video.height // 8, preset.video.width // 8)
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def _prompt(preset: Preset, seed: int) -> TextStates:
    draw = np.random.default_rng(seed)
    states = draw.standard_normal((preset.text.max_tokens, preset.dit.text_states_dim), np.float32)
    return TextStates(states, draw.standard_normal(preset.dit.text_states_dim_2, np.float32))


def _order(preset: Preset, index: int, seed: int) -> DenoiseOrder:
    sampling, video = preset.sampling, preset.video
    return DenoiseOrder(
        session_id="profile",
        index=index,
        control=ActionControl("w", preset.control.default_speed),
        seed=seed,
        steps=sampling.steps,
        guidance=sampling.guidance,
        shift=sampling.shift,
        height=video.height,
        width=video.width,
        chunk_frames=video.chunk_frames,
    )
