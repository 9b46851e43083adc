"""Guidance over two halves of a group: each half denoises one branch, and every rank learns both velocities.

Where no guidance acts there is one branch, and the whole group shares its sequence.
"""

from __future__ import annotations

from typing import Any

from gamecraft_core.base.messages import DenoiseOrder, FloatArray, StartPayload, TextPayload
from gamecraft_core.families.denoiser import Denoiser
from gamecraft_core.sampling.denoise import OnStep
from gamecraft_core.sampling.guidance import is_guided


class GuidanceSplit:
    """Two denoisers over one model: ``halves`` (made with ``across``) for guided chunks, ``whole`` for the others."""

    def __init__(self, whole: Denoiser[Any], halves: Denoiser[Any]) -> None:
        self.whole = whole
        self.halves = halves

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
        """As ``Denoiser.denoise``: same arguments on every rank of the whole group, same result."""
        runner = self.halves if is_guided(order.guidance) else self.whole
        return runner.denoise(order, text, history, start, on_step=on_step, noise=noise)
