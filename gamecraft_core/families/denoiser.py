"""What every family does alike: the stream of a chunk, condition tables, guidance branches, the run of its steps.

A family's own denoiser says how a chunk is laid out, what enters the patches, which tokens are added to them or go with
the text, and how its steps are taken. All state of a denoise (added tokens, constant tokens, caches) lives in the call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from gamecraft_core.attention.kernel import pick_kernel
from gamecraft_core.attention.ulysses import JointAttention
from gamecraft_core.base.messages import DenoiseOrder, FloatArray, StartPayload, TextPayload, TextStates
from gamecraft_core.base.preset import Preset
from gamecraft_core.dit.condition import ConditionTable, ConditionTables, table_key
from gamecraft_core.dit.embed import PatchEmbed, patchify, unpatchify
from gamecraft_core.dit.memo import StepMemo
from gamecraft_core.dit.rope import Cells, RopeTables
from gamecraft_core.dit.stream import Grid, Prompt, Stream
from gamecraft_core.dit.tea_cache import TeaCache
from gamecraft_core.dit.trunk import Observer, Trunk, unobserved
from gamecraft_core.parallel.collective import Collective
from gamecraft_core.parallel.shard import Shard, pad_rows
from gamecraft_core.sampling.denoise import OnStep, denoise
from gamecraft_core.sampling.guidance import combine, embedded, is_guided
from gamecraft_core.sampling.noise import draw
from gamecraft_core.sampling.solvers import Solver, euler_steps
from gamecraft_core.timeline.schedule import Schedule, cached_steps, make_schedule

Model = TypeVar("Model", bound=Trunk)
#: This rank's patch tokens of a chunk's latents as they are at a step.
TokensAt = Callable[[Tensor], Tensor]


@dataclass(slots=True)
class Branch:
    """One guidance branch of one denoise call: prompt, tokens added to this rank's patches (or none), step caches.

    Timesteps that are not in the table of ``conditions`` are computed when they are met. ``sight`` [tokens, hidden]
    goes before the text.
    """

    prompt: Prompt
    added: Tensor | None
    conditions: ConditionTable = field(default_factory=dict)
    memo: StepMemo = field(default_factory=StepMemo)
    sight: Tensor | None = None
    tea: TeaCache | None = None


class LastTokens:
    """A chunk's patch tokens on this rank, of which only the last depend on its latents; all else is made once."""

    def __init__(self, embed: PatchEmbed, constant: Tensor, stream: Stream, patch: Grid) -> None:
        """``constant`` [local, hidden] are the tokens with zeros in place of the latents."""
        self._embed, self._constant, self._stream, self._patch = embed, constant, stream, patch

    def at(self, latents: Tensor) -> Tensor:
        """Tokens [local, hidden] with ``latents`` [16, T_new, h, w] in their place."""
        shard, kept = self._stream.shard, self._stream.kept
        patches = patchify(latents, self._patch)
        patches = shard.take(pad_rows(patches, shard.total, front=shard.total - len(patches)))
        tokens = self._constant.clone()
        tokens[kept] += self._embed.change(patches[kept])
        return tokens


