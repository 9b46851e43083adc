"""Weights of blocks that live in host memory and visit the device one block after the other, one ahead of their turn.

A device then holds two blocks' worth of them, whatever the depth. While block k computes, block k+1 is copied on a side
stream; the order is a ring, because after the last block comes the first of the next forward. On a CPU the same
code copies in line, so that results can be compared: they are bit-identical, offload moves weights and changes none.

Ownership: a ``BlockFeed`` owns the host copies and the two device slots; its ``walk`` is handed to whoever goes
through the blocks. Between visits parameters show the host copy, so a state dict is readable at any time.
Host memory: PyTorch's pinned allocator rounds each block up to a power of two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from gamecraft_core.dit.layers import Modulation
from gamecraft_core.dit.trunk import Trunk

_ALIGNMENT = 256


def offload(trunk: Trunk, what: Literal["modulation", "blocks"], device: torch.device) -> None:
    """Move ``trunk`` from the CPU to ``device``, but for ``what``, which stays and comes by feeds.

    Modulation weights (a quarter of the model) are read apart from the rest of a block, once a table of conditions.
    """
    blocks = [*trunk.double_blocks, *trunk.single_blocks]
    modulation = {block: _modulation(block) for block in blocks}
    kept = {id(tensor) for tensors in modulation.values() for tensor in tensors}
    trunk.walk_modulation = BlockFeed(modulation, device).walk
    if what == "blocks":
        rest = {block: [tensor for tensor in _tensors(block) if id(tensor) not in kept] for block in blocks}
        trunk.walk = BlockFeed(rest, device).walk
        kept |= {id(tensor) for tensors in rest.values() for tensor in tensors}
    for tensor in _tensors(trunk):
        if id(tensor) not in kept:
            tensor.data = tensor.data.to(device)


def _modulation(block: nn.Module) -> list[Tensor]:
    return [tensor for part in block.modules() if isinstance(part, Modulation) for tensor in _tensors(part)]


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


class BlockFeed:
    """A ring of blocks whose ``weights`` share two slots on ``device``, valid until the walk goes on."""

    def __init__(self, weights: Mapping[nn.Module, Sequence[Tensor]], device: torch.device) -> None:
        """Takes over the weights: they move to (pinned) host memory at once, one block after the other."""
        blocks = list(weights)
        self._on_gpu = device.type == "cuda"
        self._packed = {block: _Packed(weights[block], pinned=self._on_gpu) for block in blocks}
        self._next = dict(zip(blocks, [*blocks[1:], blocks[0]], strict=True))
        room = max(len(packed.host) for packed in self._packed.values())
        self._slots = [_Slot(torch.empty(room, dtype=torch.uint8, device=device)) for _ in range(2)]
        self.copies = torch.cuda.Stream(device) if self._on_gpu else None  # type: ignore[no-untyped-call]
        if self.copies is not None:
            # The slots' memory may have been freed a moment ago by work that still runs.
            self.copies.wait_stream(torch.cuda.current_stream(device))

    def walk(self, blocks: Iterable[nn.Module]) -> Iterator[nn.Module]:
        """Each of ``blocks`` in turn with its weights on the device, while the one after it is on its way."""
        for block in blocks:
            slot = self._slot_of(block)
            if slot is None:
                slot = self._send(block, avoid=None)
            if slot.arrived is not None:
                torch.cuda.current_stream().wait_event(slot.arrived)
            if self._slot_of(following := self._next[block]) is None:
                self._send(following, avoid=slot)
            try:
                yield block
            finally:
                if self._on_gpu:
                    slot.left = torch.cuda.current_stream().record_event()

    @property
    def device_bytes(self) -> int:
        return sum(len(slot.room) for slot in self._slots)

    def _slot_of(self, block: nn.Module) -> _Slot | None:
        return next((slot for slot in self._slots if slot.block is block), None)

    def _send(self, block: nn.Module, avoid: _Slot | None) -> _Slot:
        """Start the copy of ``block`` into a slot other than ``avoid``; what was there shows its host copy again."""
        slot = self._slots[1] if avoid is self._slots[0] else self._slots[0]
        if slot.block is not None:
            displaced = self._packed[slot.block]
            displaced.show(displaced.host)
        packed = self._packed[block]
        target = slot.room[: len(packed.host)]
        if self.copies is None:
            target.copy_(packed.host)
        else:
            if slot.left is not None:
                self.copies.wait_event(slot.left)
            with torch.cuda.stream(self.copies):
                target.copy_(packed.host, non_blocking=True)
            slot.arrived = self.copies.record_event()
        packed.show(target)
        slot.block = block
        return slot


@dataclass(slots=True, eq=False)
class _Slot:
    """Room on the device for one block; the events say when its copy is done and when its last reader is."""

    room: Tensor
    block: nn.Module | None = None
    arrived: torch.cuda.Event | None = None
    left: torch.cuda.Event | None = None


class _Packed:
    """Tensors laid end to end in one ``host`` tensor of bytes, and shown to their owners from any copy of it."""

    def __init__(self, tensors: Sequence[Tensor], *, pinned: bool) -> None:
        starts = [0]
        for tensor in tensors:
            starts.append(starts[-1] + -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT)
        self.host = torch.empty(starts.pop(), dtype=torch.uint8, pin_memory=pinned)
        self._places = list(zip(tensors, starts, strict=True))
        for tensor, start in self._places:
            _view(self.host, start, tensor).copy_(tensor)
        self.show(self.host)

    def show(self, memory: Tensor) -> None:
        """Let every tensor read from ``memory``."""
        for tensor, start in self._places:
            tensor.data = _view(memory, start, tensor)


def _view(memory: Tensor, start: int, like: Tensor) -> Tensor:
    return memory[start : start + like.nbytes].view(like.dtype).view(like.shape)
