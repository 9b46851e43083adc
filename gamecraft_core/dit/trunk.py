"""The diffusion transformer's trunk, shared by all families: it knows tokens, text and a vector, no conditioning.

Conditioning enters by two doors only, both before the trunk: extra input channels of the patches and tokens added to
theirs. One call is one sample; guidance branches are separate calls with memos of their own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gamecraft_core.attention.ulysses import JointAttention
from gamecraft_core.base.preset import DitConfig
from gamecraft_core.dit.blocks import DoubleBlock, FinalLayer, SingleBlock
from gamecraft_core.dit.embed import PatchEmbed, TimestepEmbedder, VectorEmbedder
from gamecraft_core.dit.memo import StepMemo
from gamecraft_core.dit.refiner import TextRefiner
from gamecraft_core.dit.stream import Prompt, Stream

#: Told the name and value of every activation that parity compares.
Observer = Callable[[str, Tensor], None]


def unobserved(name: str, value: Tensor) -> None:
    """The observer of ordinary runs."""


class Trunk(nn.Module):
    """Embedders, double blocks, single blocks, final layer."""

    def __init__(self, config: DitConfig, in_channels: int) -> None:
        super().__init__()
        hidden, heads, ratio = config.hidden_size, config.num_heads, config.mlp_width_ratio
        t, h, w = config.patch_size
        self.img_in = PatchEmbed(in_channels, hidden, config.patch_size)
        self.txt_in = TextRefiner(config.text_states_dim, hidden, heads, ratio)
        self.time_in = TimestepEmbedder(hidden)
        self.vector_in = VectorEmbedder(config.text_states_dim_2, hidden)
        self.double_blocks = nn.ModuleList(DoubleBlock(hidden, heads, ratio) for _ in range(config.depth_double_blocks))
        self.single_blocks = nn.ModuleList(SingleBlock(hidden, heads, ratio) for _ in range(config.depth_single_blocks))
        self.final_layer = FinalLayer(hidden, config.out_channels * t * h * w)

    def forward(
        self,
        tokens: Tensor,
        stream: Stream,
        prompt: Prompt,
        timestep: Tensor,
        attend: JointAttention,
        memo: StepMemo | None = None,
        observe: Observer = unobserved,
    ) -> Tensor:
        """Patch values of this rank's kept rows from its embedded video ``tokens`` [local, hidden]; fills ``memo``."""
        vector = self._vector(prompt, timestep, observe)
        text = self.txt_in(prompt.states, timestep, attend.kernel)
        observe("img_embed", tokens)
        observe("txt_embed", text)
        for index, block in enumerate(self.double_blocks):
            tokens, text = block(tokens, text, stream, vector, attend)
            observe(f"double_blocks.{index}.img", tokens)
            observe(f"double_blocks.{index}.txt", text)
        joint = torch.cat([tokens, text])
        for index, block in enumerate(self.single_blocks[:-1]):
            joint = block(joint, stream, vector, attend)
            observe(f"single_blocks.{index}", joint)
        if memo is not None:
            memo.tokens = joint
        return self._finish(joint, stream, vector, attend, observe)

    def reuse(
        self,
        memo: StepMemo,
        stream: Stream,
        prompt: Prompt,
        timestep: Tensor,
        attend: JointAttention,
        observe: Observer = unobserved,
    ) -> Tensor:
        """The same from the step cache: only the last single block and the final layer see the new timestep."""
        if memo.tokens is None:
            raise ValueError("the step cache is empty: make a full step first")
        vector = self._vector(prompt, timestep, observe)
        return self._finish(memo.tokens, stream, vector, attend, observe)

    def _vector(self, prompt: Prompt, timestep: Tensor, observe: Observer) -> Tensor:
        """The vector [hidden] that drives all modulation."""
        time: Tensor = self.time_in(timestep)
        pooled: Tensor = self.vector_in(prompt.pooled)
        observe("time_in", time)
        observe("vector_in", pooled)
        observe("vec", time + pooled)
        return time + pooled

    def _finish(
        self, joint: Tensor, stream: Stream, vector: Tensor, attend: JointAttention, observe: Observer
    ) -> Tensor:
        observe("single_last_in", joint)
        joint = self.single_blocks[-1](joint, stream, vector, attend, last=True)
        observe(f"single_blocks.{len(self.single_blocks) - 1}", joint)
        result: Tensor = self.final_layer(joint[: stream.shard.local], vector)
        return result