class Denoiser(ABC, Generic[Model]):
    """Denoises chunks on one rank; what it keeps between calls is keyed by the content or the sizes it depends on."""

    def __init__(
        self,
        preset: Preset,
        model: Model,
        collective: Collective,
        *,
        step_cache: bool = False,
        attend: JointAttention | None = None,
        across: Collective | None = None,
    ) -> None:
        """``attend`` replaces own Ulysses. With ``across``, a pair of ranks, each runs one branch of a guided chunk."""
        config = preset.dit
        self.model = model
        self.attend = attend or JointAttention(
            pick_kernel(preset.runtime.attention, model.device, model.dtype), collective
        )
        self._across = across
        self._collective = collective
        self._config = config
        self._video = preset.video
        self._ropes = RopeTables(config.rope_dim_list, config.rope_theta, model.device)
        self._tables = ConditionTables()
        self._step_cache = step_cache
        if preset.runtime.compile:
            model.compile_blocks()

    @torch.inference_mode()
    def denoise(
        self,
        order: DenoiseOrder,
        text: TextPayload,
        history: FloatArray | None,
        start: StartPayload | None = None,
        *,
        on_step: OnStep | None = None,
        noise: FloatArray | None = None,
    ) -> FloatArray:
        """The chunk's payload after ``history`` [16, T_history, h, w], or after nothing: its new latents, as a rule.

        Every rank of the group calls with the same arguments and gets the same result. ``noise`` [16, T_new, h, w]
        replaces the draw from the order's seed.
        """
        past, (new, height, width) = self._planned(order, 0 if history is None else history.shape[1])
        shape = (self._config.out_channels, new, height, width)
        if noise is None:
            noise = draw(order.seed, order.index, "start_noise", shape)
        if history is None:
            history = np.zeros((shape[0], 0, height, width), np.float32)
        if noise.shape != shape or history.shape != (shape[0], past, height, width):
            raise ValueError(f"latents {noise.shape} after history {history.shape} do not fit {shape} after {past}")
        schedule = self._schedule(order)
        timesteps = tuple(map(float, schedule.timesteps))
        across = self._across if is_guided(order.guidance) else None
        stream, embed = self._laid_out(order, history, start, (new, height, width))
        branches = self.branches(order, text, stream, timesteps, only=None if across is None else across.rank)
        noisy, tokens_at = self._tensor(noise), embed()  # after the branches, which for a moment need much memory
        sight = self._sight(start)
        for branch in branches:
            branch.sight = sight
            branch.tea = TeaCache(order.tea_cache, order.steps, self._collective) if order.tea_cache else None
        reused = cached_steps(order.steps) if self._step_cache else frozenset()

        def predict(latents: Tensor, step: int, timestep: float) -> Tensor:
            tokens = None if step in reused else tokens_at(latents)
            velocities = [self.velocity(tokens, branch, timestep, stream) for branch in branches]
            if across is not None:
                velocities = list(across.all_gather(velocities[0][None]))
            return combine([each[:, -new:] for each in velocities], order.guidance, order.guidance_rescale)

        latents = denoise(noisy, schedule, predict, on_step, self._solver(schedule))
        return self._payload(order, history, start, latents.cpu().numpy())

    @staticmethod
    @abstractmethod
    def build_model(preset: Preset, device: torch.device | str, dtype: torch.dtype) -> Model:
        """A model whose weights are still to be filled: on ``meta`` without storage, elsewhere undefined."""

    @abstractmethod
    def _planned(self, order: DenoiseOrder, history: int) -> tuple[int, Grid]:
        """Latent frames that condition the chunk, and the shape (T, h, w) of its new latents.

        ``history`` is how many are given; BadInput where the family makes no such chunk.
        """

    def branches(
        self,
        order: DenoiseOrder,
        text: TextPayload,
        stream: Stream,
        timesteps: tuple[float, ...] = (),
        only: int | None = None,
    ) -> list[Branch]:
        """A branch for each of ``prompts``, all told the same guidance, with tables that cover ``timesteps``."""
        told = embedded(order.embedded_guidance, self.model.dtype) if self._config.guidance_embed else None
        return [self._branch(states, timesteps=timesteps, guidance=told) for states, _ in prompts(order, text, only)]

    def _schedule(self, order: DenoiseOrder) -> Schedule:
        return make_schedule(order.steps, order.shift, reverse=order.flow_reverse)

    def _solver(self, schedule: Schedule) -> Solver:
        """What takes the steps of one denoise."""
        return euler_steps(schedule)

    def _laid_out(
        self, order: DenoiseOrder, history: FloatArray, start: StartPayload | None, new: Grid
    ) -> tuple[Stream, Callable[[], TokensAt]]:
        """The chunk's stream, and what embeds all but its ``new`` latents (T, h, w), with zeros in their place."""
        frames = history.shape[1]
        stream = self.stream((frames + new[0], *new[1:]), keep_frames=frames)
        return stream, lambda: self._patches(self._tensor(history), self._blank(new), stream)

    def _blank(self, size: Grid) -> Tensor:
        """Zeros in place of latents (T, h, w)."""
        return torch.zeros(self._config.out_channels, *size, device=self.model.device)

    def _patches(self, past: Tensor, blank: Tensor, stream: Stream) -> TokensAt:
        """What makes tokens of latents like ``blank`` after ``past``."""
        return partial(self.patch_tokens, stream=stream)

    def _sight(self, start: StartPayload | None) -> Tensor | None:
        """Tokens [tokens, hidden] of what the start shows, in families whose model is given any."""
        return None

    def _payload(
        self, order: DenoiseOrder, history: FloatArray, start: StartPayload | None, latents: FloatArray
    ) -> FloatArray:
        """What the chunk whose new ``latents`` these are hands on."""
        return latents

    def stream(self, latent_shape: Grid, keep_frames: int | None) -> Stream:
        """The stream of latents (T, h, w); predictions are wanted from latent frame ``keep_frames`` on, or all."""
        t, h, w = self._patch_grid(latent_shape)
        keep = None if keep_frames is None else keep_frames * h * w
        return self._stream((Cells(tuple(range(t)), h, w),), (t, h, w), keep)

    def _patch_grid(self, latent_shape: Sequence[int]) -> Grid:
        t, h, w = (size // part for size, part in zip(latent_shape, self._config.patch_size, strict=True))
        return t, h, w

    def _stream(self, parts: tuple[Cells, ...], grid: Grid, keep: int | None) -> Stream:
        """The stream of ``parts``, of which the last holds those of ``grid``."""
        shard = Shard(sum(cells.tokens for cells in parts), self._collective.rank, self._collective.world)
        return Stream(grid, shard, self._ropes.rows(parts, shard), keep)

    def predict(
        self,
        video: Tensor,
        branch: Branch,
        timestep: float,
        stream: Stream,
        *,
        reuse: bool = False,
        observe: Observer = unobserved,
    ) -> Tensor:
        """Velocity [16, T, h, w] of the model input ``video`` [channels, T, h, w], zero before the frames to keep.

        With ``reuse`` it comes from the branch's step cache and ``video`` has no influence.
        """
        tokens = None
        if not reuse:
            tokens = self.patch_tokens(video, stream)
            observe("img_in", tokens)
        return self.velocity(tokens, branch, timestep, stream, observe)

    def patch_tokens(self, video: Tensor, stream: Stream) -> Tensor:
        """This rank's tokens [local, hidden] of the model input ``video`` [channels, T, h, w]."""
        tokens: Tensor = self.model.img_in(stream.shard.take(patchify(video, self._config.patch_size)))
        return tokens

    def velocity(
        self, tokens: Tensor | None, branch: Branch, timestep: float, stream: Stream, observe: Observer = unobserved
    ) -> Tensor:
        """Velocity [16, T, h, w] from this rank's patch tokens, or (None) from the branch's step cache."""
        condition = branch.conditions.get(timestep)
        if condition is None:
            (condition,) = self.model.conditions(branch.prompt, [timestep], self.attend.kernel, observe)
        if branch.sight is not None:
            condition = replace(condition, text=torch.cat([branch.sight.to(condition.text.dtype), condition.text]))
        if tokens is None:
            values = self.model.reuse(branch.memo, stream, condition, self.attend, observe)
        else:
            memo = branch.memo if self._step_cache else None
            tokens = tokens.clone() if branch.added is None else tokens + branch.added
            values = self.model(tokens, stream, condition, self.attend, memo, observe, branch.tea)
        local = pad_rows(values, stream.shard.local, front=stream.shard.local - len(values))
        whole = self._collective.all_gather(local)[stream.before : stream.shard.total]
        return unpatchify(whole.float(), stream.grid, self._config.patch_size)

    def _branch(
        self,
        states: TextStates,
        added: Tensor | None = None,
        timesteps: tuple[float, ...] = (),
        guidance: float | None = None,
    ) -> Branch:
        """A branch whose table covers ``timesteps``. ``guidance`` is for a model that embeds it (see ``Prompt``)."""
        prompt = Prompt(self._tensor(states.states), self._tensor(states.pooled), guidance)

        def make() -> ConditionTable:
            conditions = self.model.conditions(prompt, timesteps, self.attend.kernel)
            return dict(zip(timesteps, conditions, strict=True))

        table = self._tables.get(table_key(states, timesteps, guidance), make) if timesteps else {}
        return Branch(prompt, added, table)

    def _tensor(self, array: FloatArray) -> Tensor:
        """A copy on the model's device: arrays that come out of a store are read-only."""
        return torch.tensor(array, dtype=torch.float32, device=self.model.device)


def prompts(order: DenoiseOrder, text: TextPayload, only: int | None = None) -> list[tuple[TextStates, bool]]:
    """[unconditional, conditional] or ``only`` one of them, each with whether it is the conditional one.

    Where no guidance acts it is there alone.
    """
    if not is_guided(order.guidance):
        return [(text.positive, True)]
    if text.negative is None:
        raise ValueError("guidance needs the negative prompt's states")
    pair = [(text.negative, False), (text.positive, True)]
    return pair if only is None else pair[only : only + 1]


def unfilled(model: Model, device: torch.device | str) -> Model:
    """``model``, built on the meta device, for inference: with undefined values on ``device`` unless that is meta."""
    if torch.device(device).type != "meta":
        model.to_empty(device=device)
    return model.eval().requires_grad_(False)
