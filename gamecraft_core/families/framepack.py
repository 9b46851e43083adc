"""FramePack: sections of a long video from one image, each shown the start and the latent frames around it, packed.

What is shown comes before the window's own tokens in one sequence, the nearer the finer: 4x, 2x, 1x, window. It is
clean and never predicted, so its tokens are made once a section. What the image shows, as an image encoder says it,
goes before the text. A section continues from the payload of the one before, whichever way time runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from gamecraft_core.base.errors import UsageError
from gamecraft_core.base.messages import DenoiseOrder, FloatArray, StartPayload
from gamecraft_core.base.preset import DitConfig, Preset
from gamecraft_core.dit.embed import CoarseEmbed, ImageProjection, patchify
from gamecraft_core.dit.rope import Cells
from gamecraft_core.dit.stream import Grid, Stream
from gamecraft_core.dit.trunk import Trunk
from gamecraft_core.families.denoiser import Denoiser, LastTokens, TokensAt, unfilled
from gamecraft_core.sampling.denoise import told_in
from gamecraft_core.sampling.solvers import Solver
from gamecraft_core.sampling.unipc import UniPc
from gamecraft_core.timeline.frames import SPATIAL_RATIO
from gamecraft_core.timeline.schedule import Schedule, make_schedule
from gamecraft_core.timeline.sections import carried, carry, clean_inputs, window_of

#: Clean latents [16, T, h, w], their places in time, and how many patches along each axis one token stands for.
Shown = tuple[FloatArray, Sequence[int], int]


class FramePack(Trunk):
    """The published model: its own five layers have the published names, all others the trunk's."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__(config, in_channels=config.in_channels)
        if not config.image_dim:
            raise UsageError(
                "FramePack is told what an image shows", field="dit.image_dim", remedy="give the encoder's width: 1152"
            )
        self.clean_x_embedder = CoarseEmbed(config.in_channels, config.hidden_size, config.patch_size)
        self.image_projection = ImageProjection(config.image_dim, config.hidden_size)


def build_model(preset: Preset, device: torch.device | str, dtype: torch.dtype) -> FramePack:
    """A model whose weights are still to be filled: on ``meta`` without storage, elsewhere with undefined values.

    The output projection is float32 whatever ``dtype`` is, as in the published code.
    """
    with torch.device("meta"):
        model = FramePack(preset.dit).to(dtype)
    model.final_layer.linear.float()
    return unfilled(model, device)


class FramePackDenoiser(Denoiser[FramePack]):
    """Sections in inverted or forward order; ``chunk_frames`` are four a latent frame of the window."""

    build_model = staticmethod(build_model)

    def _planned(self, order: DenoiseOrder, history: int) -> tuple[int, Grid]:
        window = window_of(order.chunk_frames)
        size = (window, order.height // SPATIAL_RATIO, order.width // SPATIAL_RATIO)
        return carried(window) if order.index else 0, size

    def _schedule(self, order: DenoiseOrder) -> Schedule:
        """Timesteps are rounded to the model's type, as the published code rounds them: 1000, 996, 988, ..."""
        return told_in(
            self.model.dtype, make_schedule(order.steps, order.shift, reverse=order.flow_reverse, by_odds=True)
        )

    def _solver(self, schedule: Schedule) -> Solver:
        return UniPc(schedule.sigmas)

    def _laid_out(
        self, order: DenoiseOrder, history: FloatArray, start: StartPayload | None, new: Grid
    ) -> tuple[Stream, Callable[[], TokensAt]]:
        window, past = new[0], history if order.index else None
        shown = clean_inputs(self._video.layout, window, order.index, order.chunks, past, _given(start).latents)
        at = shown.indices
        parts = [(shown.far, at.far, 4), (shown.middle, at.middle, 2), (shown.near, at.near, 1)]
        stream, tokens_at = self.packed(self._blank(new), at.window, parts)
        return stream, lambda: tokens_at

    def packed(
        self, blank: Tensor, times: Sequence[int], shown: Sequence[Shown], *, every_row: bool = False
    ) -> tuple[Stream, TokensAt]:
        """The stream of a window at ``times`` after what is ``shown``, and what makes tokens of latents like ``blank``.

        ``every_row``: predictions of what is shown are made, too.
        """
        patch = self._config.patch_size
        t, h, w = self._patch_grid(blank.shape[1:])
        own = Cells(tuple(times), h, w)
        parts = [Cells(tuple(places), h, w, side) for _, places, side in shown]
        stream = self._stream((*parts, own), (t, h, w), None if every_row else sum(cells.tokens for cells in parts))
        tokens = [self.model.clean_x_embedder(self._tensor(latents), side) for latents, _, side in shown]
        constant = stream.shard.take(torch.cat([*tokens, self.model.img_in(patchify(blank, patch))]))
        return stream, LastTokens(self.model.img_in, constant, stream, patch).at

    def _sight(self, start: StartPayload | None) -> Tensor:
        tokens: Tensor = self.model.image_projection(self._tensor(_given(start).image))
        return tokens

    def _payload(
        self, order: DenoiseOrder, history: FloatArray, start: StartPayload | None, latents: FloatArray
    ) -> FloatArray:
        past = history if order.index else None
        return np.ascontiguousarray(carry(self._video.layout, latents.shape[1], past, latents, _given(start).latents))


def _given(start: StartPayload | None) -> StartPayload:
    if start is None:
        raise ValueError("a section of this family needs the encoded start")
    return start
