"""Classifier-free guidance: when it acts, and how predictions become one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def is_guided(scale: float) -> bool:
    """Guidance acts above 1; at 1 the conditional prediction is the result and one pass is enough."""
    return scale > 1.0


def combine(predictions: Sequence[Tensor], scale: float, rescale: float = 0.0) -> Tensor:
    """The only prediction, or ``u + scale * (c - u)`` of [unconditional, conditional], in their type.

    ``rescale`` 0..1 moves the result's spread towards that of the conditional one (arXiv 2305.08891, section 3.4).
    """
    if len(predictions) == 1:
        return predictions[0]
    unconditional, conditional = predictions
    guided = unconditional + scale * (conditional - unconditional)
    if not rescale:
        return guided
    return guided * (rescale * conditional.std() / guided.std() + (1 - rescale))


def embedded(scale: float, dtype: torch.dtype) -> float:
    """What a model of ``dtype`` that embeds its guidance is told: 1000 times ``scale``, both in ``dtype``.

    Rounded as the published code rounds it: 6.0 is 6000 in float32 and float16, and 6016 in bfloat16.
    """
    return float(torch.tensor(scale, dtype=dtype) * 1000)
