"""One suite that every store passes: a folder, memory, moto and a real RADOS Gateway."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import pytest

from gamecraft_core.base.errors import StoreUnavailable
from gamecraft_core.base.store import Inspectable, Store, open_store
from tests.servers.s3 import S3Server

THREADS = 24
THREAD_ROUNDS = 6
PROCESSES = 4
PROCESS_ROUNDS = 12


@dataclass(frozen=True)
class Place:
    """Where a store under test lives, and how any process opens it."""

    uri: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def open(self) -> Inspectable:
        return open_store(self.uri, self.options)


RGW = pytest.param("rgw", marks=pytest.mark.service)
across_processes = pytest.mark.parametrize("place", ["file", "moto", RGW], indirect=True)


@pytest.fixture(params=["file", "memory", "moto", RGW])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A fresh root, awkwardly named where names are ours to choose."""
    if request.param == "file":
        return Place(str(tmp_path / "a b#ü%20" / "root"))
    if request.param == "memory":
        return Place(f"memory://{uuid.uuid4().hex}/root")
    return request.getfixturevalue(f"{request.param}_place")  # type: ignore[no-any-return]


@pytest.fixture
def moto_place(moto_server: S3Server) -> Place:
    return Place(moto_server.new_root(), {"endpoint_url": moto_server.endpoint})


@pytest.fixture
def rgw_place(rgw_server: S3Server) -> Place:
    return Place(rgw_server.new_root(), {"endpoint_url": rgw_server.endpoint})


@pytest.fixture
def store(place: Place) -> Inspectable:
    """An empty store."""
    return place.open()


def test_what_is_put_is_got(store: Store) -> None:
    store.put("a/b.bin", b"one")
    assert store.get("a/b.bin") == b"one"
    store.put("a/b.bin", b"two, longer")
    assert store.get("a/b.bin") == b"two, longer"


@pytest.mark.parametrize("value", [b"", b"\0\xff" * 5_000_000], ids=["empty", "10 MB"])
def test_values_of_any_size(store: Store, value: bytes) -> None:
    store.put("plain", value)
    assert store.put_if_absent("conditional", value)
    assert store.get("plain") == value
    assert store.get("conditional") == value


def test_stat_tells_size_and_changes_with_the_content(store: Store) -> None:
    store.put("a/key", b"first")
    first = store.stat("a/key")
    assert first.size == 5
    assert store.stat("a/key") == first
    store.put("a/key", b"other")
    assert store.stat("a/key").version != first.version
    store.put("empty", b"")
    assert store.stat("empty").size == 0


def test_a_range_is_of_the_content_that_was_looked_up(store: Store) -> None:
    value = bytes(range(256)) * 100
    store.put("key", value)
    version = store.stat("key").version
    for start, end in ((0, 1), (0, len(value)), (1000, 2000), (len(value) - 1, len(value))):
        assert store.get_range("key", start, end, version) == value[start:end]
    for other in (value[::-1], b"short"):
        store.put("key", other)
        with pytest.raises(StoreUnavailable):
            store.get_range("key", 100, 200, version)


def test_unicode_keys(store: Store) -> None:
    keys = ["naïve/日本語.json", "with space/+plus&amp=%41.txt"]
    for key in keys:
        store.put(key, key.encode())
    assert [store.get(key).decode() for key in keys] == keys
    assert list(store.list("")) == sorted(keys)


def test_absent_keys(store: Store) -> None:
    store.put("folder/key", b"")
    for key in ("nothing", "folder", "folder/key2", "folder/ke"):
        assert not store.exists(key)
        with pytest.raises(FileNotFoundError):
            store.get(key)
        with pytest.raises(FileNotFoundError):
            store.stat(key)
        with pytest.raises(FileNotFoundError):
            store.get_range(key, 0, 1, "")
    assert store.exists("folder/key")


def test_listing_is_sorted_complete_and_by_folder(store: Store) -> None:
    keys = ["a-b/1", "a.txt", "a/1", "a/B/3", "a/b/2", "ab/4"]
    for key in reversed(keys):
        store.put(key, b"x")
    assert list(store.list("")) == keys
    assert list(store.list("a")) == list(store.list("a/")) == ["a/1", "a/B/3", "a/b/2"]
    assert list(store.list("a.txt")) == []
    assert list(store.list("absent")) == []


def test_listing_of_more_than_one_page(store: Store) -> None:
    keys = [f"many/{number:04}" for number in range(1001)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda key: store.put(key, b""), keys))
    assert list(store.list("many")) == keys


def test_a_scan_is_the_listing_with_bytes_and_times(store: Inspectable) -> None:
    before = time.time()
    for key, data in (("b/2", b"four"), ("a", b""), ("b/1", b"x")):
        store.put(key, data)
    store.put("a", b"ab")
    entries = list(store.scan(""))
    assert [(entry.key, entry.size) for entry in entries] == [("a", 2), ("b/1", 1), ("b/2", 4)]
    # S3 tells whole seconds.
    assert all(before - 1 <= entry.modified <= time.time() + 1 for entry in entries)
    assert [entry.key for entry in store.scan("b")] == list(store.list("b"))
    assert not list(store.scan("absent"))
    assert not list(store.leftovers())


