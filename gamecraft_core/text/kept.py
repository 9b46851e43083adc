"""States of the prompts seen so far: the latest in memory, older ones in a nameless file of this process.

Invariant: what is kept comes back bit for bit. The file has no name, so however the process ends nothing stays behind.
"""

from __future__ import annotations

import tempfile
import weakref
from collections import OrderedDict
from typing import IO

import numpy as np

from gamecraft_core.base.messages import FloatArray, TextStates

MEMORY_BYTES = 1 << 30
FILE_BYTES = 4 << 30


class KeptStates:
    """By prompt. Bounded: beyond ``memory_bytes`` and ``file_bytes`` together a prompt is encoded again."""

    def __init__(self, memory_bytes: int = MEMORY_BYTES, file_bytes: int = FILE_BYTES) -> None:
        self._memory_bytes = memory_bytes
        self._file_bytes = file_bytes
        self._held: OrderedDict[str, TextStates] = OrderedDict()
        self._held_bytes = 0
        self._file: IO[bytes] | None = None
        self._end = 0
        self._places: dict[str, tuple[int, tuple[int, ...], int]] = {}

    def get(self, prompt: str) -> TextStates | None:
        if prompt in self._held:
            self._held.move_to_end(prompt)
            return self._held[prompt]
        if prompt not in self._places:
            return None
        states = self._read(*self._places[prompt])
        self._hold(prompt, states)
        return states

    def put(self, prompt: str, states: TextStates) -> None:
        self._hold(prompt, states)

    def _hold(self, prompt: str, states: TextStates) -> None:
        self._held[prompt] = states
        self._held_bytes += _size(states)
        while self._held_bytes > self._memory_bytes and len(self._held) > 1:
            oldest, leaving = self._held.popitem(last=False)
            self._held_bytes -= _size(leaving)
            if oldest not in self._places:
                self._write(oldest, leaving)

    def _write(self, prompt: str, states: TextStates) -> None:
        if self._end + _size(states) > self._file_bytes:
            return
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open for the life of this object
                weakref.finalize(self, self._file.close)
            self._file.seek(self._end)
            self._file.write(states.states.tobytes() + states.pooled.tobytes())
            self._file.flush()
        except OSError:
            self._file_bytes = 0  # a full disk only costs time
            return
        self._places[prompt] = (self._end, states.states.shape, states.pooled.size)
        self._end += _size(states)

    def _read(self, start: int, shape: tuple[int, ...], pooled: int) -> TextStates:
        assert self._file is not None
        self._file.seek(start)
        count = int(np.prod(shape))
        values: FloatArray = np.frombuffer(self._file.read(4 * (count + pooled)), np.float32)
        return TextStates(states=values[:count].reshape(shape), pooled=values[count:])


def _size(states: TextStates) -> int:
    return states.states.nbytes + states.pooled.nbytes
