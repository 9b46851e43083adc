"""The store on S3 and its relatives (AWS, RADOS Gateway, MinIO-like).

Everything goes through boto3, whose calls are all bounded in time (S3Options) and which offers the conditional put.
A retrying client can meet its own success as 412, so each conditional put carries an attempt id in the object's
metadata and compares it before it admits defeat. A body that breaks off while it is read escapes the client's own
retries, so whole reads are repeated here.
"""

from __future__ import annotations

import os
import random
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, fields
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from gamecraft_core.base.errors import FramelaneError, StoreUnavailable, UsageError
from gamecraft_core.base.store import Entry, Leftover, Stat, changed, clean_folder, clean_key

_ATTEMPT = "framelane-attempt"
_CONNECTIONS = 32
_PART_BYTES = 64 << 20
_UPLOAD_THREADS = 4
_CONFLICT_PAUSE_S = 0.05
_SMALL_BODY_BYTES = 1 << 20
_TRANSIENT_STATUS = (408, 425, 429)
_TRANSIENT_CODES = ("RequestTimeout", "RequestTimeoutException", "SlowDown", "Throttling")
_REMEDY = "check the bucket's name, the endpoint (AWS_ENDPOINT_URL or store.endpoint_url) and the AWS_* credentials"
_REMEDY_AWAY = "check that the endpoint is up and reachable, then run again"


@dataclass(frozen=True, slots=True)
class S3Options:
    """Where the server is and how long it may take. Credentials come from the environment, as for any AWS client.

    ``endpoint_url``: None takes AWS_ENDPOINT_URL or the provider's own. Timeouts are seconds for one connection and for
    one silence; ``attempts`` is the number of tries, so no request outlasts attempts x (connect + read) plus the
    client's back-off (at most 1, 2, 4, ... seconds between tries).
    """

    endpoint_url: str | None = None
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 20.0
    attempts: int = 4

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> S3Options:
        """From configuration; an unknown name is a usage error that lists the known ones."""
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise UsageError("unknown store option", field=f"store.{name}", remedy=f"use one of {', '.join(known)}")
        return cls(**options)


