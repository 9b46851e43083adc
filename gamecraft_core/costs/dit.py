"""Work of the transformer that all families share, from sizes alone: exact counts of matmuls, attention, exchanges.

A test holds every count against PyTorch's own counter over the real code on the meta device. Norms, rotations and
activations are not counted: they are part of what a card's stated efficiency leaves.
"""

from __future__ import annotations

from dataclasses import dataclass

from gamecraft_core.base.preset import DitConfig
from gamecraft_core.costs.work import Work

_FREQUENCIES = 256
_REFINER_BLOCKS = 2
_REFINER_RATIO = 4


@dataclass(frozen=True, slots=True)
class Sequence:
    """Rows of one forward: ``total`` of video, the last ``new`` of them predicted, and ``text`` beside them."""

    total: int
    new: int
    text: int


@dataclass(frozen=True, slots=True)
class Share:
    """What the busiest of ``world`` ranks holds of a sequence: the last rank has the most predicted rows."""

    local: int
    new: int
    heads: int

    @staticmethod
    def of(rows: Sequence, config: DitConfig, world: int) -> Share:
        local = -(-rows.total // world)
        return Share(local, min(local, rows.new), -(-config.num_heads // world))


def forward_work(config: DitConfig, rows: Sequence, world: int = 1, item: int = 2) -> Work:
    """All blocks and the final layer, once, on the busiest rank; activations that travel have ``item`` bytes."""
    share, hidden = Share.of(rows, config, world), config.hidden_size
    joint, own = rows.total + rows.text, share.heads * config.head_dim
    inner = int(hidden * config.mlp_width_ratio)
    block = Work(
        matmul=2 * (share.local + rows.text) * hidden * (4 * hidden + 2 * inner),
        attention=4 * joint * joint * own,
        link_bytes=_sent(world, own, 3 * share.local + share.local + rows.text, item),
        exchanges=2 * (world > 1),
    )
    blocks = config.depth_double_blocks + config.depth_single_blocks - 1
    return block * blocks + last_work(config, rows, world, item)


def last_work(config: DitConfig, rows: Sequence, world: int, item: int) -> Work:
    """The last single block, of which only the predicted rows are asked, the final layer and the gathering of rows."""
    share, hidden = Share.of(rows, config, world), config.hidden_size
    own, inner = share.heads * config.head_dim, int(hidden * config.mlp_width_ratio)
    t, h, w = config.patch_size
    values = config.out_channels * t * h * w
    linear = share.new * hidden * (hidden + inner + hidden + inner + values)
    return Work(
        matmul=2 * (linear + (share.local + rows.text) * hidden * 2 * hidden),
        attention=4 * rows.new * (rows.total + rows.text) * own,
        link_bytes=_sent(world, own, 4 * share.local, item) + (world - 1) * share.local * values * 4,
        exchanges=3 * (world > 1),
    )


def _sent(world: int, own: int, rows: int, item: int) -> float:
    """Bytes that leave a rank which hands ``rows`` rows of ``own`` features to every other."""
    return (world - 1) * rows * own * item


def conditions_work(config: DitConfig, text: int, steps: int, item: int = 2) -> Work:
    """Refined text and modulation vectors of one prompt at every step; the modulation weights are read once."""
    hidden, inner = config.hidden_size, _REFINER_RATIO * config.hidden_size
    timestep = steps * hidden * (_FREQUENCIES + hidden)
    pooled = hidden * (config.text_states_dim_2 + hidden)
    pooled += config.guidance_embed * hidden * (_FREQUENCIES + hidden)
    refiner = text * config.text_states_dim * hidden + timestep + hidden * (config.text_states_dim + hidden)
    refiner += steps * _REFINER_BLOCKS * hidden * (text * (4 * hidden + 2 * inner) + 2 * hidden)
    tables = hidden * hidden * (12 * config.depth_double_blocks + 3 * config.depth_single_blocks + 2)
    return Work(
        matmul=2 * (timestep + pooled + refiner + steps * tables),
        attention=4 * steps * _REFINER_BLOCKS * text * text * hidden,
        weight_bytes=tables * item,
    )
