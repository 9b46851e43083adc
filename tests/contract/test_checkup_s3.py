"""The doctor's look at a bucket: what it may do there is tried, told by its permission, and nothing is left."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jobs.checkup import places
from jobs.checkup.finding import Asked, carried_out
from jobs.config import load_fleet, load_preset
from tests.servers.s3 import S3Server
from tests.servers.wayward import wayward


def asked(out: str, endpoint: str) -> Asked:
    options = {"endpoint_url": endpoint}
    return Asked((load_preset("tiny-gamecraft"),), load_fleet("laptop"), out=out, options=options)


def left(server: S3Server, out: str) -> list[Any]:
    bucket, _, prefix = out.removeprefix("s3://").partition("/")
    found = server.client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    return [*found, *server.client.list_multipart_uploads(Bucket=bucket, Prefix=prefix).get("Uploads", [])]


def test_a_bucket_that_may_be_used_is_used_and_left_as_it_was(s3_server: S3Server) -> None:
    out = s3_server.new_root()
    found = places.store(asked(out, s3_server.endpoint))
    assert found.status == "ok", found.seen
    assert "multipart begin and abort" in found.seen
    assert left(s3_server, out) == []
    assert places.clock(asked(out, s3_server.endpoint)).status == "ok"


def test_a_bucket_that_is_not_there_is_told(s3_server: S3Server) -> None:
    (found,) = carried_out([places.store], asked("s3://fl-no-such-bucket/x", s3_server.endpoint))
    assert (found.status, found.seen.startswith("put does not work")) == ("fail", True)


@pytest.mark.parametrize(
    ("refuses", "verb", "permission"),
    [
        ("PUT ", "put", "s3:PutObject"),
        ("GET doctor-", "get", "s3:GetObject"),
        ("GET list-type", "list", "s3:ListBucket"),
        ("POST uploads", "multipart begin and abort", "s3:AbortMultipartUpload"),
        ("DELETE uploadId", "multipart begin and abort", "s3:AbortMultipartUpload"),
        ("DELETE -once", "delete", "s3:DeleteObject"),
    ],
)
def test_each_permission_that_is_missing_is_named(
    moto_server: S3Server, refuses: str, verb: str, permission: str
) -> None:
    out = moto_server.new_root()
    with wayward(moto_server.endpoint, refuses=refuses) as endpoint:
        found = places.store(asked(out, endpoint))
    assert found.status == "fail"
    assert found.seen.startswith(f"{verb} does not work"), found.seen
    assert permission in found.remedy
    if not refuses.startswith("DELETE"):
        assert left(moto_server, out) == []


def test_a_store_where_two_writers_win_is_refused(moto_server: S3Server) -> None:
    with wayward(moto_server.endpoint, drops="If-None-Match") as endpoint:
        found = places.store(asked(moto_server.new_root(), endpoint))
    assert found.status == "fail"
    assert "two writers of one key both win" in found.seen


@pytest.mark.parametrize(("ahead_s", "status"), [(0.0, "ok"), (40.0, "warn"), (-2000.0, "fail")])
def test_a_clock_that_is_off_is_told(moto_server: S3Server, ahead_s: float, status: str) -> None:
    with wayward(moto_server.endpoint, ahead_s=ahead_s) as endpoint:
        found = places.clock(asked(moto_server.new_root(), endpoint))
    assert found.status == status, found.seen


@pytest.fixture
def on_s3(s3_server: S3Server) -> Asked:
    """The micro world's weights in a bucket: one a file, the other a folder."""
    root = s3_server.new_root()
    bucket, _, prefix = root.removeprefix("s3://").partition("/")
    preset = load_preset("micro-gamecraft")
    for key, path in (("dit.safetensors", preset.weights.dit), ("vae/model.safetensors", preset.weights.vae)):
        assert path
        s3_server.client.upload_file(path, bucket, f"{prefix}/{key}" if prefix else key)
    weights = preset.weights.model_copy(update={"dit": f"{root}/dit.safetensors", "vae": f"{root}/vae"})
    there = asked(root, s3_server.endpoint)
    return replace(there, presets=(preset.model_copy(update={"weights": weights}),))


def test_weights_on_s3_are_checked_by_their_headers(on_s3: Asked) -> None:
    (found,) = carried_out([places.weights], on_s3)
    assert (found.status, "their keys and shapes fit" in found.seen) == ("ok", True), found.seen


def test_weights_on_s3_that_do_not_fit_are_told(on_s3: Asked) -> None:
    (preset,) = on_s3.presets
    wider = preset.dit.model_copy(update={"text_states_dim": 48})
    (found,) = carried_out([places.weights], replace(on_s3, presets=(preset.model_copy(update={"dit": wider}),)))
    assert found.status == "fail"
    assert "txt_in" in found.seen


def test_weights_that_are_not_there_are_told(on_s3: Asked) -> None:
    (preset,) = on_s3.presets
    away = preset.weights.model_copy(update={"vae": f"{on_s3.out}/nothing"})
    (found,) = carried_out([places.weights], replace(on_s3, presets=(preset.model_copy(update={"weights": away}),)))
    assert (found.status, "there is nothing at" in found.seen) == ("fail", True), found.seen
