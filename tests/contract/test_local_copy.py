"""Inputs that live in a store: bounded reads, and checkpoints copied to this machine once. On both S3 servers."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gamecraft_core.base import input_cache, inputs
from gamecraft_core.base.errors import BadInput, StoreUnavailable, UsageError
from gamecraft_core.base.input_cache import InputCache
from gamecraft_core.base.inputs import local_copy, read_bytes
from gamecraft_core.base.store import Store, open_store
from tests.servers.proxy import FaultProxy
from tests.servers.s3 import S3Server

BLOCK = 1 << 16


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def options(proxy: FaultProxy) -> dict[str, Any]:
    return {"endpoint_url": proxy.url, "attempts": 2, "connect_timeout_s": 2.0}


@pytest.fixture
def store(s3_server: S3Server, options: dict[str, Any]) -> Store:
    return open_store(s3_server.new_root(), options)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InputCache:
    """An empty cache that copies in small blocks, so that a checkpoint of a test has many."""
    monkeypatch.setattr(input_cache, "_BLOCK_BYTES", BLOCK)
    return InputCache(tmp_path / "cache")


def checkpoint(store: Store) -> dict[str, bytes]:
    """A folder as checkpoints are: several files, some empty, some of many blocks, none a whole number of them."""
    files = {
        "model/config.json": b"{}",
        "model/empty.txt": b"",
        "model/model-00001.safetensors": os.urandom(5 * BLOCK + 17),
        "model/nested/merges.txt": os.urandom(BLOCK),
    }
    for key, value in files.items():
        store.put(key, value)
    return files


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_copied_whole_and_once(
    store: Store, options: dict[str, Any], cache: InputCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = checkpoint(store)
    store.put("model-of-another-name/x", b"")
    folder = local_copy(f"{store.root}/model/", options, cache=cache)
    assert contents(folder) == {key.removeprefix("model/"): value for key, value in files.items()}
    monkeypatch.setattr(input_cache, "_download", lambda *_: pytest.fail("fetched again"))
    assert local_copy(f"{store.root}/model", options, cache=cache) == folder


def test_a_single_file_keeps_its_name(store: Store, options: dict[str, Any], cache: InputCache) -> None:
    files = checkpoint(store)
    path = local_copy(store.uri("model/model-00001.safetensors"), options, cache=cache)
    assert path.name == "model-00001.safetensors"
    assert path.read_bytes() == files["model/model-00001.safetensors"]


def test_of_a_folder_only_what_is_picked(store: Store, options: dict[str, Any], cache: InputCache) -> None:
    files = checkpoint(store)

    def pick(keys: Iterable[str]) -> list[str]:
        return [key for key in keys if key.endswith(".json")]

    folder = local_copy(f"{store.root}/model", options, pick=pick, cache=cache)
    assert contents(folder) == {"config.json": files["model/config.json"]}
    with pytest.raises(UsageError, match="nothing to read"):
        local_copy(f"{store.root}/model", options, pick=lambda keys: [], cache=cache)


def test_new_content_is_a_new_copy(store: Store, options: dict[str, Any], cache: InputCache) -> None:
    checkpoint(store)
    old = local_copy(f"{store.root}/model", options, cache=cache)
    store.put("model/config.json", b"[]")
    new = local_copy(f"{store.root}/model", options, cache=cache)
    assert ((old / "config.json").read_bytes(), (new / "config.json").read_bytes()) == (b"{}", b"[]")


def test_a_copy_that_fails_leaves_nothing_that_looks_whole(
    store: Store, options: dict[str, Any], cache: InputCache, proxy: FaultProxy, tmp_path: Path
) -> None:
    files = checkpoint(store)
    uri = store.uri("model/model-00001.safetensors")
    found = store.stat("model/model-00001.safetensors")
    proxy.fault("cut_reply")
    with pytest.raises(StoreUnavailable):
        cache.fetch(store, {"model/model-00001.safetensors": found})
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir() and path.name[0] != "."]
    proxy.fault("pass")
    assert local_copy(uri, options, cache=cache).read_bytes() == files["model/model-00001.safetensors"]


def fetch(folder: str, uri: str, options: dict[str, Any], start: Any, results: Any) -> None:
    start.wait()
    results.put(str(local_copy(uri, options, cache=InputCache(Path(folder)))))


def test_processes_that_want_the_same_share_one_copy(store: Store, options: dict[str, Any], tmp_path: Path) -> None:
    checkpoint(store)
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(3), context.Queue()
    arguments = (str(tmp_path / "cache"), f"{store.root}/model", options, start, results)
    racers = [context.Process(target=fetch, args=arguments) for _ in range(3)]
    for racer in racers:
        racer.start()
    found = {results.get(timeout=120) for _ in racers}
    for racer in racers:
        racer.join()
    assert len(found) == 1
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1


def test_the_cache_is_bounded_and_evicts_what_was_used_longest_ago(
    store: Store, options: dict[str, Any], tmp_path: Path
) -> None:
    cache = InputCache(tmp_path / "cache", max_bytes=2500)
    places = []
    for number in range(3):
        store.put(f"f{number}", bytes([number]) * 1000)
    for number in range(2):
        places.append(local_copy(store.uri(f"f{number}"), options, cache=cache))
        long_ago = time.time() - 10 * 24 * 3600 + number
        os.utime(places[-1].parent, (long_ago, long_ago))
    local_copy(store.uri("f0"), options, cache=cache)  # used again: f1 is the oldest now
    assert local_copy(store.uri("f2"), options, cache=cache).exists()
    assert [place.exists() for place in places] == [True, False]
    store.put("large", b"x" * 2000)
    with pytest.raises(UsageError, match="do not fit into the cache"):
        local_copy(store.uri("large"), options, cache=cache)
    assert places[0].exists(), "what was used today is not evicted"


def test_nothing_there(
    store: Store, options: dict[str, Any], cache: InputCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"weights\.dit: there is nothing to read at s3://"):
        local_copy(f"{store.root}/nowhere", options, field="weights.dit", cache=cache)
    monkeypatch.setattr(inputs, "MAX_FILES", 3)
    checkpoint(store)
    with pytest.raises(UsageError, match="more than 3 files"):
        local_copy(f"{store.root}/model", options, cache=cache)


def test_local_inputs_are_used_where_they_are(tmp_path: Path) -> None:
    assert local_copy(str(tmp_path)) == local_copy(f"file://{tmp_path}") == tmp_path


def test_a_read_is_bounded_before_it_begins(store: Store, options: dict[str, Any], proxy: FaultProxy) -> None:
    store.put("image.png", b"x" * 5000)
    uri = store.uri("image.png")
    assert read_bytes(uri, "image", max_bytes=5000, options=options) == b"x" * 5000
    assert read_bytes(uri, "image", max_bytes=5000, options=options, first=7) == b"x" * 7
    store.put("empty", b"")
    assert read_bytes(store.uri("empty"), "image", max_bytes=5000, options=options) == b""
    proxy.fault("cut_reply")  # a body would break off; the size alone does not
    with pytest.raises(BadInput, match="is larger than"):
        read_bytes(uri, "image", max_bytes=4999, options=options)


def test_missing_is_a_bad_input(store: Store, options: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"image: .*does not exist"):
        read_bytes(store.uri("none.png"), "image", max_bytes=10, options=options)


def test_readers_in_threads_share_a_store(store: Store) -> None:
    store.put("key", os.urandom(3 * BLOCK))
    found = store.stat("key")
    with ThreadPoolExecutor(8) as threads:
        pieces = threads.map(lambda n: store.get_range("key", n * BLOCK, (n + 1) * BLOCK, found.version), range(3))
        assert b"".join(pieces) == store.get("key")
