"""Hunyuan-GameCraft: a trunk with a camera encoder, and how one chunk is conditioned.

The model input holds the history beside the noisy latents (see ``families/history.py``); the camera enters as tokens
added to the patches.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gamecraft_core.base.messages import DenoiseOrder, TextPayload, TextStates
from gamecraft_core.base.preset import DitConfig, Preset
from gamecraft_core.dit.stream import Grid, Stream
from gamecraft_core.dit.trunk import Trunk
from gamecraft_core.families.camera_net import CameraNet
from gamecraft_core.families.denoiser import Branch, Denoiser, TokensAt, prompts, unfilled
from gamecraft_core.families.history import input_channels, tokens_after
from gamecraft_core.families.plucker import plucker_maps, round_to_bf16
from gamecraft_core.timeline.camera import control_rows, intrinsics, relative_c2w
from gamecraft_core.timeline.frames import SPATIAL_RATIO, clip_latents
from gamecraft_core.timeline.planner import plan_chunk


class GameCraft(Trunk):
    """The published model: its state dict's keys and shapes are the official ones."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__(config, in_channels=input_channels(config))
        self.camera_net = CameraNet(
            config.camera_in_channels,
            config.camera_down_coef,
            config.in_channels,
            config.patch_size,
            config.hidden_size,
        )


def build_model(preset: Preset, device: torch.device | str, dtype: torch.dtype) -> GameCraft:
    """A model whose weights are still to be filled: on ``meta`` without storage, elsewhere with undefined values.

    The camera encoder and the output projection are float32 whatever ``dtype`` is, as in the published code.
    """
    with torch.device("meta"):
        model = GameCraft(preset.dit).to(dtype)
    model.camera_net.float()
    model.final_layer.linear.float()
    return unfilled(model, device)


class GameCraftDenoiser(Denoiser[GameCraft]):
    """Chunks under a camera, each after an image or the latents of the chunk before."""

    build_model = staticmethod(build_model)

    def _planned(self, order: DenoiseOrder, history: int) -> tuple[int, Grid]:
        plan = plan_chunk(order.index, order.chunk_frames, history)
        size = (plan.new_latents, order.height // SPATIAL_RATIO, order.width // SPATIAL_RATIO)
        return plan.history_latents, size

    def _patches(self, past: Tensor, blank: Tensor, stream: Stream) -> TokensAt:
        return tokens_after(self.model, past, blank, stream, self._config.patch_size)

    def branch(self, states: TextStates, camera: Tensor, stream: Stream, timesteps: tuple[float, ...] = ()) -> Branch:
        """A branch from a prompt and the camera tokens of the new frames, before which history sees no camera.

        Its table covers ``timesteps``.
        """
        history = self.model.camera_net.zero_token().expand(stream.shard.total - len(camera), -1)
        return self._branch(states, stream.shard.take(torch.cat([history, camera])), timesteps)

    def branches(
        self,
        order: DenoiseOrder,
        text: TextPayload,
        stream: Stream,
        timesteps: tuple[float, ...] = (),
        only: int | None = None,
    ) -> list[Branch]:
        """The unconditional one sees a camera that does not move."""
        if order.control is None:
            raise ValueError("a chunk of this family needs a control")
        rows = control_rows(order.control, order.chunk_frames)
        lens = self._tensor(intrinsics(rows[: order.chunk_frames], order.height, order.width))
        poses = self._tensor(relative_c2w(rows, order.chunk_frames))
        chosen = []
        for states, conditional in prompts(order, text, only):
            camera = self._camera(poses, lens, order) if conditional else self._still_camera(lens, order)
            chosen.append(self.branch(states, camera, stream, timesteps))
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
