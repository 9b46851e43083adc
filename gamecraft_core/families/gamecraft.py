"""Hunyuan-GameCraft: a trunk with a camera encoder, and how one chunk is conditioned and denoised.

The model input is 33 channels: noisy latents, history latents (zero on new frames) and a mask (1 on history); the
camera enters as tokens added to the patches. History frames are fed clean at every step and are never predicted.
All state of a denoise (camera tokens, constant patch tokens, step caches) lives in the call.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from gamecraft_core.attention.kernel import pick_kernel
from gamecraft_core.attention.ulysses import JointAttention
from gamecraft_core.base.messages import DenoiseOrder, FloatArray, TextPayload, TextStates
from gamecraft_core.base.preset import DitConfig, Preset
from gamecraft_core.dit.condition import ConditionTable, ConditionTables, table_key
from gamecraft_core.dit.embed import patchify, unpatchify
from gamecraft_core.dit.memo import StepMemo
from gamecraft_core.dit.rope import RopeTables
from gamecraft_core.dit.stream import Grid, Prompt, Stream
from gamecraft_core.dit.trunk import Observer, Trunk, unobserved
from gamecraft_core.families.camera_net import CameraNet
from gamecraft_core.families.plucker import plucker_maps, round_to_bf16
from gamecraft_core.parallel.collective import Collective
from gamecraft_core.parallel.shard import Shard, pad_rows
from gamecraft_core.sampling.denoise import OnStep, denoise
from gamecraft_core.sampling.guidance import combine, is_guided
from gamecraft_core.sampling.noise import draw
from gamecraft_core.timeline.camera import control_rows, intrinsics, relative_c2w
from gamecraft_core.timeline.frames import clip_latents
from gamecraft_core.timeline.planner import plan_chunk
from gamecraft_core.timeline.schedule import cached_steps, make_schedule

#: Pixels per latent, each way.
SPATIAL_RATIO = 8


class GameCraft(Trunk):
    """The published model: its state dict's keys and shapes are the official ones."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__(config, in_channels=2 * config.in_channels + 1)
        self.camera_net = CameraNet(
            config.camera_in_channels,
            config.camera_down_coef,
            config.in_channels,
            config.patch_size,
            config.hidden_size,
        )

    @property
    def device(self) -> torch.device:
        return self.img_in.proj.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the trunk's weights; the camera encoder and the output projection may be finer."""
        return self.img_in.proj.weight.dtype

    def compile_blocks(self, backend: str = "inductor") -> None:
        """Have torch.compile make one kernel set for all double blocks and one for all single blocks but the last."""
        for block in (*self.double_blocks, *self.single_blocks[:-1]):
            block.compile(backend=backend)


def build_model(preset: Preset, device: torch.device | str, dtype: torch.dtype) -> GameCraft:
    """A model whose weights are still to be filled: on ``meta`` without storage, elsewhere with undefined values.

    The camera encoder and the output projection are float32 whatever ``dtype`` is, as in the published code.
    """
    with torch.device("meta"):
        model = GameCraft(preset.dit).to(dtype)
    model.camera_net.float()
    model.final_layer.linear.float()
    if torch.device(device).type != "meta":
        model.to_empty(device=device)
    return model.eval().requires_grad_(False)


@dataclass(slots=True)
class Branch:
    """One guidance branch of one denoise call: prompt, camera tokens of this rank's rows, step cache.

    Timesteps that are not in the table of ``conditions`` are computed when they are met.
    """

    prompt: Prompt
    camera: Tensor
    conditions: ConditionTable = field(default_factory=dict)
    memo: StepMemo = field(default_factory=StepMemo)


