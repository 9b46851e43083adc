"""Staged chunks: what is packed comes back, chains are followed as far as they fit, and damage is never trusted."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamecraft_core.base.errors import UsageError
from gamecraft_core.base.store import Store, open_store
from gamecraft_core.dataset import layout
from gamecraft_core.dataset.chunk_state import DamagedState, pack, restore, resumable, stage, unpack
from gamecraft_core.dataset.commit import latents_bytes
from tests.fakes.recordings import IDENTITY, written_chunks
from tests.fakes.sessions import session

SPEC = session("s", 4, chunk_frames=5)
CHUNKS = written_chunks(SPEC)


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


def stage_all(store: Store, count: int = 3) -> list[str]:
    return [stage(store, order, fragment.data, latents)[0].staged_key for order, fragment, latents in CHUNKS[:count]]


def test_what_is_packed_comes_back() -> None:
    order, fragment, latents = CHUNKS[1]
    record, data = pack(order, fragment.data, latents)
    state = unpack(data, "x")
    assert state.record == record
    assert (state.identity, state.history_sha256) == (order.identity, order.history_sha256)
    assert state.fragment == fragment.data
    assert np.array_equal(state.latents, latents)
    assert record.staged_key == layout.chunk_key("s", 1, 1, record.fragment_sha256)
    assert layout.parse_chunk_key(record.staged_key) == ("s", 1, 1)


def test_a_chunk_that_settles_nothing_is_named_by_its_latents(store: Store) -> None:
    order, fragment, latents = written_chunks(session("s", 2, chunk_frames=4, layout="inverted"))[0]
    assert not fragment.data
    sha256 = hashlib.sha256(latents_bytes(latents + 1)).hexdigest()
    other = replace(order, record=replace(order.record, latents_sha256=sha256))
    keys = [stage(store, each, b"", values)[0].staged_key for each, values in ((order, latents), (other, latents + 1))]
    assert len(set(keys)) == 2, "a lane thought dead replaces nobody's bytes"
    found = restore(store, keys[:1], IDENTITY)
    assert found.fragments == (b"",)
    assert found.latents is not None
    assert np.array_equal(found.latents, latents)


def test_the_whole_chain_is_restored(store: Store) -> None:
    keys = stage_all(store)
    found = restore(store, keys, IDENTITY)
    assert [record.index for record in found.chunks] == [0, 1, 2]
    assert [record.staged_key for record in found.chunks] == keys
    assert found.latents is not None
    assert np.array_equal(found.latents, CHUNKS[2][2])
    assert list(found.fragments) == [fragment.data for _, fragment, _ in CHUNKS[:3]]


@pytest.mark.parametrize("harm", ["missing", "truncated", "flipped", "stranger", "other past"])
def test_a_chain_ends_before_the_first_link_that_does_not_fit(store: Store, harm: str) -> None:
    keys = stage_all(store)
    data = store.get(keys[1])
    order, fragment, latents = CHUNKS[1]
    match harm:
        case "missing":
            store.delete(keys[1])
        case "truncated":
            store.put(keys[1], data[:-7])
        case "flipped":
            store.put(keys[1], data[:-7] + bytes([data[-7] ^ 1]) + data[-6:])
        case "stranger":
            store.put(keys[1], pack(replace(order, identity="0"), fragment.data, latents)[1])
        case _:
            store.put(keys[1], pack(replace(order, history_sha256="0" * 64), fragment.data, latents)[1])
    found = restore(store, keys, IDENTITY)
    assert [record.index for record in found.chunks] == [0]
    assert found.latents is not None
    assert np.array_equal(found.latents, CHUNKS[0][2])


def test_another_identity_restores_nothing(store: Store) -> None:
    found = restore(store, stage_all(store), "another")
    assert (found.chunks, found.latents) == ((), None)


def test_a_newer_version_is_refused_with_the_remedy(store: Store) -> None:
    (key,) = stage_all(store, 1)
    data = store.get(key)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    inner = json.loads(header["__metadata__"]["framelane"])
    header["__metadata__"]["framelane"] = json.dumps(inner | {"version": 99})
    changed = json.dumps(header).encode()
    store.put(key, len(changed).to_bytes(8, "little") + changed + data[8 + length :])
    with pytest.raises(UsageError, match="99") as caught:
        restore(store, [key], IDENTITY)
    assert "delete" in caught.value.remedy


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_damage_and_nothing_else(data: bytes) -> None:
    with pytest.raises(DamagedState):
        unpack(data, "x")


@given(st.data())
def test_a_mangled_chunk_is_damage_or_itself(data: st.DataObject) -> None:
    order, fragment, latents = CHUNKS[0]
    _, packed = pack(order, fragment.data, latents)
    at = data.draw(st.integers(0, len(packed) - 1))
    mangled = packed[:at] + bytes([packed[at] ^ data.draw(st.integers(1, 255))]) + packed[at + 1 :]
    try:
        state = unpack(mangled, "x")
    except (DamagedState, UsageError):
        return
    assert state.fragment == fragment.data
    assert np.array_equal(state.latents, latents)


def key(index: int, degree: int, tag: str = "a") -> str:
    return layout.chunk_key("s", index, degree, tag * 12)


def test_a_session_goes_on_at_a_degree_that_the_fleet_has() -> None:
    keys = [key(0, 1), key(1, 1), key(0, 2), key(1, 2), key(2, 2), "_staging/s/stray"]
    assert resumable(keys, {1, 2}) == (key(0, 2), key(1, 2), key(2, 2))
    assert resumable(keys, {1}) == (key(0, 1), key(1, 1))
    assert resumable(keys, {4}) == ()
    assert resumable(keys, None) == tuple(keys[:5])
    assert resumable([], {1}) == ()
