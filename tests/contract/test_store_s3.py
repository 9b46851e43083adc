"""What only S3 has: lost replies, broken bodies, silent or absent peers, refused keys. On both servers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from gamecraft_core.base.errors import StoreUnavailable, UsageError
from gamecraft_core.base.store import Store, open_store
from tests.servers.child import free_port
from tests.servers.proxy import FaultProxy
from tests.servers.s3 import S3Server

MACHINE_SLACK_S = 5


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def store(s3_server: S3Server, proxy: FaultProxy) -> Store:
    """A store behind the proxy."""
    return open_at(proxy.url, s3_server.new_root())


def open_at(endpoint: str, uri: str, **options: Any) -> Store:
    """A store whose client is impatient."""
    return open_store(uri, {"endpoint_url": endpoint, "connect_timeout_s": 2.0, "attempts": 2, **options})


def test_its_own_success_met_as_412_is_a_success(store: Store, proxy: FaultProxy) -> None:
    store.exists("warm-up")
    proxy.fault("drop_reply", count=1)
    assert store.put_if_absent("key", b"mine")
    assert proxy.met == 1
    assert store.get("key") == b"mine"
    assert not store.put_if_absent("key", b"mine")


def test_a_lost_reply_does_not_turn_a_loser_into_a_winner(store: Store, proxy: FaultProxy) -> None:
    assert store.put_if_absent("key", b"theirs")
    proxy.fault("drop_reply", count=1)
    assert not store.put_if_absent("key", b"mine")
    assert proxy.met == 1
    assert store.get("key") == b"theirs"


def test_when_every_reply_is_lost_the_outcome_is_unknown(store: Store, proxy: FaultProxy) -> None:
    proxy.fault("drop_reply")
    with pytest.raises(StoreUnavailable):
        store.put_if_absent("key", b"mine")
    proxy.fault("pass")
    assert store.get("key") == b"mine"


def test_a_body_that_breaks_off_is_read_again(store: Store, proxy: FaultProxy) -> None:
    value = bytes(range(256)) * 4096
    store.put("key", value)
    proxy.fault("cut_reply", count=1)
    assert store.get("key") == value
    assert proxy.met == 1


def test_a_range_that_breaks_off_is_read_again(store: Store, proxy: FaultProxy) -> None:
    value = bytes(range(256)) * 4096
    store.put("key", value)
    version = store.stat("key").version
    proxy.fault("cut_reply", count=1)
    assert store.get_range("key", 256, 1_000_000, version) == value[256:1_000_000]
    assert proxy.met == 1


def test_a_body_that_keeps_breaking_off_is_an_error(store: Store, proxy: FaultProxy) -> None:
    store.put("key", b"x" * 1_000_000)
    proxy.fault("cut_reply")
    with pytest.raises(StoreUnavailable, match="keeps breaking off"):
        store.get("key")


def test_a_reset_connection_is_tried_again(store: Store, proxy: FaultProxy) -> None:
    proxy.fault("refuse", count=1)
    store.put("key", b"x")
    assert proxy.met == 1
    assert store.exists("key")


def test_a_busy_server_is_asked_again_and_for_long_is_an_outage(store: Store, proxy: FaultProxy) -> None:
    stored = proxy.stored
    proxy.fault("unavailable", count=1)
    store.put("key", b"x" * (2 << 20))
    assert (proxy.met, proxy.stored - stored) == (1, 1)
    proxy.fault("unavailable")
    with pytest.raises(StoreUnavailable):
        store.put("other", b"x")
    proxy.fault("pass")
    assert not store.exists("other")


def test_only_a_large_body_waits_to_be_invited(store: Store) -> None:
    sent = []
    client: Any = store._client  # type: ignore[attr-defined]
    client.meta.events.register_last("before-send.s3", lambda request, **_: sent.append("Expect" in request.headers))
    store.put("small", b"x" * 1000)
    store.put_if_absent("small-too", b"")
    store.put("large", b"x" * (2 << 20))
    assert sent == [False, False, True]
    assert len(store.get("large")) == 2 << 20


def test_latency_only_slows(store: Store, proxy: FaultProxy) -> None:
    proxy.fault("latency", seconds=0.02)
    assert store.put_if_absent("key", b"x" * 100_000)
    assert store.get("key") == b"x" * 100_000


@pytest.mark.parametrize("call", ["put", "put_if_absent", "get", "stat", "get_range", "exists", "delete", "list"])
def test_a_silent_peer_holds_no_call_beyond_its_bound(aws_keys: None, call: str) -> None:
    arguments: dict[str, tuple[Any, ...]] = {
        "put": ("key", b"x"),
        "put_if_absent": ("key", b"x"),
        "get_range": ("key", 0, 9, ""),
    }
    with FaultProxy("http://127.0.0.1:1") as proxy:
        proxy.fault("silent")
        store = open_at(proxy.url, "s3://bucket/root", read_timeout_s=0.5)
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="check that the endpoint is up"):
            list(getattr(store, call)(*arguments.get(call, ("key",))))
        took = time.monotonic() - began
        assert proxy.met == 2
    # Two tries of half a second's silence, after a second at most for an unheeded Expect, and a second's back-off.
    assert took < 2 * (0.5 + 1) + 1 + MACHINE_SLACK_S


def test_nobody_at_the_endpoint(aws_keys: None) -> None:
    with pytest.raises(StoreUnavailable, match="check that the endpoint is up"):
        open_at(f"http://127.0.0.1:{free_port()}", "s3://bucket/root").put("key", b"")


@pytest.mark.parametrize("call", ["put", "put_if_absent", "get", "list"])
def test_a_missing_bucket_is_the_users_error(s3_server: S3Server, call: str) -> None:
    store = open_at(s3_server.endpoint, "s3://no-such-bucket/root")
    arguments = ("key", b"x") if call.startswith("put") else ("key",)
    with pytest.raises(UsageError, match=r"NoSuchBucket.*check the bucket's name"):
        list(getattr(store, call)(*arguments))


@pytest.mark.service
@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong", "SignatureDoesNotMatch"),
        ("AWS_ACCESS_KEY_ID", "nobody", "InvalidAccessKeyId"),
        ("AWS_ACCESS_KEY_ID", None, "credentials"),
    ],
)
def test_wrong_keys_are_the_users_error(
    rgw_server: S3Server, monkeypatch: pytest.MonkeyPatch, name: str, value: str | None, code: str
) -> None:
    uri = rgw_server.new_root()
    if value is None:
        monkeypatch.delenv(name)
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    else:
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"{code}.*check the bucket's name"):
        open_at(rgw_server.endpoint, uri).put_if_absent("key", b"x")


def test_the_environment_names_the_endpoint(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = s3_server.new_bucket()
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    store = open_store(f"s3://{bucket}")
    store.put("key", b"at the bucket's root")
    assert list(store.list("")) == ["key"]
    assert store.uri("key") == f"s3://{bucket}/key"


def test_options_and_uris_are_checked(aws_keys: None) -> None:
    with pytest.raises(UsageError, match=r"store\.endpoint: .*endpoint_url, connect_timeout_s"):
        open_store("s3://bucket", {"endpoint": "x"})
    with pytest.raises(UsageError, match="names no legal bucket"):
        open_store("s3:///prefix")
    with pytest.raises(UsageError, match="check the bucket's name"):
        open_at("not a url", "s3://bucket").put("key", b"")
    with pytest.raises(UsageError, match="names no legal bucket"):
        open_at("http://127.0.0.1:1", "s3://Not A Bucket!")


def test_an_unfinished_upload_is_found_and_aborted(s3_server: S3Server) -> None:
    root = s3_server.new_root()
    bucket, _, prefix = root.removeprefix("s3://").partition("/")
    client = s3_server.client

    def begin(key: str, *parts: bytes) -> None:
        upload = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        for number, part in enumerate(parts, 1):
            client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=part)

    begin(f"{prefix}/videos/a.mp4", b"x" * (5 << 20), b"rest")
    begin(f"{prefix}/b")
    begin(f"{prefix}-other/c", b"theirs")
    store = open_store(root, {"endpoint_url": s3_server.endpoint})
    found = sorted(store.leftovers())
    assert [(left.key, left.size) for left in found] == [("b", 0), ("videos/a.mp4", (5 << 20) + 4)]
    if s3_server.name == "rgw":  # moto dates every upload to 2010
        assert all(abs(left.modified - time.time()) < 120 for left in found)
    for left in (*found, *found):
        store.discard(left)
    assert list(store.leftovers()) == []
    other = open_store(f"{root}-other", {"endpoint_url": s3_server.endpoint})
    assert [left.key for left in other.leftovers()] == ["c"]
