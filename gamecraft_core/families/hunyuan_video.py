"""HunyuanVideo text-to-video: a whole video from noise and a prompt, as one chunk without history.

The model is told its guidance (embedded guidance), so that one pass a step is the rule; guidance above 1 with a
negative prompt comes on top, and then both branches are told the same embedded one.
"""

from __future__ import annotations

from functools import partial

import torch

from gamecraft_core.base.messages import DenoiseOrder, FloatArray, TextPayload
from gamecraft_core.base.preset import DitConfig, Preset
from gamecraft_core.dit.trunk import Trunk
from gamecraft_core.families.denoiser import Branch, Denoiser, prompts, unfilled
from gamecraft_core.sampling.denoise import OnStep
from gamecraft_core.sampling.guidance import embedded
from gamecraft_core.sampling.noise import draw
from gamecraft_core.timeline.schedule import make_schedule
from gamecraft_core.timeline.whole_video import plan_video


class HunyuanVideo(Trunk):
    """The published model: its state dict's keys and shapes are the official ones."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__(config, in_channels=config.in_channels)


def build_model(preset: Preset, device: torch.device | str, dtype: torch.dtype) -> HunyuanVideo:
    """A model whose weights are still to be filled: on ``meta`` without storage, elsewhere with undefined values."""
    with torch.device("meta"):
        model = HunyuanVideo(preset.dit).to(dtype)
    return unfilled(model, device)


class HunyuanVideoDenoiser(Denoiser[HunyuanVideo]):
    """Whole videos from noise."""

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
        """As in ``Denoiser``; the history has no frames, and ``chunk_frames`` are those of the whole video."""
        plan = plan_video(order.chunk_frames, order.height, order.width)
        shape = (self._config.out_channels, *plan.latent_shape)
        if noise is None:
            noise = draw(order.seed, order.index, "start_noise", shape)
        if noise.shape != shape or history.shape[1]:
            raise ValueError(f"latents {noise.shape} after history {history.shape} do not fit {shape} after none")
        stream = self.stream(plan.latent_shape, keep_frames=0)
        schedule = make_schedule(order.steps, order.shift, reverse=order.flow_reverse)
        branches = self.branches(order, text, tuple(map(float, schedule.timesteps)), only=self._half(order))
        tokens_at = partial(self.patch_tokens, stream=stream)
        return self._carried(order, self._tensor(noise), schedule, tokens_at, branches, stream, on_step)

    def branches(
        self, order: DenoiseOrder, text: TextPayload, timesteps: tuple[float, ...] = (), only: int | None = None
    ) -> list[Branch]:
        """A branch for each of ``prompts``."""
        told = embedded(order.embedded_guidance, self.model.dtype)
        return [self._branch(states, timesteps=timesteps, guidance=told) for states, _ in prompts(order, text, only)]
