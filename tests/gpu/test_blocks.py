"""Real-size blocks in bf16 at the first chunk's length: near float32, and with fp8 as near as it claims."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gamecraft_core.attention.kernel import sdpa
from gamecraft_core.attention.ulysses import JointAttention
from gamecraft_core.dit.rope import rope_table
from gamecraft_core.dit.stream import Prompt, Stream
from gamecraft_core.families.gamecraft import GameCraft
from gamecraft_core.parallel.collective import Solo
from gamecraft_core.parallel.shard import Shard
from gamecraft_core.weights.quantise import has_fp8, quantise_model
from tests.gpu.sizes import FIRST_TOKENS, TEXT_TOKENS, random_model, real_preset

pytestmark = pytest.mark.gpu

GRID = (10, 44, 76)
#: Mean absolute error over the mean magnitude of what the blocks add.
BF16_LIMIT, FP8_LIMIT = 0.03, 0.15


@torch.inference_mode()
def added(model: GameCraft, device: torch.device) -> Tensor:
    """What one double and two single blocks and the final layer make of random tokens, for the new frames."""
    preset = real_preset()
    table = rope_table(GRID, preset.dit.rope_dim_list, preset.dit.rope_theta).to(device)
    stream = Stream(GRID, Shard(FIRST_TOKENS), table, keep=GRID[1] * GRID[2])
    generator = torch.Generator(device).manual_seed(3)
    tokens = torch.randn(FIRST_TOKENS, preset.dit.hidden_size, device=device, generator=generator)
    states = torch.randn(TEXT_TOKENS, preset.dit.text_states_dim, device=device, generator=generator)
    pooled = torch.randn(preset.dit.text_states_dim_2, device=device, generator=generator)
    (condition,) = model.conditions(Prompt(states, pooled), [700.0], sdpa)
    result: Tensor = model(tokens, stream, condition, JointAttention(sdpa, Solo()))
    return result


def distance(result: Tensor, reference: Tensor) -> float:
    return float((result.float() - reference).abs().mean() / reference.abs().mean())


def test_bf16_is_near_float32(cuda: torch.device) -> None:
    model = random_model(real_preset(), cuda)
    result = added(model, cuda)
    assert torch.isfinite(result).all()
    reference = added(model.float(), cuda)
    error = distance(result, reference)
    print(f"bf16 against float32: {error:.4f}")
    assert error < BF16_LIMIT


def test_fp8_is_near_bf16(cuda: torch.device) -> None:
    if not has_fp8(cuda):
        pytest.skip(f"{torch.cuda.get_device_name(cuda)} has no fp8 units")
    model = random_model(real_preset(), cuda)
    reference = added(model, cuda).float()
    quantise_model(model)
    error = distance(added(model, cuda), reference)
    print(f"fp8 against bf16: {error:.4f}")
    assert 0 < error < FP8_LIMIT
