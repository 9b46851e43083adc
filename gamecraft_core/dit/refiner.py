"""Text refiner: two small transformer blocks over a prompt's real tokens, conditioned on timestep and mean state."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from gamecraft_core.attention.kernel import Kernel
from gamecraft_core.dit.embed import TextProjection, TimestepEmbedder
from gamecraft_core.dit.heads import split_heads
from gamecraft_core.dit.layers import MLP, NORM_EPS, Linear, add_gated_

_BLOCKS = 2
#: Whatever ratio the trunk's blocks have.
_MLP_RATIO = 4


class AffineNorm(nn.LayerNorm):
    """Layer norm with weights, in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps)


class RefinerBlock(nn.Module):
    """Self-attention and a SiLU MLP, each behind one gate; no q/k norm, no shift, no scale."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.norm1 = AffineNorm(hidden, eps=NORM_EPS)
        self.self_attn_qkv = Linear(hidden, 3 * hidden)
        self.self_attn_proj = Linear(hidden, hidden)
        self.norm2 = AffineNorm(hidden, eps=NORM_EPS)
        self.mlp = MLP(hidden, _MLP_RATIO * hidden, silu=True)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), Linear(hidden, 2 * hidden))
        self._heads = heads

    def forward(self, x: Tensor, condition: Tensor, kernel: Kernel) -> Tensor:
        """``x`` [tokens, hidden] after the block, in place."""
        gate_attention, gate_mlp = self.adaLN_modulation(condition).chunk(2)
        q, k, v = split_heads(self.self_attn_qkv(self.norm1(x)), 3, self._heads)
        add_gated_(x, gate_attention, self.self_attn_proj(kernel(q, k, v).flatten(1)))
        return add_gated_(x, gate_mlp, self.mlp(self.norm2(x)))


class RefinerBlocks(nn.Module):
    """Holder of the blocks; it is there for the key names."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(RefinerBlock(hidden, heads) for _ in range(_BLOCKS))


class TextRefiner(nn.Module):
    """LLM states [tokens, dim] to text tokens [tokens, hidden]."""

    def __init__(self, dim: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.input_embedder = Linear(dim, hidden)
        self.t_embedder = TimestepEmbedder(hidden)
        self.c_embedder = TextProjection(dim, hidden)
        self.individual_token_refiner = RefinerBlocks(hidden, heads)

    def forward(self, states: Tensor, timesteps: Tensor, kernel: Kernel) -> list[Tensor]:
        """The text tokens at every one of ``timesteps`` [steps]."""
        conditions = self.conditions(states, timesteps)
        embedded: Tensor = self.input_embedder(states)
        return [self._refine(embedded.clone(), condition, kernel) for condition in conditions]

    def conditions(self, states: Tensor, timesteps: Tensor) -> Tensor:
        """What drives the blocks' gates, [steps, hidden]."""
        result: Tensor = self.t_embedder(timesteps) + self.c_embedder(states.float().mean(dim=0))
        return result

    def _refine(self, x: Tensor, condition: Tensor, kernel: Kernel) -> Tensor:
        for block in self.individual_token_refiner.blocks:
            x = block(x, condition, kernel)
        return x
