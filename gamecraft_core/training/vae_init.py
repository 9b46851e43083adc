"""Where a VAE's training starts: as a nearly linear coder of single frames, which pictures pass from the first step.

Group norms erase a clip's overall colour and contrast unless some channel of every group is large and constant, and a
network so deep takes thousands of steps to find that out. So the residual branches start silent, the convolutions
along the stream keep its variance and look at the present frame alone, the last norms see one constant channel a
group, so large that their divisor hardly depends on the picture, and both ends are scaled to fit.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gamecraft_core.base.preset import Preset
from gamecraft_core.training.vae_forward import decode, encode
from gamecraft_core.vae.layers import Attention, CausalConv3d, ResnetBlock
from gamecraft_core.vae.model import CausalVae

#: Where log variances start: with much noise in the latents a decoder first learns to ignore them.
_FIRST_LOGVAR = -6.0
#: The constant channel, the bias that puts SiLU where it is nearly a line, and the deviation around it.
_CONSTANT, _OPERATING_POINT, _SWING = 12.0, 1.5, 0.5
#: Deviation of the first pictures, of -1..1.
_FIRST_CONTRAST = 0.3


@torch.no_grad()
def new_vae(preset: Preset, seed: int, pixels: Tensor) -> CausalVae:
    """A VAE to train, drawn from ``seed`` and scaled by ``pixels`` [B, 3, F, H, W] of the kind it will see."""
    config = preset.vae
    generator = torch.Generator().manual_seed(seed)
    vae = CausalVae(config)
    for part in vae.modules():
        if isinstance(part, nn.Conv3d | nn.Linear):
            part.weight.normal_(0, part.weight[0].numel() ** -0.5, generator=generator)
            _zero(part.bias)
    inside = {id(each.conv1.conv) for each in vae.modules() if isinstance(each, ResnetBlock)}
    for part in vae.modules():
        if isinstance(part, nn.Conv3d) and part.kernel_size[0] > 1 and id(part) not in inside:
            part.weight[:, :, :-1] = 0
            part.weight *= part.kernel_size[0] ** 0.5
        elif isinstance(part, ResnetBlock):
            part.conv2.conv.weight.zero_()
        elif isinstance(part, Attention):
            for value in part.to_out.parameters():
                value.zero_()
    for side, block in ((vae.encoder, vae.encoder.down_blocks[-1]), (vae.decoder, vae.decoder.up_blocks[-1])):
        first = block.get_submodule("resnets.0")
        assert isinstance(first, ResnetBlock)
        if first.conv_shortcut is not None:
            _hold_constant(first.conv_shortcut, config.norm_num_groups)
        _swing_about(side.conv_norm_out)
    _scale(vae, pixels)
    vae.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return vae


def _scale(vae: CausalVae, pixels: Tensor) -> None:
    """Latents of mean 0 and deviation 1, pictures of the pixels' mean and little contrast."""
    channels = vae.config.latent_channels
    inward, outward = vae.quant_conv, vae.decoder.conv_out.conv
    assert inward.bias is not None
    assert outward.bias is not None
    mean, deviation = _spread(encode(vae, pixels)[0])
    inward.weight[:channels] /= deviation.view(-1, 1, 1, 1, 1)
    inward.bias[:channels] = -mean / deviation
    inward.weight[channels:].zero_()
    inward.bias[channels:] = _FIRST_LOGVAR
    mean, deviation = _spread(decode(vae, encode(vae, pixels)[0]))
    outward.weight *= (_FIRST_CONTRAST / deviation).view(-1, 1, 1, 1, 1)
    outward.bias.copy_(_spread(pixels)[0] - mean * _FIRST_CONTRAST / deviation)


def _spread(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of every channel."""
    flat = values.transpose(0, 1).flatten(1)
    return flat.mean(dim=1), flat.std(dim=1)


def _hold_constant(layer: CausalConv3d, groups: int) -> None:
    """Make the first channel of every group a constant."""
    assert layer.conv.bias is not None
    every = layer.conv.out_channels // groups
    layer.conv.weight[::every] = 0
    layer.conv.bias[::every] = _CONSTANT


def _swing_about(norm: nn.GroupNorm) -> None:
    """Give a norm whose groups start with the constant channel outputs of ``_SWING`` around the operating point."""
    every = norm.num_channels // norm.num_groups
    norm.weight.fill_(_SWING * _CONSTANT * (every - 1) ** 0.5 / every)
    norm.weight[::every] = 0
    norm.bias.fill_(_OPERATING_POINT)


def _zero(bias: Tensor | None) -> None:
    if bias is not None:
        bias.zero_()
