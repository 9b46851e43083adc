"""GameCraft's forward pass with gradients and a batch, over the very modules that inference runs.

Inference works on one sample and in place. Here the same layers are walked with ordinary operations on a batch of
samples of one layout; the numbers agree to rounding (a test compares them). Matmuls follow autocast, residual streams
stay float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gamecraft_core.dit.blocks import DoubleBlock, SingleBlock
from gamecraft_core.dit.embed import TimestepEmbedder, patchify, unpatchify
from gamecraft_core.dit.layers import MLP, NORM_EPS, RMSNorm
from gamecraft_core.dit.refiner import RefinerBlock, TextRefiner
from gamecraft_core.families.gamecraft import GameCraft

Size3 = tuple[int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class TextBatch:
    """Prompts of a batch: ``states`` [B, L, width] padded on the right, ``real`` [B, L] bool, ``pooled`` [B, width]."""

    states: Tensor
    real: Tensor
    pooled: Tensor

    @property
    def even(self) -> bool:
        return bool(self.real.all())


def velocity(
    model: GameCraft, video: Tensor, timesteps: Tensor, text: TextBatch, camera: Tensor, rope: Tensor, patch: Size3
) -> Tensor:
    """Velocity [B, 16, T, h, w] of model inputs ``video`` [B, 33, T, h, w] at ``timesteps`` [B] (0..1000).

    ``camera`` [B, tokens, hidden] is added to the patches; ``rope`` is the layout's table.
    """
    tokens = F.linear(
        torch.stack([patchify(one, patch) for one in video]),
        model.img_in.proj.weight.flatten(1),
        model.img_in.proj.bias,
    )
    image = tokens.float() + camera
    vector = embed_time(model.time_in, timesteps) + model.vector_in(text.pooled)
    words = _refined(model.txt_in, text, timesteps, model.double_blocks[0]._heads)  # type: ignore[arg-type]
    mask = None
    if not text.even:
        mask = torch.cat([text.real.new_ones(len(image), image.shape[1]), text.real], dim=1)[:, None, None]
    active = F.silu(vector)
    for block in model.double_blocks:
        image, words = _double(cast(DoubleBlock, block), image, words, active, rope, mask)
    joint = torch.cat([image, words], dim=1)
    for block in model.single_blocks:
        joint = _single(cast(SingleBlock, block), joint, active, rope, mask)
    final = model.final_layer
    shift, scale = final.adaLN_modulation[1](active).chunk(2, dim=-1)
    with torch.autocast(video.device.type, enabled=False):
        kept = _normed(joint[:, : image.shape[1]], shift.float(), scale.float())
        values = F.linear(kept, final.linear.weight.float(), final.linear.bias.float())
    frames, height, width = (size // part for size, part in zip(video.shape[2:], patch, strict=True))
    return torch.stack([unpatchify(one, (frames, height, width), patch) for one in values])


def embed_time(embedder: TimestepEmbedder, timesteps: Tensor) -> Tensor:
    """The embedder on its own, whose angles must not be rounded."""
    result: Tensor = embedder(timesteps)
    return result


def _double(
    block: DoubleBlock, image: Tensor, words: Tensor, active: Tensor, rope: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = block.img_mod.linear(active).float().chunk(6, dim=-1)
    w_shift, w_scale, w_gate, w_shift_mlp, w_scale_mlp, w_gate_mlp = (
        block.txt_mod.linear(active).float().chunk(6, dim=-1)
    )
    heads, count = block._heads, image.shape[1]
    of_image = _heads(
        block.img_attn_qkv(_normed(image, shift, scale)), heads, block.img_attn_q_norm, block.img_attn_k_norm
    )
    of_words = _heads(
        block.txt_attn_qkv(_normed(words, w_shift, w_scale)), heads, block.txt_attn_q_norm, block.txt_attn_k_norm
    )
    q, k, v = (torch.cat(pair, dim=2) for pair in zip(of_image, of_words, strict=True))
    mixed = _attend(q, k, v, rope, mask)
    image = _gated(image, gate, block.img_attn_proj(mixed[:, :count]))
    image = _gated(image, gate_mlp, _mlp(block.img_mlp, _normed(image, shift_mlp, scale_mlp)))
    words = _gated(words, w_gate, block.txt_attn_proj(mixed[:, count:]))
    words = _gated(words, w_gate_mlp, _mlp(block.txt_mlp, _normed(words, w_shift_mlp, w_scale_mlp)))
    return image, words


def _single(block: SingleBlock, joint: Tensor, active: Tensor, rope: Tensor, mask: Tensor | None) -> Tensor:
    shift, scale, gate = block.modulation.linear(active).float().chunk(3, dim=-1)
    hidden = joint.shape[-1]
    both = block.linear1(_normed(joint, shift, scale))
    q, k, v = _heads(both[..., : 3 * hidden], block._heads, block.q_norm, block.k_norm)
    mixed = _attend(q, k, v, rope, mask)
    expanded = F.gelu(both[..., 3 * hidden :], approximate="tanh")
    return _gated(joint, gate, block.linear2(torch.cat([mixed, expanded], dim=-1)))


def _refined(refiner: TextRefiner, text: TextBatch, timesteps: Tensor, heads: int) -> Tensor:
    weight = text.real[..., None].float()
    mean = (text.states * weight).sum(1) / weight.sum(1)
    active = F.silu(embed_time(refiner.t_embedder, timesteps) + refiner.c_embedder(mean))
    x: Tensor = refiner.input_embedder(text.states).float()
    mask = None if text.even else text.real[:, None, None]
    for block in refiner.individual_token_refiner.blocks:
        x = _refiner_block(cast(RefinerBlock, block), x, active, heads, mask)
    return x


def _refiner_block(block: RefinerBlock, x: Tensor, active: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    gate, gate_mlp = block.adaLN_modulation[1](active).float().chunk(2, dim=-1)
    q, k, v = _split(block.self_attn_qkv(block.norm1(x)), heads)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
    x = _gated(x, gate, block.self_attn_proj(mixed))
    return _gated(x, gate_mlp, block.mlp.fc2(F.silu(block.mlp.fc1(block.norm2(x)))))


def _mlp(mlp: MLP, x: Tensor) -> Tensor:
    result: Tensor = mlp.fc2(F.gelu(mlp.fc1(x), approximate="tanh"))
    return result


def _normed(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift[:, None], F.layer_norm(x, x.shape[-1:], eps=NORM_EPS), 1 + scale[:, None])


def _gated(x: Tensor, gate: Tensor, change: Tensor) -> Tensor:
    return torch.addcmul(x, gate[:, None], change.float())


def _heads(features: Tensor, heads: int, q_norm: RMSNorm, k_norm: RMSNorm) -> tuple[Tensor, Tensor, Tensor]:
    """[B, rows, 3 * hidden] to q, k, v [B, heads, rows, d], the first two normed in float32."""
    q, k, v = _split(features, heads)
    return _rms(q, q_norm), _rms(k, k_norm), v


def _split(features: Tensor, heads: int) -> tuple[Tensor, ...]:
    """[B, rows, 3 * hidden] to three of [B, heads, rows, d]."""
    return features.reshape(*features.shape[:-1], 3, heads, -1).permute(2, 0, 3, 1, 4).unbind()


def _rms(x: Tensor, norm: nn.Module) -> Tensor:
    return F.rms_norm(x.float(), x.shape[-1:], cast(Tensor, norm.weight).float(), NORM_EPS)


def _attend(q: Tensor, k: Tensor, v: Tensor, rope: Tensor, mask: Tensor | None) -> Tensor:
    """Joint attention; the first rows, those of the video, are rotated. Returns [B, rows, hidden].

    In plain steps: gradients of PyTorch's fused kernel do not use a CPU's matrix units.
    """
    q, k = (_rotated(part, rope).to(v.dtype) for part in (q * q.shape[-1] ** -0.5, k))
    scores = q @ k.mT
    if mask is not None:
        scores = scores + torch.zeros_like(mask, dtype=scores.dtype).masked_fill_(~mask, -torch.inf)
    return (torch.softmax(scores, dim=-1) @ v).transpose(1, 2).flatten(2)


def _rotated(x: Tensor, rope: Tensor) -> Tensor:
    rows = len(rope)
    pairs = torch.view_as_complex(x[:, :, :rows].reshape(*x.shape[:2], rows, -1, 2))
    turned = torch.view_as_real(pairs * rope.transpose(0, 1)).flatten(-2)
    return torch.cat([turned, x[:, :, rows:]], dim=2)
