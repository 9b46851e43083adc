"""The diffusion transformer's trunk, shared by all families: it knows tokens, text and a vector, no conditioning.

Conditioning enters by two doors only, both before the trunk: extra input channels of the patches and tokens added to
theirs. One call is one sample; guidance branches are separate calls with memos of their own. What depends on timestep
and prompt alone is a ``Condition``, made apart so that it can be made once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gamecraft_core.attention.kernel import Kernel
from gamecraft_core.attention.ulysses import JointAttention
from gamecraft_core.base.preset import DitConfig
from gamecraft_core.dit.blocks import DoubleBlock, FinalLayer, SingleBlock
from gamecraft_core.dit.condition import Condition
from gamecraft_core.dit.embed import PatchEmbed, TimestepEmbedder, VectorEmbedder
from gamecraft_core.dit.layers import modulated_norm
from gamecraft_core.dit.memo import StepMemo
from gamecraft_core.dit.refiner import TextRefiner
from gamecraft_core.dit.stream import Prompt, Stream
from gamecraft_core.dit.tea_cache import TeaCache

#: Yields blocks in turn, each with its weights where it computes.
Walk = Callable[[Iterable[nn.Module]], Iterator[Any]]
#: Told the name and value of every activation that parity compares; values change in place after the call.
Observer = Callable[[str, Tensor], None]


def unobserved(name: str, value: Tensor) -> None:
    """The observer of ordinary runs."""


class Trunk(nn.Module):
    """Embedders, double blocks, single blocks, final layer.

    ``walk`` is how blocks are visited, ``walk_modulation`` how for their modulation alone; see ``dit/offload.py``.
    """

    def __init__(self, config: DitConfig, in_channels: int) -> None:
        super().__init__()
        hidden, heads, ratio = config.hidden_size, config.num_heads, config.mlp_width_ratio
        t, h, w = config.patch_size
        self.img_in = PatchEmbed(in_channels, hidden, config.patch_size)
        self.txt_in = TextRefiner(config.text_states_dim, hidden, heads)
        self.time_in = TimestepEmbedder(hidden)
        self.vector_in = VectorEmbedder(config.text_states_dim_2, hidden)
        self.guidance_in = TimestepEmbedder(hidden) if config.guidance_embed else None
        self.double_blocks = nn.ModuleList(DoubleBlock(hidden, heads, ratio) for _ in range(config.depth_double_blocks))
        self.single_blocks = nn.ModuleList(SingleBlock(hidden, heads, ratio) for _ in range(config.depth_single_blocks))
        self.final_layer = FinalLayer(hidden, config.out_channels * t * h * w)
        self.walk: Walk = iter
        self.walk_modulation: Walk = iter

    @property
    def device(self) -> torch.device:
        return self.img_in.proj.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the trunk's weights; a family may keep some parts finer."""
        return self.img_in.proj.weight.dtype

    def compile_blocks(self, backend: str = "inductor") -> None:
        """Have torch.compile make one kernel set for all double blocks and one for all single blocks but the last."""
        for block in (*self.double_blocks, *self.single_blocks[:-1]):
            block.compile(backend=backend)

    def conditions(
        self, prompt: Prompt, timesteps: Sequence[float], kernel: Kernel, observe: Observer = unobserved
    ) -> list[Condition]:
        """What ``forward`` and ``reuse`` need at every one of ``timesteps``."""
        moments = torch.tensor(timesteps, dtype=torch.float32, device=prompt.states.device)
        times, pooled = self.time_in(moments), self.vector_in(prompt.pooled)
        vectors: Tensor = times + pooled
        if self.guidance_in is not None:
            if prompt.guidance is None:
                raise ValueError("a model that embeds guidance has to be told it")
            vectors = vectors + self.guidance_in(moments.new_tensor([prompt.guidance]))
        for time, vector in zip(times, vectors, strict=True):
            observe("time_in", time)
            observe("vector_in", pooled)
            observe("vec", vector)
        texts = self.txt_in(prompt.states, moments, kernel)
        double = [block.modulations(vectors) for block in self.walk_modulation(self.double_blocks)]
        single = [block.modulations(vectors) for block in self.walk_modulation(self.single_blocks)]
        final = self.final_layer.modulations(vectors)
        return [
            Condition(text, tuple(table[step] for table in double), tuple(table[step] for table in single), final[step])
            for step, text in enumerate(texts)
        ]

    def forward(
        self,
        tokens: Tensor,
        stream: Stream,
        condition: Condition,
        attend: JointAttention,
        memo: StepMemo | None = None,
        observe: Observer = unobserved,
        tea: TeaCache | None = None,
    ) -> Tensor:
        """Patch values of this rank's kept rows; fills ``memo``, overwrites ``tokens``.

        ``tokens`` [local, hidden] are this rank's embedded video. ``tea`` decides whether the blocks run at all.
        """
        observe("img_embed", tokens)
        if tea is None:
            return self._project(self._blocks(tokens, stream, condition, attend, memo, observe), condition, observe)
        shift, scale = condition.double[0][:2]
        before = tokens[stream.kept].clone()
        change = tea.kept(modulated_norm(tokens, shift, scale).to(tokens.dtype), stream.shard)
        if change is not None:
            return self._project(before + change, condition, observe)
        rows = self._blocks(tokens, stream, condition, attend, memo, observe)
        tea.keep(rows - before)
        return self._project(rows, condition, observe)

    def _blocks(
        self,
        tokens: Tensor,
        stream: Stream,
        condition: Condition,
        attend: JointAttention,
        memo: StepMemo | None,
        observe: Observer,
    ) -> Tensor:
        """This rank's kept video rows after all blocks."""
        text = condition.text.clone()
        observe("txt_embed", text)
        for index, block in enumerate(self.walk(self.double_blocks)):
            tokens, text = block(tokens, text, stream, condition.double[index], attend)
            observe(f"double_blocks.{index}.img", tokens)
            observe(f"double_blocks.{index}.txt", text)
        joint = torch.cat([tokens, text])
        for index, block in enumerate(self.walk(self.single_blocks[:-1])):
            joint = block(joint, stream, condition.single[index], attend)
            observe(f"single_blocks.{index}", joint)
        if memo is not None:
            memo.tokens = joint
        return self._last(joint, stream, condition, attend, observe)

    def reuse(
        self,
        memo: StepMemo,
        stream: Stream,
        condition: Condition,
        attend: JointAttention,
        observe: Observer = unobserved,
    ) -> Tensor:
        """The same from the step cache: only the last single block and the final layer see the new timestep."""
        if memo.tokens is None:
            raise ValueError("the step cache is empty: make a full step first")
        rows = self._last(memo.tokens, stream, condition, attend, observe)
        return self._project(rows, condition, observe)

    def _last(
        self, joint: Tensor, stream: Stream, condition: Condition, attend: JointAttention, observe: Observer
    ) -> Tensor:
        """The kept video rows after the last single block."""
        observe("single_last_in", joint)
        for block in self.walk(self.single_blocks[-1:]):
            joint = block.last(joint, stream, condition.single[-1], attend)
        observe(f"single_blocks.{len(self.single_blocks) - 1}", joint)
        return joint[: stream.shard.local]

    def _project(self, rows: Tensor, condition: Condition, observe: Observer) -> Tensor:
        result: Tensor = self.final_layer(rows, condition.final)
        observe("final_layer", result)
        return result
