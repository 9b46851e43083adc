"""The causal 3D VAE of the HunyuanVideo line: pixels in -1..1 to latent moments and back.

One latent frame stands for the first pixel frame and one for every ``time_compression_ratio`` that follow; a latent
is 8 pixels high and wide. Tiling is part of the numbers, not only of the memory: group norms pool over a tile, so
the released pipeline's tiles are kept and another size gives another picture.
Nothing here multiplies by the scaling factor.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gamecraft_core.base.preset import VaeConfig
from gamecraft_core.vae.layers import CausalConv3d, Downsample, MidBlock, ResnetBlock, Scratch, Upsample, convolve
from gamecraft_core.vae.tiling import Run, RunAll, Tiling, Window, one_by_one

_LOGVAR_RANGE = (-30.0, 20.0)

Factor = tuple[int, int, int]


def down_factors(config: VaeConfig) -> list[Factor]:
    """(time, height, width) stride of each encoder block; the last block has none."""
    levels = len(config.block_out_channels)
    in_time = config.time_compression_ratio.bit_length() - 1
    factors = [(2 if block >= levels - 1 - in_time else 1, 2, 2) for block in range(levels - 1)]
    return [*factors, (1, 1, 1)]


def up_factors(config: VaeConfig) -> list[Factor]:
    """(time, height, width) growth of each decoder block."""
    factors = down_factors(config)
    return factors[::-1] if config.time_compression_ratio == 8 else factors


class DownBlock(nn.Module):
    """Resnets, then a strided convolution unless it is the last block."""

    def __init__(self, channels_in: int, channels_out: int, config: VaeConfig, factor: Factor):
        super().__init__()
        groups = config.norm_num_groups
        widths = [channels_in] + [channels_out] * (config.layers_per_block - 1)
        self.resnets = nn.ModuleList([ResnetBlock(width, channels_out, groups) for width in widths])
        self.downsamplers = nn.ModuleList([Downsample(channels_out, factor)] if factor != (1, 1, 1) else [])

    def forward(self, x: Tensor, scratch: Scratch) -> Tensor:
        for layer in (*self.resnets, *self.downsamplers):
            x = layer(x, scratch)
        return x


class UpBlock(nn.Module):
    """Resnets (one more than in the encoder), then an upsampling unless the factor is 1."""

    def __init__(self, channels_in: int, channels_out: int, config: VaeConfig, factor: Factor):
        super().__init__()
        groups = config.norm_num_groups
        widths = [channels_in] + [channels_out] * config.layers_per_block
        self.resnets = nn.ModuleList([ResnetBlock(width, channels_out, groups) for width in widths])
        self.upsamplers = nn.ModuleList([Upsample(channels_out, factor)] if factor != (1, 1, 1) else [])

    def forward(self, x: Tensor, scratch: Scratch) -> Tensor:
        for layer in (*self.resnets, *self.upsamplers):
            x = layer(x, scratch)
        return x


class Encoder(nn.Module):
    """Pixels [B, 3, F, H, W] to raw moments [B, 2 * latent channels, T, h, w]."""

    def __init__(self, config: VaeConfig):
        super().__init__()
        widths, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = CausalConv3d(config.in_channels, widths[0])
        self.down_blocks = nn.ModuleList(
            DownBlock(before, width, config, factor)
            for before, width, factor in zip((widths[0], *widths), widths, down_factors(config), strict=False)
        )
        self.mid_block = MidBlock(widths[-1], groups, config.mid_block_add_attention, config.mid_block_causal_attn)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=1e-6)
        self.conv_out = CausalConv3d(widths[-1], 2 * config.latent_channels)

    def forward(self, x: Tensor, scratch: Scratch) -> Tensor:
        x = self.conv_in(x, scratch)
        for block in self.down_blocks:
            x = block(x, scratch)
        x = self.mid_block(x, scratch)
        return self.conv_out.activated(x, self.conv_norm_out, scratch)


class Decoder(nn.Module):
    """Latents [B, latent channels, T, h, w] to pixels [B, 3, F, H, W]."""

    def __init__(self, config: VaeConfig):
        super().__init__()
        widths, groups = config.block_out_channels[::-1], config.norm_num_groups
        self.conv_in = CausalConv3d(config.latent_channels, widths[0])
        self.mid_block = MidBlock(widths[0], groups, config.mid_block_add_attention, config.mid_block_causal_attn)
        self.up_blocks = nn.ModuleList(
            UpBlock(before, width, config, factor)
            for before, width, factor in zip((widths[0], *widths), widths, up_factors(config), strict=False)
        )
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=1e-6)
        self.conv_out = CausalConv3d(widths[-1], config.out_channels)

    def forward(self, z: Tensor, scratch: Scratch) -> Tensor:
        x = self.conv_in(z, scratch)
        x = self.mid_block(x, scratch)
        for block in self.up_blocks:
            x = block(x, scratch)
        return self.conv_out.activated(x, self.conv_norm_out, scratch)


class CausalVae(nn.Module):
    """Encoder, decoder and the two 1x1 convolutions between them; ``tiling`` follows the config and may be replaced."""

    def __init__(self, config: VaeConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv3d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.post_quant_conv = nn.Conv3d(config.latent_channels, config.latent_channels, 1)
        self.tiling = Tiling.of(config)

    @torch.inference_mode()
    def encode(self, x: Tensor, run_all: RunAll | None = None) -> tuple[Tensor, Tensor]:
        """Pixels [B, 3, F, H, W] in -1..1 to (mean, log variance), each [B, latent channels, T, h, w].

        ``run_all`` takes the tiles elsewhere; without it they run here, one batch after another.
        """
        in_time, in_space = self.config.time_compression_ratio, self.config.spatial_compression_ratio
        if (x.shape[2] - 1) % in_time or x.shape[3] % in_space or x.shape[4] % in_space:
            raise ValueError(f"{tuple(x.shape[2:])} is not 1 + n * {in_time} frames of sides divisible by {in_space}")
        mean, logvar = self.tiling.encode(x, run_all or one_by_one(self.encoding())).chunk(2, dim=1)
        return mean, logvar.clamp(*_LOGVAR_RANGE)

    @torch.inference_mode()
    def decode(self, z: Tensor, run_all: RunAll | None = None, wanted: Window | None = None) -> Tensor:
        """Latents [B, latent channels, T, h, w] to pixels [B, 3, F, H, W], about -1..1; ``run_all`` as in encode.

        Of ``wanted`` frames only, and then tiles that have no part in them do not run.
        """
        return self.tiling.decode(z, run_all or one_by_one(self.decoding()), wanted)

    def encoding(self) -> Run:
        """What makes moments of the pixel tiles of one call, on one thread at a time."""
        scratch = Scratch()
        return lambda tile: convolve(self.quant_conv, self.encoder(_entering(tile), scratch))

    def decoding(self) -> Run:
        """What makes pixels of the latent tiles of one call, on one thread at a time."""
        scratch = Scratch()
        return lambda tile: self.decoder(convolve(self.post_quant_conv, _entering(tile)), scratch)


def _entering(tile: Tensor) -> Tensor:
    """``tile`` as the layers want it, on a thread that keeps to the process's thread count."""
    torch.get_num_threads()  # On a new thread asking also sets it; oneDNN would else use as many as OpenMP likes.
    return tile.contiguous(memory_format=torch.channels_last_3d)
