"""The doctor finds exactly what is wrong with an output, and repairs exactly the orphans: never what a record names."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gamecraft_core.base.errors import StoreUnavailable, UsageError
from gamecraft_core.base.store import Leftover, LocalStore, Stat
from gamecraft_core.dataset import claim, layout
from gamecraft_core.dataset.audit import Kind
from gamecraft_core.dataset.commit import commit_session
from gamecraft_core.dataset.rows import read_table
from tests.fakes.outputs import (
    DIGEST,
    PLANTS,
    SHARDS,
    Plant,
    assert_readable,
    files,
    found,
    look,
    order_of,
    plant,
    run_record,
)

HOUR = 3600.0


@pytest.mark.parametrize("status", ["finished", "running"])
def test_a_sound_output_is_healthy_and_counted(store: LocalStore, status: str) -> None:
    claim.finish(store, run_record(status))
    diagnosis = look(store, verify=True)
    assert diagnosis.healthy
    assert not diagnosis.tallies
    audit = diagnosis.audit
    assert (audit.committed, audit.failed, audit.published, len(audit.shards)) == (4, 1, 4, 3)


@settings(max_examples=60)
@given(
    planted=st.dictionaries(st.sampled_from(PLANTS), st.sampled_from([0.0, 2 * HOUR])),
    status=st.sampled_from(["finished", "running", "stopped", "aborted"]),
)
def test_repair_removes_exactly_the_orphans(
    model: Path, scratch: Path, planted: dict[Plant, float], status: str
) -> None:
    restore(scratch, model)
    store = LocalStore(str(scratch))
    (scratch / layout.RUN).write_text(json.dumps({"version": 1, **run_record(status)}))
    for each, age in planted.items():
        plant(scratch, each.key, age)
    before = files(scratch)
    finished = status == "finished"
    orphans = {
        each
        for each, age in planted.items()
        if each.orphan in ("every", "finished" if finished else "") and (age or finished)
    }
    strangers = {each for each in planted if each.orphan == "none"}

    first = look(store, min_age=HOUR)
    assert {(kind, key) for kind, keys in found(first).items() for key in keys} == {
        (each.kind, each.key) for each in orphans | strangers
    }
    assert files(scratch) == before, "looking changes nothing"
    assert first.healthy == (not orphans)
    assert look(store, min_age=HOUR, repair=True).healthy
    assert files(scratch) == {key: data for key, data in before.items() if key not in {each.key for each in orphans}}
    assert look(store, min_age=HOUR).healthy
    assert_readable(store)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


def restore(folder: Path, model: Path) -> None:
    """Make ``folder`` a copy of ``model`` again."""
    wanted, there = files(model), files(folder)
    for key in there.keys() - wanted.keys():
        (folder / key).unlink()
    for key, data in wanted.items():
        if there.get(key) != data:
            plant(folder, key, data=data)


def test_a_second_repair_touches_nothing(out: Path) -> None:
    for each in PLANTS:
        plant(out, each.key, 2 * HOUR)
    touched: list[str] = []

    class Noted(LocalStore):
        """Notes what is written or removed."""

        def put(self, key: str, data: bytes) -> None:
            touched.append(key)
            super().put(key, data)

        def delete(self, key: str) -> None:
            touched.append(key)
            super().delete(key)

        def discard(self, leftover: Leftover) -> None:
            touched.append(leftover.key)
            super().discard(leftover)

    assert look(Noted(str(out)), repair=True).healthy
    assert sorted(touched) == sorted(each.key for each in PLANTS if each.orphan != "none")
    touched.clear()
    assert look(Noted(str(out)), repair=True).healthy
    assert touched == []


def test_a_repair_that_dies_anywhere_is_finished_by_the_next(out: Path) -> None:
    orphans = [each.key for each in PLANTS if each.orphan != "none"]
    for key in orphans:
        plant(out, key)

    class Dying(LocalStore):
        """Fails after its first removal."""

        def __init__(self, uri: str) -> None:
            super().__init__(uri)
            self.calls = itertools.count()

        def _unlink(self, path: Path) -> None:
            if next(self.calls):
                raise StoreUnavailable(f"cannot delete {path}")
            super()._unlink(path)

    for gone in range(1, len(orphans) + 1):
        store = Dying(str(out))
        if gone < len(orphans):
            with pytest.raises(StoreUnavailable):
                look(store, repair=True)
        else:
            assert look(store, repair=True).healthy
        assert sum((out / key).exists() for key in orphans) == len(orphans) - gone
        assert_readable(store)
    assert look(LocalStore(str(out))).healthy


def test_a_video_that_a_new_session_names_meanwhile_stays(out: Path) -> None:
    """The writer died between video and record; while the doctor looks, the session goes on and finds its video."""
    claim.finish(LocalStore(str(out)), run_record("running"))
    LocalStore(str(out)).delete(SHARDS[2])

    class Racing(LocalStore):
        """A session commits after everything was listed, before anything is removed."""

        def leftovers(self) -> Iterator[Leftover]:
            yield from super().leftovers()
            commit_session(self, order_of(self, "late", 6), [None, None])

    store = Racing(str(out))
    commit_session(store, order_of(store, "late", 6), [None, None])
    video = read_table(store.get(layout.commit_key("late")))["video_path"][0].as_py()
    store.delete(layout.commit_key("late"))
    plant(out, layout.video_key(DIGEST))
    assert found(look(LocalStore(str(out))))[Kind.VIDEO] == {video, layout.video_key(DIGEST)}
    diagnosis = look(store, repair=True)
    assert diagnosis.healthy
    assert found(diagnosis)[Kind.VIDEO] == {layout.video_key(DIGEST)}
    assert store.exists(video)
    assert not store.exists(layout.video_key(DIGEST))
    assert look(store, verify=True).healthy


def test_no_video_goes_while_a_new_record_cannot_be_read(out: Path) -> None:
    claim.finish(LocalStore(str(out)), run_record("running"))
    plant(out, layout.video_key(DIGEST))

    class Harmed(LocalStore):
        """A record that nobody can read comes after everything was listed."""

        def leftovers(self) -> Iterator[Leftover]:
            yield from super().leftovers()
            self.put(layout.commit_key("late"), b"half")

    look(Harmed(str(out)), repair=True)
    assert (out / layout.video_key(DIGEST)).exists()


def test_a_finished_run_that_goes_on_meanwhile_stops_the_repair(out: Path) -> None:
    class Reopened(LocalStore):
        """Its run is started again while it is looked at."""

        def leftovers(self) -> Iterator[Leftover]:
            claim.finish(self, run_record("running"))
            return super().leftovers()

    plant(out, layout.video_key(DIGEST))
    with pytest.raises(UsageError, match=r"goes on meanwhile.*run the doctor again"):
        look(Reopened(str(out)), repair=True)
    assert (out / layout.video_key(DIGEST)).exists()


def test_a_look_costs_a_listing_and_the_records_that_no_shard_holds(out: Path) -> None:
    read: list[str] = []

    class Counted(LocalStore):
        """Notes what is read."""

        def get(self, key: str) -> bytes:
            read.append(key)
            return super().get(key)

        def stat(self, key: str) -> Stat:
            raise AssertionError(f"a request for {key}")

        def exists(self, key: str) -> bool:
            raise AssertionError(f"a request for {key}")

    assert look(Counted(str(out))).healthy
    assert sorted(read) == sorted([layout.RUN, *SHARDS, layout.commit_key("gone")])
