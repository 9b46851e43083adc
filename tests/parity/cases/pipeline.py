"""Whole runs of several chunks: stored noise and text in, every stored model call, latents, histories and frames out.

Cameras are computed from the actions and weights are read from the official layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from gamecraft_core.base.messages import DenoiseOrder, TextPayload, TextStates
from gamecraft_core.base.spec import ActionControl
from gamecraft_core.families.gamecraft import GameCraftDenoiser
from gamecraft_core.families.history import with_history
from gamecraft_core.parallel.collective import Solo
from gamecraft_core.sampling.denoise import denoise
from gamecraft_core.sampling.guidance import combine
from gamecraft_core.timeline.frames import pixel_frames
from gamecraft_core.timeline.planner import plan_chunk
from gamecraft_core.timeline.schedule import cached_steps, make_schedule
from tests.parity.cases.start import start_cases
from tests.parity.check import Case, Check
from tests.parity.golden import Folder, Golden
from tests.parity.models import tiny_codec, tiny_dit

ATOL = 5e-5
#: ``video_u8`` is cut to 8 bits: a value beside a border may fall on either side.
LEVELS = 1.0
SHARED = "pipeline_inputs"
#: Names of tensors that need no comparison.
INPUTS = r"image_u8|video_u8|(?:ref_)?posterior\.eps|chunk\d+\.noise|chunk0\.in\.(?:last|ref)_latents"


def cases(folder: Folder, file: Golden) -> Iterator[Case]:
    yield from start_cases(folder, file)
    yield Case("loop", partial(_loop, folder, file))
    for index in range(len(file.header["chunks"])):
        if file.names(f"chunk{index}.step"):
            yield Case(f"chunk{index}.calls", partial(_calls, folder, file, index))
        if f"chunk{index}.frames" in file or f"chunk{index}.video_u8" in file:
            yield Case(f"chunk{index}.frames", partial(_frames, folder, file, index))


class Chunk:
    """One chunk of a run: its plan and what it starts from."""

    def __init__(self, file: Golden, index: int) -> None:
        self.prefix = f"chunk{index}."
        self.header = file.header["chunks"][index]
        self.stored_history = file.given(f"{self.prefix}in.last_latents")[0]
        noise = file.given(f"{self.prefix}noise")[0]
        past = self.stored_history.shape[1]
        self.noise = noise[:, past:]
        self.frames = pixel_frames(noise.shape[1] - past)
        self.plan = plan_chunk(index, self.frames, past)
        height, width = file.header["size"]
        self.order = DenoiseOrder(
            session_id="golden",
            index=index,
            control=ActionControl(self.header["action"], self.header["speed"]),
            seed=0,
            steps=file.header["steps"],
            guidance=file.header["guidance"],
            shift=file.header["shift"],
            height=height,
            width=width,
            chunk_frames=self.frames,
        )

    @property
    def reused(self) -> frozenset[int]:
        return frozenset(self.header["is_cache_steps"])


def _text(folder: Folder) -> TextPayload:
    """The stored prompts, trimmed: negative first, positive last."""
    file = folder.golden(SHARED)
    states, mask, pooled = (file.given(name) for name in ("text_states", "text_mask", "text_states_2"))
    prompts = [
        TextStates(states=states[row, : int(mask[row].sum())].numpy(), pooled=pooled[row].numpy())
        for row in range(len(states))
    ]
    return TextPayload(positive=prompts[-1], negative=prompts[0])


def _loop(folder: Folder, file: Golden, check: Check) -> None:
    """The product's own loop over all chunks, each on the latents that it made before."""
    chunks = [Chunk(file, index) for index in range(len(file.header["chunks"]))]
    settings, weights = tiny_dit(folder, file.header["weights"])
    runner = GameCraftDenoiser(settings, weights, Solo(), step_cache=any(chunk.reused for chunk in chunks))
    _first_history(folder, file, chunks[0], check)
    history = chunks[0].stored_history
    for chunk in chunks:
        prefix, plan = chunk.prefix, chunk.plan
        check.equal(f"{prefix}is_image", plan.kind == "image", chunk.header["is_image"])
        check.equal(f"{prefix}latent_frames", plan.total_latents, chunk.header["latent_frames"])
        if chunk.reused:
            check.equal(f"{prefix}is_cache_steps", cached_steps(chunk.order.steps), chunk.reused)
        if chunk is not chunks[0]:
            check.tensor(file, f"{prefix}in.last_latents", history[None], ATOL)
        before = {0: chunk.noise}
        made = torch.from_numpy(
            runner.denoise(
                chunk.order, _text(folder), history.numpy(), noise=chunk.noise.numpy(), on_step=before.__setitem__
            )
        )
        _latents_before(file, chunk, history, before, check)
        whole = made if plan.kind == "image" else torch.cat([history, made], dim=1)
        check.tensor(file, f"{prefix}denoised_latents", whole[None], ATOL)
        check.tensor(file, f"{prefix}out.last_latents", made[None], ATOL)
        check.tensor(file, f"{prefix}out.ref_latents", made[None, :, -1:], ATOL)
        check.tensor(file, f"chunk{chunk.order.index + 1}.in.ref_latents", made[None, :, -1:], ATOL)
        history = made


