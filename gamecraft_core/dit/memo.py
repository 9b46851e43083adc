"""The step cache: an object of one guidance branch of one denoise call, never of a module."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(slots=True)
class StepMemo:
    """What entered the last single block in the latest full step: joint tokens [local video + text, hidden]."""

    tokens: Tensor | None = None
