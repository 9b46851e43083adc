"""Commit: exactly once whatever races or breaks, and nothing left behind."""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gamecraft_core.base.errors import StateLost, StoreUnavailable
from gamecraft_core.base.messages import ChunkRecord, FailOrder
from gamecraft_core.base.spec import Layout, NoControl
from gamecraft_core.base.store import Stat, Store, open_store
from gamecraft_core.dataset import layout
from gamecraft_core.dataset.chunk_state import unpack
from gamecraft_core.dataset.commit import commit_session, fail_session, latents_bytes, put_latents, sweep
from gamecraft_core.dataset.rows import read_failure, read_table
from gamecraft_core.media.clip import decode_frames
from gamecraft_core.media.fragment import probe
from gamecraft_core.timeline.spans import Span
from tests.fakes.recordings import level_of, staged_order


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


class Watched:
    """A store that calls ``before(operation, key)`` ahead of every operation."""

    def __init__(self, inner: Store, before: Callable[[str, str], None]) -> None:
        self.inner, self.before, self.root = inner, before, inner.root

    def uri(self, key: str) -> str:
        return self.inner.uri(key)

    def get(self, key: str) -> bytes:
        self.before("get", key)
        return self.inner.get(key)

    def stat(self, key: str) -> Stat:
        self.before("stat", key)
        return self.inner.stat(key)

    def get_range(self, key: str, start: int, end: int, version: str) -> bytes:
        self.before("get_range", key)
        return self.inner.get_range(key, start, end, version)

    def put(self, key: str, data: bytes) -> None:
        self.before("put", key)
        self.inner.put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self.before("put_if_absent", key)
        return self.inner.put_if_absent(key, data)

    def exists(self, key: str) -> bool:
        self.before("exists", key)
        return self.inner.exists(key)

    def list(self, prefix: str) -> Iterator[str]:
        self.before("list", prefix)
        return self.inner.list(prefix)

    def delete(self, key: str) -> None:
        self.before("delete", key)
        self.inner.delete(key)


def opened(store: Store, chunk: ChunkRecord) -> bytes:
    """The fragment of a staged chunk."""
    return unpack(store.get(chunk.staged_key), "").fragment


@pytest.mark.parametrize(
    ("kind", "spans"),
    [
        ("forward", [(0, 4), (4, 8), (8, 13)]),
        ("inverted", [(13, 13), (9, 13), (0, 9)]),
    ],
)
def test_overlapping_chunks_become_one_video_in_the_order_of_time(
    store: Store, kind: Layout, spans: list[Span]
) -> None:
    order = staged_order(store, "s", 3, layout=kind, chunk_frames=4, controls=(NoControl(),) * 3)
    result = commit_session(store, order)
    video = store.get(result.video_key)
    assert (probe(video).frames, probe(video).monotonic) == (13, True)
    levels = [round(frame.mean()) for frame in decode_frames(video, range(13))]
    assert levels == pytest.approx([level_of(number, 1) for number in range(13)], abs=4)
    (row,) = read_table(result.row).to_pylist()
    assert [(chunk["index"], chunk["start"], chunk["end"]) for chunk in row["chunks"]] == [
        (number, *each) for number, each in enumerate(spans)
    ]
    assert (row["num_frames"], row["keys"], row["camera_to_world"]) == (13, [], [])
    assert not list(store.list(layout.STAGING))


def test_a_commit_leaves_video_and_record_alone(store: Store) -> None:
    result = commit_session(store, staged_order(store, "one", 3, chunk_frames=17))
    video = store.get(result.video_key)
    row = read_table(result.row).to_pylist()[0]
    assert result.committed
    assert probe(video).frames == row["num_frames"] == 51
    assert hashlib.sha256(video).hexdigest() == result.video_sha256 == row["video_sha256"]
    assert row["video_bytes"] == result.video_bytes == len(video)
    assert row["video"]["path"] == store.uri(row["video_path"])
    assert set(store.list("")) == {layout.commit_key("one"), result.video_key}
    assert store.get(layout.commit_key("one")) == result.row


def test_the_second_adopts_the_first_record(store: Store) -> None:
    order = staged_order(store, "two")
    first = commit_session(store, order)
    again = commit_session(store, replace(order, provenance=replace(order.provenance, hardware="other")))
    assert again == replace(first, committed=False)


def test_given_fragments_spare_the_reading(store: Store) -> None:
    order = staged_order(store, "three")
    fragments = [opened(store, chunk) for chunk in order.chunks]
    read: list[str] = []
    watched = Watched(store, lambda operation, key: read.append(key) if operation == "get" else None)
    assert commit_session(watched, order, fragments).committed
    assert read == []


def test_what_lost_lanes_left_is_swept(store: Store) -> None:
    commit_session(store, staged_order(store, "kept"))
    kept = set(store.list(""))
    staged_order(store, "lost")
    sweep(store)
    assert set(store.list("")) == kept


def test_given_and_staged_fragments_mix(store: Store) -> None:
    order = staged_order(store, "four")
    assert commit_session(store, order, [None, opened(store, order.chunks[1])]).committed


def test_equal_videos_share_one_object(store: Store) -> None:
    keys = {commit_session(store, staged_order(store, name)).video_key for name in ("a", "b")}
    assert list(store.list(layout.VIDEOS)) == list(keys)


