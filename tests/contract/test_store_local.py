"""What only a folder has: temporary files, filesystems without hard links, full or forbidden disks."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gamecraft_core.base.errors import StoreUnavailable, UsageError
from gamecraft_core.base.store import Leftover, LocalStore, open_store


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_no_temporary_file_is_left(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.put("a/key", b"1")
    store.put("a/key", b"2")
    store.put_if_absent("a/key", b"3")
    store.put_if_absent("b", b"4")
    assert files_below(tmp_path) == ["a/key", "b"]


def test_what_a_crash_left_is_found_and_discarded(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.put("a/key", b"1")
    for name in (".tmp-root", "a/.tmp-inner"):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (1000, 1000))
    found = list(store.leftovers())
    assert found == [Leftover(".tmp-root", 4, 1000.0), Leftover("a/.tmp-inner", 4, 1000.0)]
    assert list(store.list("")) == ["a/key"]
    for leftover in (*found, *found):
        store.discard(leftover)
    assert files_below(tmp_path) == ["a/key"]
    for key in ("a/key", "../.tmp-x"):
        with pytest.raises(ValueError, match=r"illegal store key|not a temporary"):
            store.discard(Leftover(key, 0, 0.0))


def test_a_listing_stays_below_the_root(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "key").write_bytes(b"")
    store = LocalStore(str(tmp_path / "root"))
    store.put("a", b"")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "broken").symlink_to(tmp_path / "nowhere")
    assert list(store.list("")) == ["a", "broken"]
    assert [entry.key for entry in store.scan("")] == ["a"]


@pytest.mark.parametrize("call", ["put", "put_if_absent"])
def test_data_is_on_disk_before_its_name_and_the_name_before_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    events: list[str] = []

    real_sync = os.fsync

    def note_sync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        events.append(f"sync {path.relative_to(tmp_path)}" if path.is_dir() else "sync data")
        real_sync(descriptor)

    def noting(real: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
        def act(source: Path, target: Path) -> None:
            events.append("name")
            real(source, target)

        return act

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", noting(os.replace))
    monkeypatch.setattr(os, "link", noting(os.link))
    getattr(LocalStore(str(tmp_path / "root")), call)("a/key", b"x")
    assert events == ["sync .", "sync root", "sync data", "name", "sync root/a"]


def test_without_hard_links_one_of_many_still_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with ThreadPoolExecutor(24) as threads:
        won = list(threads.map(lambda racer: LocalStore(str(tmp_path)).put_if_absent("key", b"%d" % racer), range(96)))
    assert [racer for racer in range(96) if won[racer]] == [int((tmp_path / "key").read_bytes())]
    assert files_below(tmp_path) == ["key"]


def test_a_full_disk_is_worth_waiting_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = LocalStore(str(tmp_path))
    store.put("key", b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreUnavailable, match=r"No space left on device.*free some space"):
        store.put("key", b"new")
    assert store.get("key") == b"old"
    assert files_below(tmp_path) == ["key"]


def test_a_path_that_cannot_be_a_folder_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="check the path"):
        LocalStore(str(tmp_path / "file")).put("key", b"")


def test_a_relative_file_uri_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'file://out/demo' names a host"):
        open_store("file://out/demo")


def test_plain_paths_and_file_uris_name_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_store("out").root == open_store(f"file://{tmp_path}/out").root == f"file://{tmp_path}/out"


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'ftp'.*file, s3, memory"):
        open_store("ftp://host/x")
