"""Classifier-free guidance: when it acts, and how predictions become one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def is_guided(scale: float) -> bool:
    """Guidance acts above 1; at 1 the conditional prediction is the result and one pass is enough."""
    return scale > 1.0


def combine(predictions: Sequence[Tensor], scale: float) -> Tensor:
    """The only prediction, or ``u + scale * (c - u)`` of [unconditional, conditional], in their type."""
    if len(predictions) == 1:
        return predictions[0]
    unconditional, conditional = predictions
    return unconditional + scale * (conditional - unconditional)
