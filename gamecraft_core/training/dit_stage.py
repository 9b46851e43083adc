"""Training the transformer: flow matching on the latents to come, given history, camera and words.

As the sampler will ask it: history is clean, stands before the new frames and is masked; the camera of the history is
a camera of zeros; noise levels are drawn through the sampler's shift. What is to be continued is one image, one clip
or several, mixed. Now and then the camera is taken away (it stands still), and half of those times the prompt, too:
the branches that classifier-free guidance subtracts.

From ``guided_from`` on the target is the velocity that guidance by the camera would give (Tang et al. 2025, "Diffusion
Models without Classifier-free Guidance"): what the camera adds is added over again, in part, as the model itself sees
it. So one forward pass obeys as two would.

Until ``whole_from`` a step looks at a few of a chunk's latent frames only. Any of them shows how the camera moves the
history, so more worlds are seen for the same work; the steps after that learn how all of them hang together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gamecraft_core.base.messages import TextStates
from gamecraft_core.base.preset import Preset
from gamecraft_core.dit.rope import rope_table
from gamecraft_core.families.gamecraft import GameCraft, build_model
from gamecraft_core.families.history import with_history
from gamecraft_core.families.plucker import plucker_maps, round_to_bf16
from gamecraft_core.timeline.camera import intrinsics, relative_c2w
from gamecraft_core.timeline.frames import clip_latents
from gamecraft_core.training.dit_forward import TextBatch, velocity
from gamecraft_core.training.latents import CHUNKS, Pool, Sample

Kind = Literal["image", "clip", "clips"]
KINDS: tuple[Kind, ...] = ("image", "clip", "clips")
#: Clips of history a kind has.
_CLIPS = {"image": 0, "clip": 1, "clips": 2}
#: Parts of a weight's fan-in that are zero when training starts: these layers add nothing yet.
_SILENT = ("img_mod.", "txt_mod.", "modulation.", "adaLN_modulation.", "final_layer.linear.")


@dataclass(frozen=True, slots=True)
class DitSettings:
    """``mix``: how often each of ``KINDS`` is taken; ``batch``: samples of each.

    Against drift, for at run time a history holds the model's own latents: ``jitter`` is the largest noise added to it,
    ``fade`` the largest part of its fine detail that is taken away where it is clips.
    ``few``: latent frames looked at before step ``whole_from``; from there on batches are half as large.
    ``guidance``: the strength that is trained in from step ``guided_from`` on; ``drop``: of samples without a camera.
    """

    seed: int
    whole_from: int
    guided_from: int
    few: int = 3
    mix: tuple[float, float, float] = (0.55, 0.4, 0.05)
    batch: tuple[int, int, int] = (16, 6, 2)
    drop: float = 0.06
    jitter: float = 0.15
    fade: float = 0.75
    guidance: float = 1.6
    bf16: bool = True


def new_dit(preset: Preset, seed: int) -> GameCraft:
    """A transformer to train, its weights drawn from ``seed``."""
    model = build_model(preset, "cpu", torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if any(part in name for part in _SILENT) or name.endswith(".bias"):
                value.zero_()
            elif value.dim() > 1:
                value.normal_(0, value[0].numel() ** -0.5, generator=generator)
            else:
                value.fill_(1)
    return model.requires_grad_(True)


class DitObjective:
    """The transformer, and its loss at a step."""

    def __init__(
        self, preset: Preset, model: GameCraft, settings: DitSettings, pool: Pool, encode: Callable[[str], TextStates]
    ) -> None:
        """``encode`` gives a prompt's states; they are asked for again and again."""
        self._preset, self._model, self._settings, self._pool, self._encode = preset, model, settings, pool, encode

    @property
    def module(self) -> nn.Module:
        return self._model

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        draw = np.random.Generator(np.random.Philox(key=[self._settings.seed, step]))
        pool = self._pool.at(step)
        kind = KINDS[int(draw.choice(len(KINDS), p=self._settings.mix))]
        kept = self._kept(draw, step)
        count = self._settings.batch[KINDS.index(kind)]
        count = count if len(kept) == self._settings.few else max(1, count // 2)
        chosen = [pool[int(draw.integers(len(pool)))] for _ in range(count)]
        first = _CLIPS[kind]
        chunks = [int(draw.integers(first, CHUNKS)) for _ in chosen]
        past = torch.stack([_past(sample, chunk, kind) for sample, chunk in zip(chosen, chunks, strict=True)]).float()
        clean = torch.stack(
            [sample.clips[chunk][:, kept] for sample, chunk in zip(chosen, chunks, strict=True)]
        ).float()
        dropped = draw.random(count) < self._settings.drop
        wordless = dropped & (draw.random(count) < 0.5)
        if kind != "image":
            past = faded(past, torch.from_numpy(draw.uniform(0, self._settings.fade, count)).float())
        past = past + draw.uniform(0, self._settings.jitter) * _normal(draw, past.shape)
        sigma = self._sigmas(draw, count)
        noise = _normal(draw, clean.shape)
        latents = torch.lerp(clean, noise, sigma[:, None, None, None, None])
        video = torch.stack([with_history(*pair) for pair in zip(past, latents, strict=True)])
        text = self._text(["" if gone else each.prompt for each, gone in zip(chosen, wordless, strict=True)])
        shown = zip(chosen, chunks, dropped, strict=True)
        maps = [self._maps(each.rows[chunk], kept, still=bool(gone)) for each, chunk, gone in shown]
        predicted = self._velocity(video, sigma, text, maps, kept)
        target = noise - clean
        if step >= self._settings.guided_from:
            still = [self._maps(each.rows[0], kept, still=True) for each in chosen]
            with torch.no_grad():
                free = self._velocity(video, sigma, text, still, kept)
            part = torch.from_numpy(~dropped).float() * (1 - 1 / self._settings.guidance)
            target = target + part[:, None, None, None, None] * (predicted.detach() - free)
        error = (predicted - target).square().mean()
        return error, {f"loss_{kind}": float(error.detach())}

    def state(self) -> dict[str, Any]:
        return self._pool.state()

    def restore(self, state: dict[str, Any]) -> None:
        self._pool.restore(state)

    def _velocity(self, video: Tensor, sigma: Tensor, text: TextBatch, maps: list[Tensor], kept: list[int]) -> Tensor:
        """Velocities [B, 16, T, h, w] of the new latent frames."""
        past = video.shape[2] - len(kept)
        rope = self._rope(past, kept)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._settings.bf16):
            camera = self._camera(maps, past, kept)
            every = velocity(self._model, video, sigma * 1000, text, camera, rope, self._preset.dit.patch_size)
        return every[:, :, past:]

    def _sigmas(self, draw: np.random.Generator, count: int) -> Tensor:
        """Noise levels [count], spread evenly over the batch, then shifted as the sampler's are."""
        u = torch.tensor((np.arange(count) + draw.random(count)) / count, dtype=torch.float32)
        shift = self._preset.sampling.shift
        return shift * u / (1 + (shift - 1) * u)

    def _kept(self, draw: np.random.Generator, step: int) -> list[int]:
        """Which of a chunk's latent frames ``step`` looks at, in order."""
        every = clip_latents(self._preset.video.chunk_frames)
        if step >= self._settings.whole_from:
            return list(range(every))
        return sorted(draw.choice(every, self._settings.few, replace=False).tolist())

    def _maps(self, rows: Tensor, kept: list[int], *, still: bool) -> Tensor:
        """Plücker maps [F, 6, H, W] of pose rows, or of a camera that does not move: of the first frame and of those
        behind the latent frames ``kept``."""
        video, values = self._preset.video, rows.numpy()
        frames = [0, *(4 * latent - 3 + frame for latent in kept if latent for frame in range(4))]
        poses = torch.from_numpy(relative_c2w(values, video.chunk_frames))[frames]
        if still:
            poses = torch.eye(4).expand_as(poses)
        lens = torch.from_numpy(intrinsics(values[frames], video.height, video.width))
        return round_to_bf16(plucker_maps(poses, lens, video.height, video.width))

    def _camera(self, maps: list[Tensor], past: int, kept: list[int]) -> Tensor:
        """Camera tokens [B, tokens, hidden]: zeros' on ``past`` latent frames, those of ``maps`` after them."""
        net = self._model.camera_net
        tokens = torch.stack(
            [net(each).reshape(1 + len(kept) - (0 in kept), -1, net.camera_in.proj.out_channels) for each in maps]
        )
        of_frames = tokens if 0 in kept else tokens[:, 1:]
        before = net.zero_token().expand(len(maps), past, of_frames.shape[2], -1)
        return torch.cat([before, of_frames], dim=1).flatten(1, 2).float()

    def _rope(self, past: int, kept: list[int]) -> Tensor:
        video, dit = self._preset.video, self._preset.dit
        every = past + clip_latents(video.chunk_frames)
        height, width = (
            side // 8 // part for side, part in zip((video.height, video.width), dit.patch_size[1:], strict=True)
        )
        table = rope_table((every, height, width), dit.rope_dim_list, dit.rope_theta)
        by_frame = table.view(every, height * width, *table.shape[1:])
        return by_frame[[*range(past), *(past + latent for latent in kept)]].flatten(0, 1)

    def _text(self, prompts: list[str]) -> TextBatch:
        states = [self._encode(prompt) for prompt in prompts]
        longest = max(len(each.states) for each in states)
        padded = torch.zeros(len(states), longest, states[0].states.shape[1])
        real = torch.zeros(len(states), longest, dtype=torch.bool)
        for row, each in enumerate(states):
            padded[row, : len(each.states)] = torch.tensor(each.states)
            real[row, : len(each.states)] = True
        return TextBatch(padded, real, torch.tensor(np.stack([each.pooled for each in states])))


def _past(sample: Sample, chunk: int, kind: Kind) -> Tensor:
    """The history [16, T, h, w] that ``chunk`` continues."""
    if kind == "image":
        return sample.images[chunk]
    return torch.cat(list(sample.clips[chunk - _CLIPS[kind] : chunk]), dim=1)


def faded(latents: Tensor, part: Tensor) -> Tensor:
    """``latents`` [B, 16, T, h, w] without ``part`` [B] of what distinguishes a place from those around it."""
    coarse = F.avg_pool3d(latents, (1, 3, 3), 1, (0, 1, 1), count_include_pad=False)
    return torch.lerp(latents, coarse, part[:, None, None, None, None])


def _normal(draw: np.random.Generator, shape: torch.Size) -> Tensor:
    return torch.from_numpy(draw.standard_normal(tuple(shape), np.float32))
