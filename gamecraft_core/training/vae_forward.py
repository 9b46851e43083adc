"""The causal VAE's forward pass with gradients, over the very modules that inference runs.

Inference writes into shared buffers, which no gradient survives. Here the same layers are walked with ordinary
operations: the numbers agree to rounding (a test compares them), and under autocast the convolutions take bf16.
Whole clips only: nothing tiles.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gamecraft_core.training.group_norm import group_norm
from gamecraft_core.vae.layers import Attention, CausalConv3d, Downsample, MidBlock, ResnetBlock, Upsample
from gamecraft_core.vae.model import CausalVae, Decoder, DownBlock, Encoder, UpBlock

_FRONT = 2


class _Replicated(torch.autograd.Function):
    """Edge replication, one pixel on each side and two frames in front, that keeps channels last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        batch, channels, frames, height, width = x.shape
        whole = x.new_empty(batch, frames + _FRONT, height + 2, width + 2, channels).permute(0, 4, 1, 2, 3)
        given = whole[:, :, _FRONT:]
        given[..., 1:-1, 1:-1] = x
        given[..., 1:-1, 0] = given[..., 1:-1, 1]
        given[..., 1:-1, -1] = given[..., 1:-1, -2]
        given[..., 0, :] = given[..., 1, :]
        given[..., -1, :] = given[..., -2, :]
        whole[:, :, :_FRONT] = given[:, :, :1]
        return whole

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (grad,) = grads
        given = grad[:, :, _FRONT:].contiguous(memory_format=torch.channels_last_3d)
        given[:, :, 0] += grad[:, :, :_FRONT].sum(dim=2)
        given[..., 1, :] += given[..., 0, :]
        given[..., -2, :] += given[..., -1, :]
        given[..., 1] += given[..., 0]
        given[..., -2] += given[..., -1]
        return given[..., 1:-1, 1:-1]


def encode(vae: CausalVae, x: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels [B, 3, F, H, W] in -1..1 to (mean, log variance) in float32, each [B, latent channels, T, h, w]."""
    moments = vae.quant_conv(_encoder(vae.encoder, x.contiguous(memory_format=torch.channels_last_3d)))
    mean, logvar = moments.float().chunk(2, dim=1)
    return mean, logvar.clamp(-30.0, 20.0)


def decode(vae: CausalVae, z: Tensor) -> Tensor:
    """Latents to pixels [B, 3, F, H, W] in float32; nothing divides by the scaling factor."""
    return _decoder(vae.decoder, vae.post_quant_conv(z.contiguous(memory_format=torch.channels_last_3d))).float()


def _encoder(encoder: Encoder, x: Tensor) -> Tensor:
    x = _conv(encoder.conv_in, x)
    for block in encoder.down_blocks:
        assert isinstance(block, DownBlock)
        for layer in (*block.resnets, *block.downsamplers):
            x = _resnet(layer, x) if isinstance(layer, ResnetBlock) else _down(layer, x)
    return _activated(encoder.conv_out, _middle(encoder.mid_block, x), encoder.conv_norm_out)


def _decoder(decoder: Decoder, z: Tensor) -> Tensor:
    x = _middle(decoder.mid_block, _conv(decoder.conv_in, z))
    for block in decoder.up_blocks:
        assert isinstance(block, UpBlock)
        for layer in (*block.resnets, *block.upsamplers):
            x = _resnet(layer, x) if isinstance(layer, ResnetBlock) else _up(layer, x)
    return _activated(decoder.conv_out, x, decoder.conv_norm_out)


def _conv(layer: CausalConv3d, x: Tensor) -> Tensor:
    if layer.conv.kernel_size != (1, 1, 1):
        padded = _Replicated.apply(x)  # type: ignore[no-untyped-call]
        assert isinstance(padded, Tensor)
        x = padded
    out: Tensor = layer.conv(x)
    return out


def _activated(layer: CausalConv3d, x: Tensor, norm: nn.GroupNorm) -> Tensor:
    return _conv(layer, F.silu(group_norm(norm, x)))


def _resnet(block: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(block, ResnetBlock)
    hidden = _activated(block.conv2, _activated(block.conv1, x, block.norm1), block.norm2)
    return hidden + (x if block.conv_shortcut is None else _conv(block.conv_shortcut, x))


def _down(layer: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(layer, Downsample)
    return _conv(layer.conv, x)


def _up(layer: nn.Module, x: Tensor) -> Tensor:
    """Nearest upsampling; the first frame is never repeated in time."""
    assert isinstance(layer, Upsample)
    by_t, by_h, by_w = layer.factor
    later = x[:, :, 1:].repeat_interleave(by_t, dim=2) if by_t > 1 else x[:, :, 1:]
    x = torch.cat([x[:, :, :1], later], dim=2)
    x = x.repeat_interleave(by_h, dim=3).repeat_interleave(by_w, dim=4)
    return _conv(layer.conv, x.contiguous(memory_format=torch.channels_last_3d))


def _middle(block: MidBlock, x: Tensor) -> Tensor:
    x = _resnet(block.resnets[0], x)
    for attention in block.attentions:
        assert isinstance(attention, Attention)
        x = _attention(attention, x)
    return _resnet(block.resnets[1], x)


def _attention(layer: Attention, x: Tensor) -> Tensor:
    batch, channels, frames, height, width = x.shape
    tokens = group_norm(layer.group_norm, x).permute(0, 2, 3, 4, 1).reshape(batch, 1, -1, channels)
    q, k, v = layer.to_q(tokens), layer.to_k(tokens), layer.to_v(tokens)
    block = height * width if layer.causal else frames * height * width
    mixed = torch.cat(
        [
            F.scaled_dot_product_attention(q[:, :, end - block : end], k[:, :, :end], v[:, :, :end])
            for end in range(block, q.shape[2] + 1, block)
        ],
        dim=2,
    )
    out: Tensor = layer.to_out[0](mixed).reshape(batch, frames, height, width, channels).permute(0, 4, 1, 2, 3)
    return torch.add(x, out.contiguous(memory_format=torch.channels_last_3d))