def test_racing_writers_have_one_winner(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for trial in range(5):
        order = staged_order(store, f"race-{trial}", 1, chunk_frames=5)
        fragments = [opened(store, order.chunks[0])]
        barrier = threading.Barrier(6)

        def commit(number: int, order=order, fragments=fragments, barrier=barrier):  # type: ignore[no-untyped-def]
            mine = replace(order, provenance=replace(order.provenance, hardware=f"writer {number}"))
            barrier.wait()
            return commit_session(store, mine, fragments)

        with ThreadPoolExecutor(6) as pool:
            results = list(pool.map(commit, range(6)))
        assert sorted(result.committed for result in results) == [False] * 5 + [True]
        assert {result.row for result in results} == {store.get(layout.commit_key(f"race-{trial}"))}


def test_a_record_that_appears_before_ours_is_adopted(store: Store) -> None:
    order = staged_order(store, "late")
    rival = replace(order, provenance=replace(order.provenance, hardware="rival"))

    def overtake(operation: str, key: str) -> None:
        if operation == "put_if_absent" and key.startswith(layout.COMMITS):
            assert commit_session(store, rival).committed

    result = commit_session(Watched(store, overtake), order)
    assert not result.committed
    assert read_table(result.row)["hardware"][0].as_py() == "rival"


def test_staged_chunks_removed_by_the_winner_are_no_failure(store: Store) -> None:
    order = staged_order(store, "gone")

    def overtake(operation: str, key: str) -> None:
        if operation == "get" and key == order.chunks[1].staged_key:
            assert commit_session(store, order).committed

    assert not commit_session(Watched(store, overtake), order).committed


def test_a_crash_anywhere_is_repaired_by_doing_it_again(store: Store) -> None:
    for last in range(100):
        name = f"crash-{last}"
        order = staged_order(store, name, seed=last)
        done = 0

        def crash(operation: str, key: str, last: int = last) -> None:
            nonlocal done
            if done == last:
                raise StoreUnavailable(f"{operation} {key}")
            done += 1

        try:
            commit_session(Watched(store, crash), order)
        except StoreUnavailable:
            result = commit_session(store, order)
        else:
            break
        assert store.get(layout.commit_key(name)) == result.row
        assert probe(store.get(result.video_key)).frames == 66
        assert not list(store.list(layout.STAGING))
    assert last >= 6  # two chunks, video, record, two removals


@pytest.mark.parametrize("harm", ["missing", "changed"])
def test_a_chunk_that_is_not_what_its_record_says_is_set_aside(store: Store, harm: str) -> None:
    order = staged_order(store, "harmed")
    key = order.chunks[1].staged_key
    if harm == "missing":
        store.delete(key)
    else:
        store.put(key, store.get(key)[:-1] + b"x")
    with pytest.raises(StateLost, match=f"chunk 1 at {key}") as caught:
        commit_session(store, order)
    assert caught.value.remedy
    assert not store.exists(layout.commit_key("harmed"))
    assert not list(store.list(layout.VIDEOS))


def test_latents_are_kept_as_plain_little_endian_floats(store: Store) -> None:
    latents = np.arange(16 * 2 * 3 * 4, dtype=np.float32).reshape(16, 2, 3, 4)
    kept = put_latents(store, "s", 7, latents.transpose(0, 1, 3, 2))
    stored = np.frombuffer(store.get(kept.key), "<f4").reshape(16, 2, 4, 3)
    assert np.array_equal(stored, latents.transpose(0, 1, 3, 2))
    assert kept.sha256 == hashlib.sha256(latents_bytes(latents.transpose(0, 1, 3, 2))).hexdigest()
    assert kept.key == f"latents/s/000007.{kept.sha256[:12]}.f32"


FAILURE = FailOrder(session_id="torn", row=4, field="image", stage="encode", reason="damaged", remedy="another")


def test_a_session_settles_one_way_whoever_races(tmp_path: Path) -> None:
    """One writer commits while another fails the same session: all agree on the outcome, and so does the index."""
    store = open_store(str(tmp_path))
    outcomes = set()
    for trial in range(12):
        order = staged_order(store, f"torn-{trial}", 1, chunk_frames=5)
        failure = replace(FAILURE, session_id=order.session_id)
        fragments = [opened(store, order.chunks[0])]
        barrier = threading.Barrier(2)

        def commit(order=order, fragments=fragments, barrier=barrier):  # type: ignore[no-untyped-def]
            barrier.wait()
            return commit_session(store, order, fragments).failure

        def fail(failure=failure, barrier=barrier):  # type: ignore[no-untyped-def]
            barrier.wait()
            return fail_session(store, failure)

        with ThreadPoolExecutor(2) as pool:
            one, other = [future.result() for future in (pool.submit(commit), pool.submit(fail))]
        key = layout.commit_key(order.session_id)
        assert one == other == read_failure(store.get(key))
        assert store.exists(layout.failure_key(order.session_id)) == (one is not None)
        assert not list(store.list(layout.staging_folder(order.session_id)))
        outcomes.add(one is None)
    assert outcomes


def test_a_failed_session_is_not_committed_afterwards(store: Store) -> None:
    order = staged_order(store, "torn")
    assert fail_session(store, FAILURE) == FAILURE.failure()
    assert not list(store.list(layout.STAGING))
    order = staged_order(store, "torn")
    result = commit_session(store, order)
    assert (result.committed, result.failure) == (False, FAILURE.failure())
    assert read_table(store.get(layout.commit_key("torn"))).num_rows == 0


def test_a_committed_session_does_not_fail_afterwards(store: Store) -> None:
    result = commit_session(store, staged_order(store, "torn"))
    assert fail_session(store, FAILURE) is None
    assert store.get(layout.commit_key("torn")) == result.row
    assert not store.exists(layout.failure_key("torn"))