def test_what_is_listed_may_be_deleted_on_the_way(store: Inspectable) -> None:
    keys = [f"{folder}/{number}" for folder in "ab" for number in range(5)]
    for key in keys:
        store.put(key, b"")
    seen = []
    for entry in store.scan(""):
        seen.append(entry.key)
        store.delete(entry.key)
    assert seen == keys
    assert list(store.list("")) == []


def test_listing_sees_what_another_client_just_wrote(place: Place) -> None:
    reader, writer = place.open(), place.open()
    assert list(reader.list("")) == []
    assert not reader.exists("key")
    writer.put("key", b"")
    assert list(reader.list("")) == ["key"]
    assert reader.exists("key")


def test_delete_is_idempotent(store: Store) -> None:
    store.put("key", b"x")
    store.delete("key")
    store.delete("key")
    assert not store.exists("key")
    assert list(store.list("")) == []
    assert store.put_if_absent("key", b"again")


def test_put_if_absent_keeps_the_first(store: Store) -> None:
    assert store.put_if_absent("key", b"first")
    assert not store.put_if_absent("key", b"second")
    assert store.get("key") == b"first"


@pytest.mark.parametrize("key", ["", "/abs", "../up", "a/../../up", "a//b", "a/", ".", "a\\b", "a\0b", ".tmp-x"])
def test_no_key_leaves_the_root_or_hides(store: Store, key: str) -> None:
    for act in (store.get, store.stat, store.exists, store.delete, store.uri, lambda key: store.put(key, b"")):
        with pytest.raises(ValueError, match="illegal store key"):
            act(key)
    with pytest.raises(ValueError, match="illegal store key"):
        store.put_if_absent(key, b"")
    if key.rstrip("/") not in ("", "a"):
        with pytest.raises(ValueError, match="illegal store key"):
            list(store.list(key))


def test_uris_open_with_fsspec_and_as_stores(place: Place, store: Store) -> None:
    store.put("folder/key", b"seen")
    endpoint = {"endpoint_url": place.options["endpoint_url"]} if place.options else {}
    with fsspec.open(store.uri("folder/key"), "rb", **endpoint) as file:
        assert file.read() == b"seen"
    assert store.uri("folder/key") == f"{store.root}/folder/key"
    assert open_store(f"{store.root}/folder", place.options).get("key") == b"seen"


@across_processes
def test_a_store_travels_by_pickle(place: Place, store: Store) -> None:
    store.put("key", b"x")
    assert pickle.loads(pickle.dumps(store)).get("key") == b"x"


def test_racing_threads_have_one_winner(store: Store) -> None:
    start = threading.Barrier(THREADS)

    def race(racer: int) -> list[bool]:
        won = []
        for turn in range(THREAD_ROUNDS):
            start.wait()
            won.append(store.put_if_absent(f"race/{turn}", f"{racer}".encode()))
        return won

    with ThreadPoolExecutor(THREADS) as threads:
        won = list(threads.map(race, range(THREADS)))
    for turn in range(THREAD_ROUNDS):
        winners = [racer for racer in range(THREADS) if won[racer][turn]]
        assert [int(store.get(f"race/{turn}"))] == winners
    assert len(list(store.list(""))) == THREAD_ROUNDS


def race_in_process(place: Place, racer: int, start: Any, results: Any) -> None:
    store = place.open()
    store.exists("warm-up")
    for turn in range(PROCESS_ROUNDS):
        start.wait()
        if store.put_if_absent(f"race/{turn}", f"{racer}".encode()):
            results.put((turn, racer))
    results.put(None)


@across_processes
def test_racing_processes_have_one_winner(place: Place) -> None:
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(PROCESSES), context.Queue()
    racers = [
        context.Process(target=race_in_process, args=(place, racer, start, results)) for racer in range(PROCESSES)
    ]
    for process in racers:
        process.start()
    won = []
    ended = 0
    while ended < PROCESSES:
        if (win := results.get(timeout=120)) is None:
            ended += 1
        else:
            won.append(win)
    for process in racers:
        process.join()
    store = place.open()
    assert sorted(won) == [(turn, int(store.get(f"race/{turn}"))) for turn in range(PROCESS_ROUNDS)]


def test_readers_never_see_half_an_overwrite(store: Store) -> None:
    values = [bytes([letter]) * 1_000_000 for letter in b"ab"]
    store.put("key", values[0])
    done = threading.Event()

    def read() -> int:
        reads = 0
        while not done.is_set() or not reads:
            assert store.get("key") in values
            reads += 1
        return reads

    with ThreadPoolExecutor(2) as threads:
        readers = [threads.submit(read) for _ in range(2)]
        try:
            for turn in range(20):
                store.put("key", values[turn % 2])
        finally:
            done.set()
        assert all(reader.result() for reader in readers)
