"""How well the micro world obeys: chunks of a preset on scenes that no training saw, against the renderer's truth.

What a chunk shows is read back by rendering: of all camera paths of its action at a range of speeds, forwards and
backwards, which one's true pictures are nearest to what came out. That is the estimated camera motion, with its sign
and its size. Only what the first picture shows is compared: what comes into view is invented, and the further a path
leads the more of it there is, so that otherwise short paths would look right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gamecraft_core.base.messages import DenoiseOrder, FloatArray, TextPayload
from gamecraft_core.base.preset import Preset
from gamecraft_core.base.spec import ActionControl, Control
from gamecraft_core.families.gamecraft import GameCraftDenoiser
from gamecraft_core.micro.episodes import CHUNK_FRAMES, Episode, make_episode, world_camera
from gamecraft_core.micro.flow import true_flow
from gamecraft_core.text.encoders import TextEncoder
from gamecraft_core.vae.codec import Frames, VaeCodec

#: Seeds of scenes that training never draws.
UNSEEN = 2**42
_OPPOSITE = {
    "w": "s",
    "s": "w",
    "a": "d",
    "d": "a",
    "left_rot": "right_rot",
    "right_rot": "left_rot",
    "up_rot": "down_rot",
    "down_rot": "up_rot",
}
#: Parts of the strongest speed that the search tries, each way; 0 stands for no motion at all.
_TRIED = (0.0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0)
#: The frames that are compared: late enough to have moved, early enough to overlap the start.
_LOOKED_AT = (8, 16, 24)
#: How near a part of the strongest speed is read, the parts being those tried.
_READ_TO = 0.15
#: Of a view, the least part that the first picture must show for it to be compared.
_LEAST_KNOWN = 0.1
#: Pixels that are averaged before: a picture is judged by where things are, not by how sharp they are.
_COARSE = 2


@dataclass(frozen=True, slots=True)
class Models:
    """The three models of a preset, in this process."""

    preset: Preset
    text: TextEncoder
    denoiser: GameCraftDenoiser
    codec: VaeCodec

    def chunk(self, index: int, control: Control, prompt: str, history: FloatArray, seed: int = 0) -> FloatArray:
        """The latents of one chunk."""
        sampling, video = self.preset.sampling, self.preset.video
        order = DenoiseOrder(
            session_id="bench",
            index=index,
            control=control,
            seed=seed,
            steps=sampling.steps,
            guidance=1.0,
            shift=sampling.shift,
            height=video.height,
            width=video.width,
            chunk_frames=CHUNK_FRAMES,
        )
        return self.denoiser.denoise(order, TextPayload(self.text.encode(prompt)), history)


@dataclass(frozen=True, slots=True)
class Trial:
    """One first chunk: mean true flow in pixels at the frame looked at, motion asked and seen, PSNR of both rivals.

    ``asked`` and ``seen`` are parts of the strongest speed; ``seen`` is negative where it goes the other way.
    ``readable``: the truth's own pictures say what was asked (along a wall of level stripes no walk can be seen).
    """

    action: str
    asked: float
    seen: float
    readable: bool
    flow: float
    chunk_flow: float
    psnr: float
    still_psnr: float


def try_action(models: Models, action: str, seed: int) -> Trial:
    """A chunk of ``action`` at a drawn speed, from the first picture of an unseen scene."""
    preset = models.preset
    draw = np.random.default_rng(seed)
    asked = float(draw.uniform(0.1, 1.0))
    most = preset.control.most_for(action)
    control = ActionControl(action, asked * most)
    size = (preset.video.height, preset.video.width)
    truth = make_episode(UNSEEN + seed, 1, size, preset.control, controls=[control])
    history = models.codec.encode_image(truth.chunk(0)[0].numpy(), seed)
    made = models.codec.decode(models.chunk(0, control, truth.prompt, history, seed))
    return Trial(
        action=action,
        asked=asked,
        seen=seen_motion(truth, made, action, most),
        readable=abs(seen_motion(truth, truth.chunk(0).numpy(), action, most) - asked) < _READ_TO,
        flow=mean_flow(truth, CHUNK_FRAMES // 2),
        chunk_flow=float(np.mean([mean_flow(truth, frame) for frame in range(4, CHUNK_FRAMES, 4)])),
        psnr=psnr(truth.chunk(0), torch.from_numpy(made)),
        still_psnr=psnr(truth.chunk(0), truth.chunk(0)[:1].expand(CHUNK_FRAMES, -1, -1, -1)),
    )


def seen_motion(truth: Episode, made: Frames, action: str, most: float) -> float:
    """The part of the strongest speed, negative for the opposite action, whose pictures ``made`` is nearest to."""
    shown = _coarse(torch.from_numpy(made)[list(_LOOKED_AT)])
    best, chosen = np.inf, 0.0
    for sign, name in ((1, action), (-1, _OPPOSITE[action])):
        for part in _TRIED:
            poses, lenses = world_camera([ActionControl(name, part * most)], made.shape[1:3])
            views = truth.caster.cast(poses[list(_LOOKED_AT)], lenses[list(_LOOKED_AT)])
            pairs = zip(views.depth, _LOOKED_AT, strict=True)
            known = torch.stack([_known(depth, lenses[0], poses[frame], poses[0]) for depth, frame in pairs])
            if float(known.mean()) < _LEAST_KNOWN:
                continue
            error = float(((_coarse(views.frames) - shown).abs().mean(1) * known).sum() / known.sum())
            if error < best:
                best, chosen = error, sign * part
    return chosen


def _known(depth: Tensor, lens: FloatArray, pose: FloatArray, first: FloatArray) -> Tensor:
    """1 where the picture at ``pose`` shows what lies in the ``first`` one's view, else 0; coarse [H, W]."""
    height, width = depth.shape
    flow = true_flow(depth, lens, pose, first)
    x = torch.arange(width) + 0.5 + flow[..., 0]
    y = (torch.arange(height) + 0.5)[:, None] + flow[..., 1]
    inside = (x > 0) & (x < width) & (y > 0) & (y < height)  # not where there is no flow: it is behind the camera
    return (F.avg_pool2d(inside[None].float(), _COARSE)[0] == 1).float()


def mean_flow(truth: Episode, frame: int) -> float:
    """Mean length in pixels of the true flow from the first frame to ``frame``."""
    flow = true_flow(truth.pictures.depth[0], truth.lenses[0], truth.poses[0], truth.poses[frame])
    return float(flow.norm(dim=-1).clamp(max=float(flow.shape[1])).nanmean())


def psnr(one: Tensor, other: Tensor) -> float:
    error = (one.float() - other.float()).square().mean().clamp(min=1e-6)
    return float(10 * torch.log10(255**2 / error))


def _coarse(frames: Tensor) -> Tensor:
    return F.avg_pool2d(frames.float().movedim(-1, 1), _COARSE)
