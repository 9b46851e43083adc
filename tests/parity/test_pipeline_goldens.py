"""Whole runs of several chunks against their goldens: stored noise and text in, latents out.

Cameras are computed from the actions and weights are read from the official layout; images and frames belong to the
VAE's tests.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from gamecraft_core.base.messages import DenoiseOrder, TextPayload, TextStates
from gamecraft_core.base.preset import Preset
from gamecraft_core.base.spec import ActionControl
from gamecraft_core.families.gamecraft import GameCraft, GameCraftDenoiser, with_history
from gamecraft_core.parallel.collective import Solo
from gamecraft_core.sampling.denoise import denoise
from gamecraft_core.sampling.guidance import combine
from gamecraft_core.timeline.planner import plan_chunk
from gamecraft_core.timeline.schedule import cached_steps, make_schedule
from tests.parity.goldens import Golden, assert_close, golden, names, tiny_weights
from tests.parity.goldens import header as header_of

ATOL = 5e-5
CHUNK_FRAMES = 33
RUNS = [name for name in names("pipeline_") if name != "pipeline_inputs"]
CHUNKS = [(name, index) for name in RUNS for index in range(len(header_of(name).get("chunks", [0])))]


@cache
def model(name: str) -> tuple[Preset, GameCraft]:
    return tiny_weights(name)


def text_of(file: Golden) -> TextPayload:
    """The stored prompts, trimmed; negative first in the file."""
    states, mask, pooled = file["text_states"], file["text_mask"], file["text_states_2"]
    negative, positive = (
        TextStates(states=states[row, : int(mask[row].sum())].numpy(), pooled=pooled[row].numpy()) for row in (0, 1)
    )
    return TextPayload(positive=positive, negative=negative)


def order_of(header: dict[str, Any], index: int) -> DenoiseOrder:
    chunk, (height, width) = header["chunks"][index], header["size"]
    return DenoiseOrder(
        session_id="golden",
        index=index,
        control=ActionControl(chunk["action"], chunk["speed"]),
        seed=0,
        steps=header["steps"],
        guidance=header["guidance"],
        shift=header["shift"],
        height=height,
        width=width,
        chunk_frames=CHUNK_FRAMES,
    )


@pytest.mark.parametrize("name", RUNS)
def test_latents_of_every_chunk(name: str) -> None:
    file = golden(name)
    header = file.header
    settings, weights = model(header["weights"])
    reused = [chunk["is_cache_steps"] for chunk in header["chunks"]]
    runner = GameCraftDenoiser(settings, weights, Solo(), step_cache=any(reused))
    carried: Tensor | None = None
    for index, chunk in enumerate(header["chunks"]):
        prefix = f"chunk{index}."
        history = file[f"{prefix}in.last_latents"][0]
        if carried is not None:
            assert_close(carried, history, ATOL, f"{prefix} history")
            history = carried
        plan = plan_chunk(index, CHUNK_FRAMES, history.shape[1])
        assert (plan.kind == "image", plan.total_latents) == (chunk["is_image"], chunk["latent_frames"])
        if reused[index]:
            assert sorted(cached_steps(header["steps"])) == reused[index]
        past = plan.history_latents
        noise = file[f"{prefix}noise"][0, :, past:]
        before: dict[int, Tensor] = {0: noise}
        made = torch.from_numpy(
            runner.denoise(
                order_of(header, index),
                text_of(golden("pipeline_inputs")),
                history.numpy(),
                noise=noise.numpy(),
                on_step=before.__setitem__,
            )
        )
        for step, key in ((1, "step1"), (header["steps"] - 1, "last_step")):
            whole = torch.cat([history, before[step]], dim=1)
            assert_close(whole, file[f"{prefix}{key}.latents_before"][0], ATOL, f"{prefix}{key}")
        expected = file[f"{prefix}denoised_latents"][0]
        whole = made if plan.kind == "image" else torch.cat([history, made], dim=1)
        assert_close(whole, expected, ATOL, prefix)
        if f"{prefix}out.last_latents" in file.tensors:
            assert_close(made, file[f"{prefix}out.last_latents"][0], ATOL, f"{prefix}out")
        carried = made


@pytest.mark.parametrize(("name", "index"), CHUNKS)
def test_model_calls(name: str, index: int) -> None:
    """Inputs, timesteps and outputs of a chunk's stored model calls, of every branch and every frame."""
    file, prefix = golden(name), f"chunk{index}."
    header, chunk = file.header, file.header["chunks"][index]
    settings, weights = model(header["weights"])
    reused = frozenset(chunk["is_cache_steps"])
    runner = GameCraftDenoiser(settings, weights, Solo(), step_cache=bool(reused))
    history, noise = file[f"{prefix}in.last_latents"][0], file[f"{prefix}noise"][0]
    past = history.shape[1]
    stream = runner.stream((noise.shape[1], *noise.shape[2:]), keep_frames=None)
    with torch.inference_mode():
        branches = runner.branches(order_of(header, index), text_of(golden("pipeline_inputs")), stream)
    assert len(branches) == chunk["model_batch"]
    compared = []

    def predict(latents: Tensor, step: int, timestep: float) -> Tensor:
        video = with_history(history, latents)
        outputs = [runner.predict(video, one, timestep, stream, reuse=step in reused) for one in branches]
        key = f"{prefix}step{step}."
        if f"{key}model_output" in file.tensors:
            assert_close(video, file[f"{key}model_input"][0], ATOL, key)
            assert timestep == float(file[f"{key}t"].reshape(-1)[0])
            assert_close(torch.stack(outputs), file[f"{key}model_output"], ATOL, key)
            compared.append(step)
        return combine(outputs, header["guidance"])[:, past:]

    with torch.inference_mode():
        denoise(noise[:, past:], make_schedule(header["steps"], header["shift"]), predict)
    assert len(compared) == sum(key.startswith(prefix) and key.endswith(".model_output") for key in file.tensors)