class S3Store:
    """One prefix of one bucket. Safe to share between threads; pickles as its URI and options."""

    def __init__(self, uri: str, options: S3Options) -> None:
        self._bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        self._prefix = prefix.strip("/")
        if not self._bucket:
            raise UsageError(f"{uri!r} names no bucket", remedy="write s3://BUCKET/PREFIX")
        self.root = f"s3://{self._bucket}/{self._prefix}".rstrip("/")
        self._options = options
        self._lock = threading.Lock()
        self._boto: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.root, self._options)

    def uri(self, key: str) -> str:
        return f"{self.root}/{clean_key(key)}"

    def get(self, key: str) -> bytes:
        return self._read(key)

    def stat(self, key: str) -> Stat:
        with self._call("look up", key):
            head = self._client.head_object(Bucket=self._bucket, Key=self._key(key))
        return Stat(head["ContentLength"], head["ETag"])

    def get_range(self, key: str, start: int, end: int, version: str) -> bytes:
        # The tag is compared here: not every server heeds If-Match.
        return self._read(key, version, Range=f"bytes={start}-{end - 1}")

    def _read(self, key: str, version: str | None = None, **span: str) -> bytes:
        for _ in range(self._options.attempts):
            with self._call("read", key):
                answer = self._client.get_object(Bucket=self._bucket, Key=self._key(key), **span)
            with suppress(StoreUnavailable), self._call("read", key), closing(answer["Body"]) as body:
                data = bytes(body.read())
                break
        else:
            raise StoreUnavailable(f"cannot read {self.uri(key)}: the body keeps breaking off", remedy=_REMEDY_AWAY)
        if version not in (None, answer["ETag"]):
            raise changed(self.uri(key))
        return data

    def put(self, key: str, data: bytes) -> None:
        with self._call("write", key):
            self._client.put_object(Bucket=self._bucket, Key=self._key(key), Body=data)

    def upload(self, key: str, path: Path) -> None:
        """Put a file of any size, in parts; the key appears with all its bytes or not at all."""
        from boto3.exceptions import S3UploadFailedError
        from boto3.s3.transfer import TransferConfig

        config = TransferConfig(multipart_chunksize=_PART_BYTES, max_concurrency=_UPLOAD_THREADS)
        with self._call("write", key):
            try:
                self._client.upload_file(str(path), self._bucket, self._key(key), Config=config)
            except S3UploadFailedError as error:  # the client's error, wrapped
                raise error.__context__ or error from error

    def put_if_absent(self, key: str, data: bytes) -> bool:
        attempt = uuid.uuid4().hex
        target: dict[str, Any] = {"Bucket": self._bucket, "Key": self._key(key)}
        for conflicts in range(self._options.attempts):
            try:
                with self._call("write", key):
                    self._client.put_object(**target, Body=data, IfNoneMatch="*", Metadata={_ATTEMPT: attempt})
                return True
            except FileExistsError:
                with suppress(FileNotFoundError), self._call("look up", key):
                    return bool(self._client.head_object(**target)["Metadata"].get(_ATTEMPT) == attempt)
            except _Conflict:
                pass
            time.sleep(_CONFLICT_PAUSE_S * 2**conflicts * random.random())
        raise StoreUnavailable(f"{self.uri(key)} stays in conflict with other writers")

    def exists(self, key: str) -> bool:
        with suppress(FileNotFoundError), self._call("look up", key):
            self._client.head_object(Bucket=self._bucket, Key=self._key(key))
            return True
        return False

    def list(self, prefix: str) -> Iterator[str]:
        return (entry.key for entry in self.scan(prefix))

    def scan(self, prefix: str) -> Iterator[Entry]:
        for found in self._listed("list_objects_v2", "Contents", Prefix=self._folder(prefix)):
            yield Entry(self._short(found["Key"]), found["Size"], found["LastModified"].timestamp())

    def leftovers(self) -> Iterator[Leftover]:
        for found in self._listed("list_multipart_uploads", "Uploads", Prefix=self._folder("")):
            key, upload = found["Key"], found["UploadId"]
            with suppress(FileNotFoundError):  # finished or aborted since it was listed
                size = sum(part["Size"] for part in self._listed("list_parts", "Parts", Key=key, UploadId=upload))
                yield Leftover(self._short(key), size, found["Initiated"].timestamp(), upload)

    def discard(self, leftover: Leftover) -> None:
        target = {"Bucket": self._bucket, "Key": self._folder("") + leftover.key, "UploadId": leftover.upload}
        with suppress(FileNotFoundError), self._call("abort the upload to", leftover.key):
            self._client.abort_multipart_upload(**target)

    def try_upload(self, key: str) -> None:
        """Begin an upload in parts and abort it: what only large files do."""
        target = {"Bucket": self._bucket, "Key": self._key(key)}
        with self._call("begin an upload to", key):
            upload = self._client.create_multipart_upload(**target)["UploadId"]
        with self._call("abort the upload to", key):
            self._client.abort_multipart_upload(**target, UploadId=upload)

    def server_time(self) -> float:
        """The server's clock, Unix seconds, whole ones."""
        with self._call("ask for", ""):
            answer = self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._folder(""), MaxKeys=1)
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()

    def delete(self, key: str) -> None:
        with self._call("delete", key):
            self._client.delete_object(Bucket=self._bucket, Key=self._key(key))

    def _key(self, key: str) -> str:
        return self._folder("") + clean_key(key)

    def _folder(self, prefix: str) -> str:
        return (f"{self._prefix}/" if self._prefix else "") + clean_folder(prefix)

    def _short(self, key: str) -> str:
        return key.removeprefix(self._folder(""))

    def _listed(self, call: str, field: str, **scope: str) -> Iterator[Any]:
        """What stands under ``field`` on every page of a listing."""
        with self._call("list", scope.get("Key", "")):
            for page in self._client.get_paginator(call).paginate(Bucket=self._bucket, **scope):
                yield from page.get(field, ())

    @contextmanager
    def _call(self, verb: str, key: str) -> Iterator[None]:
        """Give the client's errors their meaning here."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise _meaning(error, f"cannot {verb} {self.root}/{key}: {error}") from error

    @property
    def _client(self) -> Any:
        with self._lock:
            if self._boto is None:
                self._boto = self._connect()
            return self._boto

    def _connect(self) -> Any:
        """A client of its own session: boto3's shared default session is not safe between threads."""
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        options = self._options
        config = Config(
            connect_timeout=options.connect_timeout_s,
            read_timeout=options.read_timeout_s,
            retries={"mode": "standard", "total_max_attempts": options.attempts},
            max_pool_connections=_CONNECTIONS,
            # Servers other than AWS refuse the trailing checksums that newer clients send by default.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        session = boto3.session.Session()
        region = os.environ.get("AWS_REGION") or session.region_name or "us-east-1"
        try:
            client = session.client("s3", endpoint_url=options.endpoint_url, region_name=region, config=config)
        except (BotoCoreError, ValueError) as error:
            raise UsageError(f"cannot open {self.root}: {error}", remedy=_REMEDY) from error
        client.meta.events.register("before-send.s3", _send_small_bodies_at_once)
        return client


def _send_small_bodies_at_once(request: Any, **_: Any) -> None:
    """Asking the server whether it wants the body costs a round trip, which only a large body is worth."""
    if int(request.headers.get("Content-Length", 0)) <= _SMALL_BODY_BYTES:
        request.headers.pop("Expect", None)


class _Conflict(StoreUnavailable):
    """409: the server is busy with another writer of the same key."""


def _meaning(error: Exception, message: str) -> OSError | FramelaneError:
    """A server that answers but refuses is the user's to put right; one that does not answer may come back."""
    from botocore.exceptions import ConnectionError, HTTPClientError, IncompleteReadError

    if isinstance(error, (ConnectionError, HTTPClientError, IncompleteReadError)):
        return StoreUnavailable(message, remedy=_REMEDY_AWAY)
    response = getattr(error, "response", {})
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = response.get("Error", {}).get("Code", "")
    if code in ("NoSuchKey", "NoSuchUpload", "404"):
        return FileNotFoundError(message)
    if status == 416:  # shorter than when it was looked at
        return StoreUnavailable(message, remedy=_REMEDY_AWAY)
    if status == 412:
        return FileExistsError(message)
    if status == 409:
        return _Conflict(message)
    if status >= 500 or status in _TRANSIENT_STATUS or code in _TRANSIENT_CODES:
        return StoreUnavailable(message, remedy=_REMEDY_AWAY)
    return UsageError(message, remedy=_REMEDY)
