"""The write lane: what it remembers spares reads and is bounded; what it forgot is read back from the store."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from actors import write
from actors.write import WriteActor, _Remembered
from gamecraft_core.base.messages import FailOrder, WriteOrder
from gamecraft_core.base.store import MemoryStore
from gamecraft_core.dataset import layout
from gamecraft_core.media.fragment import encode_fragment
from tests.fakes.recordings import flat_frames, staged_order


def test_what_is_remembered_is_bounded_and_forgotten_when_taken() -> None:
    memory = _Remembered(10)
    memory.add("a", b"12345")
    memory.add("b", b"12345")
    memory.add("b", b"123")
    memory.add("c", b"1234")
    assert memory.take("a") is None, "the oldest goes first"
    assert (memory.take("b"), memory.take("b"), memory.take("c")) == (b"123", None, b"1234")
    memory.add("d", b"x" * 11)
    assert memory.take("d") is None
    assert memory._left == 10


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys that are read from memory stores."""
    keys: list[str] = []
    get = MemoryStore.get

    def noted(self: MemoryStore, key: str) -> bytes:
        keys.append(key)
        return get(self, key)

    monkeypatch.setattr(MemoryStore, "get", noted)
    return keys


@pytest.mark.parametrize("remembered", [True, False])
def test_a_commit_reads_only_what_the_lane_forgot(
    monkeypatch: pytest.MonkeyPatch, reads: list[str], remembered: bool
) -> None:
    monkeypatch.setattr(write, "_REMEMBERED_BYTES", 1 << 20 if remembered else 0)
    actor: Any = WriteActor("write-0", f"memory://write-{remembered}", {})
    order = staged_order(MemoryStore("memory://elsewhere"), "s", 2)
    records = []
    for record in order.chunks:
        fragment = encode_fragment(flat_frames([90] * 33), index=record.index, start_frame=record.start, fps=25)
        receipt, _ = actor.run(WriteOrder(session_id="s", index=record.index, keep_latents=False), fragment)
        facts = receipt.facts
        records.append(replace(record, fragment_key=facts["fragment_key"], fragment_sha256=facts["fragment_sha256"]))
    receipt, _ = actor.run(replace(order, chunks=tuple(records)))
    assert receipt.facts["committed"]
    assert reads == ([] if remembered else [record.fragment_key for record in records])
    store = MemoryStore(f"memory://write-{remembered}")
    assert [key.partition("/")[0] for key in store.list("")] == [layout.COMMITS, layout.VIDEOS]


def test_a_failure_is_told_as_it_is_stored() -> None:
    actor: Any = WriteActor("write-0", "memory://failing", {})
    order = FailOrder(session_id="s", row=4, field="image", stage="encode", reason="damaged", remedy="another")
    receipt, _ = actor.run(order)
    failure = receipt.facts["failure"]
    assert (failure["row"], failure["stage"]) == (4, "encode")
    assert list(MemoryStore("memory://failing").list("")) == [layout.failure_key("s")]
