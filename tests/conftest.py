"""Fixtures that several kinds of test share: servers and the Ray cluster, each started once a session and lazily."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.servers import s3
from tests.servers.cluster import RayCluster, local_cluster

# Before torch is imported anywhere: tiny tensors gain nothing from threads, and the tests' processes share few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = ["pytester", "tests.skip_guard"]

# The machines are shared: how long an example takes says nothing about the code.
hypothesis.settings.register_profile("framelane", deadline=None)
hypothesis.settings.load_profile("framelane")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder with a short path (sockets live in it), gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def aws_keys() -> Iterator[None]:
    """The test servers' keys in this process's environment; no other AWS setting of the machine shines through."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in s3.S3Server("", "").env.items():
            if value:
                patch.setenv(name, value)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        yield


@pytest.fixture(scope="session")
def moto_server(server_folder: Path, aws_keys: None) -> Iterator[s3.S3Server]:
    """The fast S3 server."""
    with s3.moto(server_folder / "moto") as server:
        yield server


@pytest.fixture(scope="session")
def rgw_server(server_folder: Path, aws_keys: None) -> Iterator[s3.S3Server]:
    """The real S3 server; skips by name where its programs are missing."""
    if missing := s3.missing_for_rgw():
        pytest.skip(f"no RADOS Gateway here: {', '.join(missing)} not installed (see tests/system_packages.sh)")
    with s3.rgw(server_folder / "rgw") as server:
        yield server


@pytest.fixture(scope="session", params=["moto", pytest.param("rgw", marks=pytest.mark.service)])
def s3_server(request: pytest.FixtureRequest) -> s3.S3Server:
    """Both S3 servers in turn. Its ``env`` makes a child process use it; ``new_bucket()`` makes room."""
    server = request.getfixturevalue(f"{request.param}_server")
    assert isinstance(server, s3.S3Server)
    return server


@pytest.fixture(scope="session")
def ray_cluster(aws_keys: None) -> Iterator[RayCluster]:
    """One real local Ray cluster, this process connected to it; no process of it is left afterwards.

    Its processes have the test servers' keys in their environment, as a real cluster's would have the user's.
    """
    with local_cluster(ROOT) as cluster:
        yield cluster