def _first_history(folder: Folder, file: Golden, first: Chunk, check: Check) -> None:
    """An image start's history is the encoded image, whose own comparison stands where the image does."""
    if first.plan.kind == "image":
        owner = file if "ref_latents" in file or not folder.has(SHARED) else folder.golden(SHARED)
        for name in ("last_latents", "ref_latents"):
            if "ref_latents" in owner:
                check.tensor(file, f"chunk0.in.{name}", owner.given("ref_latents"), ATOL)


def _latents_before(file: Golden, chunk: Chunk, history: Tensor, before: dict[int, Tensor], check: Check) -> None:
    """Latents as they enter a step, named by its number or as the last."""
    for name in file.names(chunk.prefix):
        matched = re.fullmatch(r"(?:step(\d+)|last_step)\.latents_before", name.removeprefix(chunk.prefix))
        if matched:
            step = int(matched[1]) if matched[1] else chunk.order.steps - 1
            check.tensor(file, name, torch.cat([history, before[step]], dim=1)[None], ATOL)


def _calls(folder: Folder, file: Golden, index: int, check: Check) -> None:
    """Inputs, timesteps and outputs of the stored model calls, of every branch and every frame."""
    chunk = Chunk(file, index)
    settings, weights = tiny_dit(folder, file.header["weights"])
    runner = GameCraftDenoiser(settings, weights, Solo(), step_cache=bool(chunk.reused))
    past, order = chunk.plan.history_latents, chunk.order
    stream = runner.stream((chunk.plan.total_latents, *chunk.noise.shape[2:]), keep_frames=None)
    with torch.inference_mode():
        branches = runner.branches(order, _text(folder), stream)
    check.equal("model_batch", len(branches), chunk.header["model_batch"])

    def predict(latents: Tensor, step: int, timestep: float) -> Tensor:
        video = with_history(chunk.stored_history, latents)
        outputs = [runner.predict(video, one, timestep, stream, reuse=step in chunk.reused) for one in branches]
        stored = f"{chunk.prefix}step{step}."
        check.tensor(file, f"{stored}model_input", video[None], ATOL)
        check.tensor(file, f"{stored}t", torch.tensor([timestep]), 0.0)
        check.tensor(file, f"{stored}model_output", torch.stack(outputs), ATOL)
        return combine(outputs, order.guidance)[:, past:]

    with torch.inference_mode():
        denoise(chunk.noise, make_schedule(order.steps, order.shift), predict)


def _frames(folder: Folder, file: Golden, index: int, check: Check) -> None:
    """The stored latents' new frames, decoded."""
    chunk = Chunk(file, index)
    codec = tiny_codec(folder, file.header["weights"])
    latents = file.given(f"{chunk.prefix}denoised_latents")[0, :, -chunk.plan.new_latents :].numpy()
    frames = codec.decode_float(latents)[None]
    check.tensor(file, f"{chunk.prefix}frames", frames[:, :, chunk.header["frames"]], ATOL)
    if f"{chunk.prefix}video_u8" in file:
        written = torch.from_numpy(codec.decode(latents)).permute(3, 0, 1, 2)[None]
        check.tensor(file, f"{chunk.prefix}video_u8", written, LEVELS)
