"""A chunk as a preset's sessions have it, with drawn values: what is measured, on any device, in place of a request."""

from __future__ import annotations

import numpy as np

from gamecraft_core.base.messages import DecodeOrder, DenoiseOrder, FloatArray, StartPayload, TextPayload, TextStates
from gamecraft_core.base.preset import Preset
from gamecraft_core.base.spec import ActionControl
from gamecraft_core.costs.family import family_work
from gamecraft_core.timeline.frames import SPATIAL_RATIO
from gamecraft_core.timeline.spans import place, span


def order(preset: Preset, *, continuing: bool, seed: int = 0) -> DenoiseOrder:
    """Of a family that takes no actions, without a control."""
    own = family_work(preset)
    index, chunks = own.place(continuing=continuing)
    sampling, video = preset.sampling, preset.video
    return DenoiseOrder(
        session_id="sample",
        index=index,
        chunks=chunks,
        control=ActionControl("w", preset.control.default_speed) if own.family.length == "actions" else None,
        seed=seed,
        steps=sampling.steps,
        guidance=sampling.guidance,
        shift=sampling.shift,
        height=video.height,
        width=video.width,
        chunk_frames=video.chunk_frames,
        embedded_guidance=sampling.embedded_guidance,
        guidance_rescale=sampling.guidance_rescale,
        flow_reverse=sampling.flow_reverse,
        tea_cache=sampling.tea_cache,
    )


def decode_order(preset: Preset, index: int, chunks: int) -> DecodeOrder:
    video = preset.video
    start, end = span(video.layout, video.chunk_frames, chunks, index)
    return DecodeOrder(
        session_id="sample",
        index=index,
        chunks=chunks,
        place=place(video.layout, chunks, index),
        start_frame=start,
        frames=end - start,
        height=video.height,
        width=video.width,
        fps=video.fps,
    )


def text(preset: Preset, seed: int = 0) -> TextPayload:
    """Prompts of the greatest length, another for each ``seed``, and always the same negative one."""
    return TextPayload(_states(preset, seed + 1), _states(preset, 0))


def _states(preset: Preset, seed: int) -> TextStates:
    drawn = np.random.default_rng(seed)
    states = drawn.standard_normal((preset.text.max_tokens, preset.dit.text_states_dim), np.float32)
    return TextStates(states, drawn.standard_normal(preset.dit.text_states_dim_2, np.float32))


def latents(preset: Preset, frames: int) -> FloatArray:
    """[16, frames, h, w] of the preset's size."""
    video = preset.video
    size = (video.height // SPATIAL_RATIO, video.width // SPATIAL_RATIO)
    return np.random.default_rng(0).standard_normal((preset.vae.latent_channels, frames, *size), np.float32)


def history(preset: Preset, *, continuing: bool) -> FloatArray | None:
    """What a chunk is given of what was before it; None where that is nothing."""
    frames = family_work(preset).history(continuing=continuing)
    return latents(preset, frames) if frames else None


def start(preset: Preset) -> StartPayload | None:
    """What every chunk is given of a session's start, in a family that keeps it."""
    own = family_work(preset)
    if not own.family.keeps_start:
        return None
    seen = np.random.default_rng(1).standard_normal((own.image_tokens, preset.dit.image_dim), np.float32)
    return StartPayload(latents(preset, 1), seen)