class ChunkTokens:
    """Patch tokens of this rank in one denoise call; what history, mask and bias give them is made once."""

    def __init__(self, model: GameCraft, past: Tensor, blank: Tensor, stream: Stream, patch: Grid) -> None:
        """``past`` [16, T_history, h, w] and zeros in place of the latents to come."""
        self._embed, self._stream, self._patch = model.img_in, stream, patch
        self._constant: Tensor = model.img_in(stream.shard.take(patchify(with_history(past, blank), patch)))

    def at(self, latents: Tensor) -> Tensor:
        """Tokens [local, hidden] with ``latents`` [16, T_new, h, w] after the history."""
        shard = self._stream.shard
        patches = patchify(latents, self._patch)
        patches = shard.take(pad_rows(patches, shard.total, front=shard.total - len(patches)))
        tokens = self._constant.clone()
        tokens[self._stream.kept] += self._embed.change(patches[self._stream.kept])
        return tokens


class GameCraftDenoiser:
    """Denoises chunks on one rank; what it keeps between calls is keyed by the content or the sizes it depends on."""

    def __init__(
        self,
        preset: Preset,
        model: GameCraft,
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
        history: FloatArray,
        *,
        on_step: OnStep | None = None,
        noise: FloatArray | None = None,
    ) -> FloatArray:
        """New latents [16, T_new, h, w] after ``history`` [16, 1 (an image) or T_new, h, w].

        Every rank of the group calls with the same arguments and gets the same result. ``noise`` [16, T_new, h, w]
        replaces the draw from the order's seed.
        """
        plan = plan_chunk(order.index, order.chunk_frames, history.shape[1])
        height, width = order.height // SPATIAL_RATIO, order.width // SPATIAL_RATIO
        shape = (self._config.out_channels, plan.new_latents, height, width)
        if noise is None:
            noise = draw(order.seed, order.index, "start_noise", shape)
        if noise.shape != shape or history.shape != (*shape[:1], plan.history_latents, *shape[2:]):
            raise ValueError(f"latents {noise.shape} after history {history.shape} do not fit {shape}")
        stream = self.stream((plan.total_latents, height, width), keep_frames=plan.history_latents)
        across = self._across if is_guided(order.guidance) else None
        schedule = make_schedule(order.steps, order.shift)
        timesteps = tuple(map(float, schedule.timesteps))
        branches = self.branches(order, text, stream, timesteps, only=None if across is None else across.rank)
        reused = cached_steps(order.steps) if self._step_cache else frozenset()
        start = self._tensor(noise)
        patches = ChunkTokens(
            self.model, self._tensor(history), torch.zeros_like(start), stream, self._config.patch_size
        )

        def predict(latents: Tensor, step: int, timestep: float) -> Tensor:
            tokens = None if step in reused else patches.at(latents)
            velocities = [self.velocity(tokens, branch, timestep, stream) for branch in branches]
            if across is not None:
                velocities = list(across.all_gather(velocities[0][None]))
            return combine(velocities, order.guidance)[:, plan.history_latents :]

        latents = denoise(start, schedule, predict, on_step)
        result: FloatArray = latents.cpu().numpy()
        return result

    def stream(self, latent_shape: Grid, keep_frames: int | None) -> Stream:
        """The stream of latents (T, h, w); predictions are wanted from latent frame ``keep_frames`` on, or all."""
        t, h, w = (size // part for size, part in zip(latent_shape, self._config.patch_size, strict=True))
        shard = Shard(t * h * w, self._collective.rank, self._collective.world)
        keep = None if keep_frames is None else keep_frames * h * w
        return Stream((t, h, w), shard, self._ropes.rows((t, h, w), shard), keep)

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
        """Velocity [16, T, h, w] of the model input ``video`` [33, T, h, w], zero before the frames to keep.

        With ``reuse`` it comes from the branch's step cache and ``video`` has no influence.
        """
        tokens = None
        if not reuse:
            tokens = self.model.img_in(stream.shard.take(patchify(video, self._config.patch_size)))
            observe("img_in", tokens)
        return self.velocity(tokens, branch, timestep, stream, observe)

    def velocity(
        self, tokens: Tensor | None, branch: Branch, timestep: float, stream: Stream, observe: Observer = unobserved
    ) -> Tensor:
        """Velocity [16, T, h, w] from this rank's patch tokens, or (None) from the branch's step cache."""
        condition = branch.conditions.get(timestep)
        if condition is None:
            (condition,) = self.model.conditions(branch.prompt, [timestep], self.attend.kernel, observe)
        if tokens is None:
            values = self.model.reuse(branch.memo, stream, condition, self.attend, observe)
        else:
            memo = branch.memo if self._step_cache else None
            values = self.model(tokens + branch.camera, stream, condition, self.attend, memo, observe)
        local = pad_rows(values, stream.shard.local, front=stream.shard.local - len(values))
        whole = self._collective.all_gather(local)[: stream.shard.total]
        return unpatchify(whole.float(), stream.grid, self._config.patch_size)

    def branch(self, states: TextStates, camera: Tensor, stream: Stream, timesteps: tuple[float, ...] = ()) -> Branch:
        """A branch from a prompt and the camera tokens of the new frames, before which history sees no camera.

        Its table covers ``timesteps``.
        """
        history = self.model.camera_net.zero_token().expand(stream.shard.total - len(camera), -1)
        prompt = Prompt(self._tensor(states.states), self._tensor(states.pooled))

        def make() -> ConditionTable:
            conditions = self.model.conditions(prompt, timesteps, self.attend.kernel)
            return dict(zip(timesteps, conditions, strict=True))

        table = self._tables.get(table_key(states, timesteps), make) if timesteps else {}
        return Branch(prompt, stream.shard.take(torch.cat([history, camera])), table)

    def branches(
        self,
        order: DenoiseOrder,
        text: TextPayload,
        stream: Stream,
        timesteps: tuple[float, ...] = (),
        only: int | None = None,
    ) -> list[Branch]:
        """[unconditional, conditional] or ``only`` one of them; the conditional alone where no guidance acts."""
        rows = control_rows(order.control, order.chunk_frames)
        lens = self._tensor(intrinsics(rows[: order.chunk_frames], order.height, order.width))
        poses = self._tensor(relative_c2w(rows, order.chunk_frames))
        positive, negative = text.positive, text.negative
        if not is_guided(order.guidance):
            return [self.branch(positive, self._camera(poses, lens, order), stream, timesteps)]
        if negative is None:
            raise ValueError("guidance needs the negative prompt's states")
        chosen = []
        if only != 1:
            chosen.append(self.branch(negative, self._still_camera(lens, order), stream, timesteps))
        if only != 0:
            chosen.append(self.branch(positive, self._camera(poses, lens, order), stream, timesteps))
        return chosen

    def _camera(self, poses: Tensor, lens: Tensor, order: DenoiseOrder) -> Tensor:
        tokens: Tensor = self.model.camera_net(round_to_bf16(plucker_maps(poses, lens, order.height, order.width)))
        return tokens

    def _still_camera(self, lens: Tensor, order: DenoiseOrder) -> Tensor:
        """Tokens of a camera that does not move. With one lens throughout all latent frames are equal: make one."""
        identity = torch.eye(4, device=lens.device)
        if bool((lens == lens[0]).all()):
            return self._camera(identity[None], lens[:1], order).repeat(clip_latents(order.chunk_frames), 1)
        return self._camera(identity.expand(len(lens), -1, -1), lens, order)

    def _tensor(self, array: FloatArray) -> Tensor:
        """A copy on the model's device: arrays that come out of a store are read-only."""
        return torch.tensor(array, dtype=torch.float32, device=self.model.device)


def with_history(past: Tensor, latents: Tensor) -> Tensor:
    """The model input [33, T, h, w]: history before new latents, history before zeros, 1 before 0."""
    video = torch.cat([past, latents], dim=1)
    clean = torch.cat([past, torch.zeros_like(latents)], dim=1)
    mask = torch.zeros_like(video[:1])
    mask[:, : past.shape[1]] = 1
    return torch.cat([video, clean, mask])
