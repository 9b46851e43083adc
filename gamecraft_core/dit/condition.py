"""What blocks take from timestep and prompt: refined text and modulation vectors, a table of them per schedule.

They do not depend on latents, so that one table serves every chunk of every session with the same prompt and schedule,
and the modulation weights (a quarter of the model) are read once a table. Tables are keyed by content and never
written to: whether one is found or made again cannot be told from a result.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from gamecraft_core.base.messages import TextStates


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """One step's refined ``text`` [tokens, hidden] and modulation vectors [parts, hidden] of every block."""

    text: Tensor
    double: tuple[Tensor, ...]
    single: tuple[Tensor, ...]
    final: Tensor

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in (self.text, *self.double, *self.single, self.final))


#: Conditions of one prompt by timestep.
ConditionTable = Mapping[float, Condition]
#: Content of a prompt, the timesteps of a schedule, embedded guidance.
TableKey = tuple[str, tuple[float, ...], float | None]


def table_key(states: TextStates, timesteps: tuple[float, ...], guidance: float | None = None) -> TableKey:
    digest = hashlib.sha256()
    for array in (states.states, states.pooled):
        digest.update(repr(array.shape).encode())
        digest.update(array.astype("<f4", order="C").tobytes())
    return digest.hexdigest(), timesteps, guidance


class ConditionTables:
    """The tables used last, as many as fit ``kept_bytes``; the newest is kept whatever its size."""

    def __init__(self, kept_bytes: int = 2**30) -> None:
        self._kept_bytes = kept_bytes
        self._tables: dict[TableKey, ConditionTable] = {}

    def get(self, key: TableKey, make: Callable[[], ConditionTable]) -> ConditionTable:
        """The table under ``key``, made where it is not kept."""
        table = self._tables.pop(key, None) or make()
        self._tables[key] = table
        while len(self._tables) > 1 and self._nbytes() > self._kept_bytes:
            del self._tables[next(iter(self._tables))]
        return table

    def _nbytes(self) -> int:
        return sum(condition.nbytes for table in self._tables.values() for condition in table.values())
