"""Whole runs: token ids and noise in; states, every step's velocities and latents, and the decoded video out."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gamecraft_core.base.messages import DenoiseOrder, TextPayload, TextStates
from gamecraft_core.sampling.denoise import denoise
from gamecraft_core.sampling.guidance import combine
from gamecraft_core.timeline.frames import SPATIAL_RATIO, pixel_frames
from gamecraft_core.timeline.schedule import make_schedule
from tests.parity.cases.hunyuan import schedule, text
from tests.parity.cases.hunyuan.dit import tables, trimmed
from tests.parity.cases.hunyuan.models import codec, config, denoiser
from tests.parity.check import Case, Check
from tests.parity.golden import Folder, Golden

ATOL, GUIDED_ATOL, VIDEO_ATOL = 5e-5, 2e-4, 3e-5
#: Names of tensors that need no comparison. A run without token ids starts from the stored states.
INPUTS = r"\w+\.(?:llm_input_ids|llm_attention_mask|clip_input_ids|noise)|t2v_cfg\.(?:prompt_embeds|prompt_mask|pooled)"


def cases(folder: Folder, file: Golden) -> Iterator[Case]:
    names = sorted({name.split(".")[0] for name in file.names() if "." in name})
    for name in names:
        yield Case(f"{name}.schedule", partial(_schedule, folder, file, name))
        yield Case(f"{name}.loop", partial(_loop, folder, file, name))
        if f"{name}.noise_pred" in file:
            yield Case(f"{name}.calls", partial(_calls, folder, file, name))
        if f"{name}.video" in file:
            yield Case(f"{name}.video", partial(_video, folder, file, name))
    if "freqs_cos" in file:
        yield Case("freqs", partial(_tables, folder, file, names[0]))


def _order(folder: Folder, file: Golden, name: str) -> DenoiseOrder:
    described: dict[str, Any] = {"flow_reverse": True, **config(folder)[name]}
    latents, height, width = file.shape(f"{name}.noise")[2:]
    return DenoiseOrder(
        session_id="golden",
        index=0,
        control=None,
        seed=0,
        steps=described["num_inference_steps"],
        guidance=described.get("guidance_scale", described.get("cfg_scale", 1.0)),
        shift=described["flow_shift"],
        height=height * SPATIAL_RATIO,
        width=width * SPATIAL_RATIO,
        chunk_frames=pixel_frames(latents),
        embedded_guidance=described["embedded_guidance_scale"],
        flow_reverse=described["flow_reverse"],
    )


def _text(folder: Folder, file: Golden, name: str, check: Check) -> TextPayload:
    """The prompts, [negative, positive] or the positive alone: made of the ids where they are stored."""
    parts = [file.given(f"{name}.{part}") for part in ("prompt_embeds", "prompt_mask", "pooled")]
    if f"{name}.llm_input_ids" in file:
        ids, masks = file.given(f"{name}.llm_input_ids"), file.given(f"{name}.llm_attention_mask")
        crop = ids.shape[1] - parts[0].shape[1]
        states, real = zip(*(text.encoded(folder, *row, crop) for row in zip(ids, masks, strict=True)), strict=True)
        pooled = [text.pooled(folder, row) for row in file.given(f"{name}.clip_input_ids")]
        parts = [torch.stack(states), torch.stack(real), torch.stack(pooled)]
        check.tensor(file, f"{name}.prompt_embeds", parts[0], text.LLM_ATOL)
        check.tensor(file, f"{name}.prompt_mask", parts[1], 0.0)
        check.tensor(file, f"{name}.pooled", parts[2], text.CLIP_ATOL)
    prompts: list[TextStates] = [trimmed(*row) for row in zip(*parts, strict=True)]
    return TextPayload(prompts[-1], prompts[0] if len(prompts) > 1 else None)


def _schedule(folder: Folder, file: Golden, name: str, check: Check) -> None:
    order = _order(folder, file, name)
    made = make_schedule(order.steps, order.shift, reverse=order.flow_reverse)
    check.tensor(file, f"{name}.sigmas", torch.from_numpy(made.sigmas), schedule.ATOL)
    check.tensor(file, f"{name}.timesteps", torch.from_numpy(made.timesteps), schedule.TIMESTEPS)


def _loop(folder: Folder, file: Golden, name: str, check: Check) -> None:
    """The product's own loop, on its own text states."""
    order, steps = _order(folder, file, name), []
    noise = file.given(f"{name}.noise")[0].numpy()
    prompts = _text(folder, file, name, check)

    def on_step(done: int, latents: Tensor) -> None:
        steps.append(latents.clone())

    nothing = np.zeros((len(noise), 0, *noise.shape[2:]), np.float32)
    made = denoiser(folder).denoise(order, prompts, nothing, on_step=on_step, noise=noise)
    check.close("result", torch.from_numpy(made), steps[-1], 0.0)
    tolerance = ATOL if prompts.negative is None else GUIDED_ATOL
    check.tensor(file, f"{name}.latents", torch.stack(steps)[:, None], tolerance)


def _calls(folder: Folder, file: Golden, name: str, check: Check) -> None:
    """Every step's velocity of every branch, and what guidance the model was told."""
    order, runner = _order(folder, file, name), denoiser(folder)
    start = file.given(f"{name}.noise")[0]
    frames, height, width = start.shape[1:]
    stream = runner.stream((frames, height, width), keep_frames=0)
    seen: list[Tensor] = []

    def predict(latents: Tensor, step: int, timestep: float) -> Tensor:
        outputs = [runner.predict(latents, one, timestep, stream) for one in branches]
        seen.append(torch.stack(outputs))
        return combine(outputs, order.guidance)

    with torch.inference_mode():
        branches = runner.branches(order, _text(folder, file, name, check), stream)
        denoise(start, make_schedule(order.steps, order.shift, reverse=order.flow_reverse), predict)
    told = [branch.prompt.guidance for branch in branches]
    check.tensor(file, f"{name}.guidance", torch.tensor(told), 0.0)
    tolerance = ATOL if len(branches) == 1 else GUIDED_ATOL
    check.tensor(file, f"{name}.noise_pred", torch.stack(seen), tolerance)


def _video(folder: Folder, file: Golden, name: str, check: Check) -> None:
    """The last latents decoded, as the run says with tiles or without."""
    made = codec(folder, config(folder)[name].get("vae_tiling", True))
    frames = made.decode_float(file.given(f"{name}.latents")[-1, 0].numpy())[None]
    check.tensor(file, f"{name}.video", frames, VIDEO_ATOL)


def _tables(folder: Folder, file: Golden, name: str, check: Check) -> None:
    t, h, w = file.shape(f"{name}.noise")[2:]
    tables(folder, file, "", (t, h // 2, w // 2), check)
