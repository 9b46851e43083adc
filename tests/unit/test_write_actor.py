"""The write lane: what it remembers spares reads and is bounded; what it forgot is read back from the store."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from actors import write
from actors.write import WriteActor, _Remembered
from gamecraft_core.base.messages import ChunkRecord, CommitOrder, FailOrder, Fragment, RestoreOrder
from gamecraft_core.base.spec import SessionSpec
from gamecraft_core.base.store_memory import MemoryStore
from gamecraft_core.dataset import layout
from gamecraft_core.dataset.rows import decode_failure, read_failure, read_table
from tests.fakes.recordings import IDENTITY, written_chunks
from tests.fakes.sessions import provenance, session


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
    (order, records, last) = _all_but_the_last(actor, session("s", 3))
    receipt, _ = actor.run(order, last)
    assert receipt.facts["committed"]
    assert receipt.index == 2
    assert reads == ([] if remembered else [record.staged_key for record in records])
    store = MemoryStore(f"memory://write-{remembered}")
    assert [key.partition("/")[0] for key in store.list("")] == [layout.COMMITS, layout.VIDEOS]
    row = read_table(store.get(layout.commit_key("s"))).to_pylist()[0]
    assert row["chunks"][2]["timings"]["write"] >= 0
    assert row["chunks"][2]["fragment_sha256"] == hashlib.sha256(last.data).hexdigest()


def test_latents_are_kept_of_the_last_chunk_too() -> None:
    actor: Any = WriteActor("write-0", "memory://latents", {})
    spec = session("s", 2)
    (order, _, last) = _all_but_the_last(actor, spec, keep_latents=True)
    latents = written_chunks(spec)[-1][2]
    actor.run(order, last, latents)
    store = MemoryStore("memory://latents")
    row = read_table(store.get(layout.commit_key("s"))).to_pylist()[0]
    keys = list(store.list(layout.LATENTS))
    assert [chunk["latents_uri"] for chunk in row["chunks"]] == [store.uri(key) for key in keys]


def test_a_session_is_restored_with_what_its_commit_will_need(reads: list[str]) -> None:
    spec = session("s", 3)
    _, records, _ = _all_but_the_last(WriteActor("write-0", "memory://restored", {}), spec)
    actor: Any = WriteActor("write-1", "memory://restored", {})
    keys = tuple(record.staged_key for record in records)
    receipt, latents = actor.run(RestoreOrder(session_id="s", keys=keys, identity=IDENTITY))
    assert [chunk["staged_key"] for chunk in receipt.facts["chunks"]] == list(keys)
    assert np.array_equal(latents, written_chunks(spec)[1][2])
    assert receipt.facts["payload_bytes"] == latents.nbytes
    reads.clear()
    assert actor._staged.take(keys[0]) is not None
    nothing, latents = actor.run(RestoreOrder(session_id="s", keys=keys, identity="another"))
    assert (nothing.facts["chunks"], latents) == ([], None)


def _all_but_the_last(actor: Any, spec: SessionSpec, **options: Any) -> tuple[CommitOrder, list[ChunkRecord], Fragment]:
    """Write every chunk but the last; the commit order, the written records and the last fragment."""
    *chunks, (final, last, _) = written_chunks(spec)
    records = [
        ChunkRecord(**actor.run(replace(order, **options), fragment, latents)[0].facts["record"])
        for order, fragment, latents in chunks
    ]
    order = CommitOrder(spec=spec, chunks=(*records, final.record), provenance=provenance(spec, 1), **options)
    return order, records, last


def test_a_failure_is_told_as_it_is_stored() -> None:
    actor: Any = WriteActor("write-0", "memory://failing", {})
    order = FailOrder(session_id="s", row=4, field="image", stage="encode", reason="damaged", remedy="another")
    receipt, _ = actor.run(order)
    store = MemoryStore("memory://failing")
    assert receipt.facts["failure"] == order.failure()
    assert read_failure(store.get(layout.commit_key("s"))) == order.failure()
    assert decode_failure(store.get(layout.failure_key("s"))) == order.failure()
