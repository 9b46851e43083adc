"""Queries, keys and values: how the output of a linear becomes what attention takes.

Heads lie one after the other in memory, each with all its rows: attention reads them fastest so, and the norm, the
rotation and the change of layout share one buffer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gamecraft_core.dit.layers import NORM_EPS, RMSNorm
from gamecraft_core.dit.rope import rotate_


def split_heads(features: Tensor, parts: int, heads: int) -> Tensor:
    """[rows, parts * heads * d] to a view [parts, rows, heads, d]."""
    rows, width = features.shape
    return features.view(rows, parts, heads, width // (parts * heads)).transpose(0, 1)


def empty_heads(parts: int, rows: int, heads: int, like: Tensor) -> Tensor:
    """Unset [parts, rows, heads, d], head-major in memory; ``like`` [rows, parts * heads * d] gives d and type."""
    return like.new_empty(parts, heads, rows, like.shape[-1] // (parts * heads)).transpose(1, 2)


def write_heads_(out: Tensor, features: Tensor, norms: Sequence[RMSNorm], table: Tensor | None) -> None:
    """Fill ``out`` [parts, rows, heads, d] from ``features`` [rows, parts * heads * d].

    The first ``len(norms)`` parts are normed and, in their first ``len(table)`` rows, rotated, both in float32.
    """
    out.copy_(split_heads(features, len(out), out.shape[2]))
    turned = out[: len(norms)]
    exact = turned.float()
    weight = torch.stack([norm.weight.float() for norm in norms])[:, None, None]
    size = torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
    exact.mul_(size.square_().div_(exact.shape[-1]).add_(NORM_EPS).rsqrt_()).mul_(weight)
    if table is not None:
        rotate_(exact, table)
    if exact is not turned:
        turned.copy_(exact)


def heads_of(features: Tensor, parts: int, heads: int, norms: Sequence[RMSNorm], table: Tensor | None) -> Tensor:
    """A new tensor filled by ``write_heads_``."""
    out = empty_heads(parts, len(features), heads, features)
    write_heads_(out, features, norms, table)
    return out
