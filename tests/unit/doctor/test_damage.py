"""Damage: named with the sessions it harms and a remedy that works, and left as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gamecraft_core.base.errors import UsageError
from gamecraft_core.base.store import LocalStore
from gamecraft_core.dataset import claim, layout
from gamecraft_core.dataset.audit import Kind
from gamecraft_core.dataset.rows import read_table, table_bytes
from gamecraft_core.dataset.shards import publish_shard
from tests.fakes.outputs import DIGEST, SHARDS, files, found, look, plant, published, run_record, sessions


def video_of(store: LocalStore, name: str) -> str:
    return next(str(row["video_path"]) for row in published(store) if row["session_id"] == name)


def lacks_a_video(store: LocalStore) -> None:
    store.delete(video_of(store, "alpha"))


def has_a_short_video(store: LocalStore) -> None:
    key = video_of(store, "alpha")
    store.put(key, store.get(key)[:-1])


def lacks_latents(store: LocalStore) -> None:
    store.delete(next(store.list("latents/alpha")))


def lacks_a_record(store: LocalStore) -> None:
    store.delete(layout.commit_key("alpha"))


def lacks_every_trace(store: LocalStore) -> None:
    store.delete(layout.commit_key("echo"))
    store.delete(SHARDS[2])
    publish_shard(store, 2, 3, [])


def publishes_twice(store: LocalStore) -> None:
    store.put(layout.shard_key(0, 1), store.get(SHARDS[0]))


def leaves_one_out(store: LocalStore) -> None:
    store.delete(SHARDS[0])
    publish_shard(store, 0, 3, [store.get(layout.commit_key("alpha"))])


def breaks_a_shard(store: LocalStore) -> None:
    store.put(SHARDS[0], store.get(SHARDS[0])[:-20])


@pytest.mark.parametrize(
    ("harm", "kind", "who"),
    [
        (lacks_a_video, Kind.MISSING, {"alpha"}),
        (has_a_short_video, Kind.WRONG, {"alpha"}),
        (lacks_latents, Kind.MISSING, {"alpha"}),
        (lacks_a_record, Kind.UNRECORDED, {"alpha"}),
        (lacks_every_trace, Kind.LOST, {""}),
        (publishes_twice, Kind.REPEATED, {"alpha", "beta.v2"}),
        (leaves_one_out, Kind.LEFT_OUT, {"beta.v2"}),
        (breaks_a_shard, Kind.BROKEN_SHARD, {""}),
    ],
)
def test_damage_is_named_and_no_repair_touches_it(
    store: LocalStore, out: Path, harm: Callable[[LocalStore], None], kind: Kind, who: set[str]
) -> None:
    harm(store)
    before = files(out)
    for repair in (False, True):
        diagnosis = look(store, repair=repair, verify=True)
        assert not diagnosis.healthy
        # Without any trace of a session, its video is one that no record names.
        expected = {kind, Kind.VIDEO, Kind.LATENTS} if kind is Kind.LOST else {kind}
        assert set(found(diagnosis)) <= expected
        assert sessions(diagnosis, kind) == who
        assert kind.remedy
        if kind is not Kind.LOST:
            assert files(out) == before


@pytest.mark.parametrize("harm", [leaves_one_out, breaks_a_shard])
def test_the_remedy_for_a_shard_works(store: LocalStore, harm: Callable[[LocalStore], None]) -> None:
    good = store.get(SHARDS[0])
    harm(store)
    assert not look(store).healthy
    store.delete(SHARDS[0])
    diagnosis = look(store)
    assert found(diagnosis) == {Kind.SHARD: {SHARDS[0]}}
    assert not diagnosis.healthy
    assert look(store, repair=True).healthy
    assert store.get(SHARDS[0]) == good


def test_shards_of_an_unfinished_run_may_be_missing(store: LocalStore) -> None:
    claim.finish(store, run_record("running"))
    for key in SHARDS:
        store.delete(key)
    assert not look(store, repair=True).tallies
    assert list(store.list(layout.DATA)) == []


def test_all_shards_of_a_finished_run_are_published_again(store: LocalStore) -> None:
    good = {key: store.get(key) for key in SHARDS}
    for key in SHARDS:
        store.delete(key)
    assert look(store, repair=True).healthy
    assert {key: store.get(key) for key in SHARDS} == good


@pytest.mark.parametrize("which", ["video", "latents"])
def test_only_verifying_finds_a_flipped_bit(store: LocalStore, which: str) -> None:
    key = video_of(store, "delta") if which == "video" else next(store.list("latents/delta"))
    data = bytearray(store.get(key))
    data[len(data) // 2] ^= 1
    store.put(key, bytes(data))
    assert look(store).healthy
    diagnosis = look(store, verify=True)
    assert found(diagnosis) == {Kind.WRONG: {key}}
    assert sessions(diagnosis, Kind.WRONG) == {"delta"}


def test_a_lost_failure_entry_is_written_again(store: LocalStore) -> None:
    key = layout.failure_key("gone")
    entry = store.get(key)
    store.delete(key)
    assert found(look(store)) == {Kind.UNINDEXED: {layout.commit_key("gone")}}
    assert look(store, repair=True).healthy
    assert store.get(key) == entry


@pytest.mark.parametrize("junk", ["bytes", "other columns", "another session's"])
def test_while_a_record_cannot_be_read_no_artifact_is_an_orphan(store: LocalStore, out: Path, junk: str) -> None:
    claim.finish(store, run_record("running"))
    store.delete(SHARDS[2])
    record = store.get(layout.commit_key("echo"))
    harmed = {
        "bytes": record[:-9],
        "other columns": table_bytes(read_table(record).select(["session_id", "row"])),
        "another session's": store.get(layout.commit_key("alpha")),
    }
    store.put(layout.commit_key("echo"), harmed[junk])
    plant(out, layout.video_key(DIGEST))
    before = files(out)
    diagnosis = look(store, repair=True)
    assert found(diagnosis) == {Kind.UNREADABLE: {layout.commit_key("echo")}}
    assert not diagnosis.healthy
    assert files(out) == before


def test_what_a_newer_release_wrote_is_refused(store: LocalStore, out: Path) -> None:
    table = read_table(store.get(SHARDS[0]))
    conventions = json.loads(table.schema.metadata[b"framelane"]) | {"schema_version": 99}
    store.put(SHARDS[0], table_bytes(table.replace_schema_metadata({"framelane": json.dumps(conventions)})))
    plant(out, layout.video_key(DIGEST))
    with pytest.raises(UsageError, match="schema version 99"):
        look(store, repair=True)
    assert (out / layout.video_key(DIGEST)).exists()


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (None, r"has no run\.json"),
        (b"[]", "not a run's record"),
        (b'{"version": 1, "run_id": "x"}', "not a run's record"),
        (b'{"version": 99}', "version 99"),
    ],
)
def test_what_is_no_runs_output_is_refused(store: LocalStore, record: bytes | None, said: str) -> None:
    store.delete(layout.RUN) if record is None else store.put(layout.RUN, record)
    with pytest.raises(UsageError, match=said) as caught:
        look(store, repair=True)
    assert caught.value.remedy
