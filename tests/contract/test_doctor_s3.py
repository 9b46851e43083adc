"""The doctor on S3: the same findings and the same repair as in a folder, at a listing's cost."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from gamecraft_core.base.store import Inspectable, open_store
from gamecraft_core.dataset import claim, layout
from gamecraft_core.dataset.audit import Kind
from jobs import doctor
from tests.fakes.outputs import DIGEST, PLANTS, SHARDS, assert_readable, fill, found, look, run_record
from tests.servers.s3 import S3Server


@pytest.fixture
def store(s3_server: S3Server) -> Inspectable:
    """A finished output."""
    store = open_store(s3_server.new_root(), {"endpoint_url": s3_server.endpoint})
    fill(store)
    return store


def plant_all(store: Inspectable, server: S3Server) -> tuple[set[str], set[str]]:
    """Every plant that S3 can hold, and an upload that was never finished: orphans, and objects to be left alone."""
    bucket, _, prefix = store.root.removeprefix("s3://").partition("/")
    server.client.create_multipart_upload(Bucket=bucket, Key=f"{prefix}/data/part")
    orphans: set[str] = {"data/part"}
    strangers: set[str] = set()
    for each in PLANTS:
        if each.kind is not Kind.LEFTOVER:
            store.put(each.key, b"planted")
            (strangers if each.orphan == "none" else orphans).add(each.key)
    return orphans, strangers


def run_doctor(store: Inspectable, server: S3Server, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, Any]:
    """Exit status and document of the command."""
    status = doctor.main(["--out", store.root, "--endpoint-url", server.endpoint, "--json", *more])
    return status, json.loads(capsys.readouterr().out)


def test_orphans_are_found_and_removed(
    store: Inspectable, s3_server: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = set(store.list(""))
    orphans, strangers = plant_all(store, s3_server)
    status, document = run_doctor(store, s3_server, capsys)
    findings = {each["key"] for kind in document["findings"] for each in kind["examples"]}
    assert (status, findings) == (3, orphans | strangers)
    for _ in range(2):
        status, document = run_doctor(store, s3_server, capsys, "--repair", "--verify")
        assert (status, document["healthy"]) == (0, True)
    assert [(kind["kind"], kind["mended"]) for kind in document["findings"]] == [("unknown", 0)]
    assert set(store.list("")) == sound | strangers
    assert list(store.leftovers()) == []
    assert_readable(store)


def test_what_is_young_is_left_to_a_run_under_way(
    store: Inspectable, s3_server: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    claim.finish(store, run_record("running"))
    plant_all(store, s3_server)
    before = set(store.list(""))
    status, _ = run_doctor(store, s3_server, capsys, "--repair")
    assert (status, set(store.list(""))) == (0, before)
    if s3_server.name == "rgw":  # moto dates every upload to 2010
        assert len(list(store.leftovers())) == 1
    status, document = run_doctor(store, s3_server, capsys, "--repair", "--min-age", "0")
    assert status == 0
    kept = {each.key for each in PLANTS if each.orphan != "every"}
    gone = {each.key for each in PLANTS if each.orphan == "every" and each.kind is not Kind.LEFTOVER}
    assert before - set(store.list("")) == gone
    assert kept <= set(store.list(""))
    mended = {kind["kind"]: kind["mended"] for kind in document["findings"] if kind["mended"]}
    assert mended | {"leftover": 1} == {"staged": 2, "failure": 1, "latents": 2, "video": 2, "leftover": 1}
    assert list(store.leftovers()) == []
    assert_readable(store)


def test_damage_and_missing_shards(store: Inspectable) -> None:
    shard = store.get(SHARDS[1])
    video = sorted(store.list(layout.VIDEOS))[0]
    store.delete(SHARDS[1])
    store.put(video, store.get(video)[:-1])
    assert found(look(store)) == {Kind.SHARD: {SHARDS[1]}, Kind.WRONG: {video}}
    diagnosis = look(store, repair=True)
    assert not diagnosis.healthy
    assert diagnosis.tallies[Kind.SHARD].mended == 1
    assert store.get(SHARDS[1]) == shard
    assert found(look(store)) == {Kind.WRONG: {video}}


def test_a_look_needs_no_request_for_an_object(store: Inspectable, s3_server: S3Server) -> None:
    for number in range(40):
        store.put(layout.chunk_key("alpha", number, 1, DIGEST), b"")
    calls: Counter[str] = Counter()
    counted: Any = store
    counted._client.meta.events.register(
        "before-call.s3", lambda model, **_: calls.update([model.name]), unique_id="counted"
    )
    assert len(found(look(store))[Kind.STAGED]) == 40
    # run.json, the shards, and the one record that is in no shard.
    assert calls == {"GetObject": 1 + len(SHARDS) + 1, "ListObjectsV2": 1, "ListMultipartUploads": 1}
