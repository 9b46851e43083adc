"""What actors have in common: orders counted, errors of ours answered, memory that ran out recognised."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from actors.role import Role, answering, is_out_of_memory
from gamecraft_core.base.errors import BadInput, LaneLost, OutOfMemory
from gamecraft_core.base.messages import Receipt
from tests.fakes.roles import script


class Raising(Role):
    """Carries its orders out by raising ``error``, or not."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__("text", "text-0")
        self.error = error

    @answering
    def run(self, order: Any, *payloads: Any) -> tuple[Any, Any]:
        def work() -> tuple[None, dict[str, Any]]:
            if self.error:
                raise self.error
            return None, {}

        return self.carry(order, work)


def test_every_order_counts_and_moves_whatever_comes_of_it() -> None:
    role = Raising()
    receipt, _ = role.run(script("x"))
    assert isinstance(receipt, Receipt)
    role.error = BadInput("no")
    assert isinstance(role.run(script("x"))[0], BadInput)
    role.error = KeyError("a mistake of ours")
    with pytest.raises(KeyError):
        role.run(script("x"))
    there = role.presence()
    assert (there.begun, there.ended) == (3, 3)
    assert (role.pulse().moves, role.pulse().doing) == (6, "ended text s")


def test_drained_it_refuses_until_it_serves_again() -> None:
    role = Raising()
    role.drain()
    assert isinstance(role.run(script("x"))[0], LaneLost)
    role.serve(3, "job", {"hardware": "none"})
    assert isinstance(role.run(script("x"))[0], Receipt)
    there = role.presence()
    assert (there.generation, there.owner, there.facts) == (3, "job", {"hardware": "none"})


def test_memory_that_runs_out_is_one_cause_whoever_says_so() -> None:
    shortages: list[BaseException] = [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()]
    for allocate in (lambda: torch.empty(2**50), lambda: np.empty(2**50)):
        with pytest.raises((RuntimeError, MemoryError)) as raised:
            allocate()
        shortages.append(raised.value)
    for shortage in shortages:
        assert is_out_of_memory(shortage)
        answer, _ = Raising(shortage).run(script("x"))  # type: ignore[arg-type]
        assert isinstance(answer, OutOfMemory)
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes"):
        Raising(RuntimeError("shapes do not fit")).run(script("x"))
