"""The store on S3 and its relatives (AWS, RADOS Gateway, MinIO-like).

Puts go through boto3, whose calls are all bounded in time and which offers the conditional put; reads and listings
go through s3fs. A retrying client can meet its own success as 412, so each conditional put carries an attempt id in
the object's metadata and compares it before it admits defeat.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from gamecraft_core.base.errors import StoreUnavailable, UsageError
from gamecraft_core.base.store import clean_key

_ATTEMPT = "framelane-attempt"
_CONNECT_TIMEOUT_S = 5
_READ_TIMEOUT_S = 30
_MAX_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class S3Options:
    """``endpoint_url``: None takes AWS_ENDPOINT_URL or the provider's default. Credentials come from the environment."""

    endpoint_url: str | None = None


class S3Store:
    """One prefix of one bucket."""

    def __init__(self, uri: str, options: S3Options) -> None:
        self._bucket, _, self._prefix = uri.removeprefix("s3://").strip("/").partition("/")
        if not self._bucket:
            raise UsageError(f"{uri!r} names no bucket", remedy="write s3://BUCKET/PREFIX")
        self.root = f"s3://{self._bucket}/{self._prefix}".rstrip("/")
        self._options = options
        self._boto: Any = None
        self._s3fs: Any = None

    def uri(self, key: str) -> str:
        return f"{self.root}/{clean_key(key)}"

    def get(self, key: str) -> bytes:
        try:
            return bytes(self._fs.cat_file(self._path(key)))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreUnavailable(f"cannot read {self.uri(key)}: {error}") from error

    def put(self, key: str, data: bytes) -> None:
        self._put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        from botocore.exceptions import ClientError

        attempt = uuid.uuid4().hex
        for _ in range(_MAX_ATTEMPTS):
            try:
                self._put(key, data, IfNoneMatch="*", Metadata={_ATTEMPT: attempt})
                return True
            except ClientError as error:
                status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                if status == 412:
                    return self._attempt_of(key) == attempt
                if status != 409:
                    self._unavailable(f"cannot write {self.uri(key)}", error)
        raise StoreUnavailable(f"{self.uri(key)} stays in conflict with other writers")

    def exists(self, key: str) -> bool:
        self._fs.invalidate_cache()
        return bool(self._fs.exists(self._path(key)))

    def list(self, prefix: str) -> Iterator[str]:
        self._fs.invalidate_cache()
        base = f"{self._bucket}/{self._prefix}".rstrip("/")
        for path in sorted(self._fs.find(f"{base}/{prefix}".rstrip("/"))):
            yield path.removeprefix(base + "/")

    def delete(self, key: str) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._client.delete_object(Bucket=self._bucket, Key=self._key(key))
        except (BotoCoreError, ClientError) as error:
            self._unavailable(f"cannot delete {self.uri(key)}", error)

    def _put(self, key: str, data: bytes, **extra: Any) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._client.put_object(Bucket=self._bucket, Key=self._key(key), Body=data, **extra)
        except ClientError as error:
            if extra and error.response["ResponseMetadata"]["HTTPStatusCode"] in (409, 412):
                raise
            self._unavailable(f"cannot write {self.uri(key)}", error)
        except BotoCoreError as error:
            self._unavailable(f"cannot write {self.uri(key)}", error)

    def _attempt_of(self, key: str) -> str | None:
        head = self._client.head_object(Bucket=self._bucket, Key=self._key(key))
        value = head["Metadata"].get(_ATTEMPT)
        return None if value is None else str(value)

    def _key(self, key: str) -> str:
        return f"{self._prefix}/{clean_key(key)}".lstrip("/")

    def _path(self, key: str) -> str:
        return f"{self._bucket}/{self._key(key)}"

    def _unavailable(self, what: str, error: Exception) -> NoReturn:
        code = getattr(error, "response", {}).get("Error", {}).get("Code", "")
        if code in ("NoSuchBucket", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"):
            raise UsageError(f"{what}: {code}", remedy="check the bucket name, the endpoint and the credentials") from error
        raise StoreUnavailable(f"{what}: {error}") from error

    @property
    def _client(self) -> Any:
        if self._boto is None:
            import boto3
            from botocore.config import Config

            self._boto = boto3.client(
                "s3",
                endpoint_url=self._options.endpoint_url or os.environ.get("AWS_ENDPOINT_URL"),
                region_name=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
                config=Config(
                    connect_timeout=_CONNECT_TIMEOUT_S,
                    read_timeout=_READ_TIMEOUT_S,
                    retries={"mode": "standard", "total_max_attempts": _MAX_ATTEMPTS},
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
        return self._boto

    @property
    def _fs(self) -> Any:
        if self._s3fs is None:
            import s3fs

            self._s3fs = s3fs.S3FileSystem(
                endpoint_url=self._options.endpoint_url or os.environ.get("AWS_ENDPOINT_URL"),
                config_kwargs={
                    "connect_timeout": _CONNECT_TIMEOUT_S,
                    "read_timeout": _READ_TIMEOUT_S,
                    "request_checksum_calculation": "when_required",
                    "response_checksum_validation": "when_required",
                },
                use_listings_cache=False,
            )
        return self._s3fs
