"""S3 servers for the tests: the real one (RADOS Gateway) and the fast one (moto), behind one description."""

from __future__ import annotations

import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.servers.child import ServerChild, free_port

ACCESS_KEY = "test"
SECRET_KEY = "testtest"
RGW_PROGRAMS = ("radosgw", "radosgw-admin", "ceph-mon", "ceph-osd", "ceph", "monmaptool", "curl")

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class S3Server:
    """A running server; everybody who talks to it uses the one pair of keys."""

    name: str
    endpoint: str

    @property
    def env(self) -> dict[str, str]:
        """What a process needs in its environment to use this server by default."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @cached_property
    def client(self) -> Any:
        """A plain boto3 client, independent of the product's own."""
        import boto3
        from botocore.config import Config

        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            config=Config(request_checksum_calculation="when_required", response_checksum_validation="when_required"),
        )

    def new_bucket(self) -> str:
        """Make an empty bucket and return its name."""
        name = f"fl-{uuid.uuid4().hex[:12]}"
        self.client.create_bucket(Bucket=name)
        return name

    def new_root(self) -> str:
        """An ``s3://`` URI below which there is nothing yet, in a bucket that all tests share."""
        return f"s3://{self._shared_bucket}/{uuid.uuid4().hex[:12]}"

    @cached_property
    def _shared_bucket(self) -> str:
        return self.new_bucket()


def missing_for_rgw() -> list[str]:
    """The programs RADOS Gateway needs that this machine lacks."""
    return [program for program in RGW_PROGRAMS if shutil.which(program) is None]


@contextmanager
def rgw(folder: Path) -> Iterator[S3Server]:
    """RADOS Gateway with its data under ``folder``, stopped gracefully at the end."""
    command = ["bash", str(_HERE / "rgw.sh"), "serve", str(folder), str(free_port()), str(free_port())]
    with ServerChild(command, folder.with_suffix(".log"), ready_timeout_s=120) as child:
        yield S3Server("rgw", child.url)


@contextmanager
def moto(folder: Path) -> Iterator[S3Server]:
    """moto's server, everything in its memory."""
    folder.mkdir(parents=True, exist_ok=True)
    with ServerChild([sys.executable, "-m", "tests.servers.moto_server"], folder / "server.log") as child:
        yield S3Server("moto", child.url)
