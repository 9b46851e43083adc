"""An output as a stranger sees it: keys, sizes and bytes, through boto3 or the file system, not the product's code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class Bucket(Protocol):
    """Everything below one root. ``unfinished`` are keys of uploads that were begun and not ended."""

    def sizes(self) -> dict[str, int]: ...
    def get(self, key: str) -> bytes: ...
    def unfinished(self) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Folder:
    """An output in a local folder."""

    root: str

    def sizes(self) -> dict[str, int]:
        base = Path(self.root)
        return {str(path.relative_to(base)): path.stat().st_size for path in base.rglob("*") if path.is_file()}

    def get(self, key: str) -> bytes:
        return (Path(self.root) / key).read_bytes()

    def unfinished(self) -> list[str]:
        return []


@dataclass(frozen=True, slots=True)
class S3Prefix:
    """An output at ``s3://BUCKET/PREFIX``."""

    root: str
    client: Any

    def sizes(self) -> dict[str, int]:
        bucket, prefix = self._place
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        found = [entry for page in pages for entry in page.get("Contents", ())]
        return {entry["Key"].removeprefix(prefix): entry["Size"] for entry in found}

    def get(self, key: str) -> bytes:
        bucket, prefix = self._place
        return bytes(self.client.get_object(Bucket=bucket, Key=prefix + key)["Body"].read())

    def unfinished(self) -> list[str]:
        bucket, prefix = self._place
        found = self.client.list_multipart_uploads(Bucket=bucket).get("Uploads", ())
        return [upload["Key"] for upload in found if upload["Key"].startswith(prefix)]

    @property
    def _place(self) -> tuple[str, str]:
        bucket, _, prefix = self.root.removeprefix("s3://").partition("/")
        return bucket, f"{prefix}/"
