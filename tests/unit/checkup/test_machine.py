"""The machine's checks in the states that they are there for."""

from __future__ import annotations

import shutil
import socket
from dataclasses import replace
from types import SimpleNamespace

import pytest

from gamecraft_core.base.errors import UsageError
from jobs.checkup import machine, network
from jobs.checkup.finding import Asked, Finding, carried_out


def test_an_old_python_and_wrong_packages_are_named(asked: Asked) -> None:
    assert machine.python(asked).status == "ok"
    old = machine.python(asked, (3, 9))
    assert (old.status, old.remedy) == ("fail", "install Python 3.11 or later")
    assert machine.packages(asked).status == "ok", "those of this project's own metadata"
    wrong = machine.packages(asked, ["numpy>=1000", "no-such-package-of-ours", "pydantic", "never; extra == 'x'"])
    assert wrong.status == "fail"
    assert "numpy" in wrong.seen
    assert "no-such-package-of-ours is missing" in wrong.seen
    assert "never" not in wrong.seen


@pytest.mark.parametrize(
    ("limits", "status"), [((65536, 65536), "ok"), ((1024, 65536), "warn"), ((1024, 2048), "fail"), ((-1, -1), "ok")]
)
def test_few_open_files_are_told(asked: Asked, limits: tuple[int, int], status: str) -> None:
    assert machine.open_files(asked, limits).status == status


def test_shared_memory_is_held_against_rays_store_and_ranks(
    asked: Asked, big: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = shutil.disk_usage("/dev/shm").total
    assert machine.shared_memory(replace(asked, object_store=there // 2)).status == "ok"
    short = machine.shared_memory(replace(asked, object_store=2 * there))
    assert short.status == "warn"
    assert "--shm-size" in short.remedy
    usage = SimpleNamespace(total=64 << 20, free=64 << 20)  # what a container gets by default
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert machine.shared_memory(big).status == "fail"
    assert machine.shared_memory(asked).status == "warn"


@pytest.mark.parametrize(("free", "status"), [(500 << 30, "ok"), (60 << 30, "ok"), (9 << 30, "fail"), (0, "fail")])
def test_a_full_disk_is_told(asked: Asked, monkeypatch: pytest.MonkeyPatch, free: int, status: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=1000 << 30, free=free))
    found = machine.disk_space(asked, ["/tmp/never/there"])
    assert found.status == status
    assert found.seen.startswith("/tmp:" if status else "")


def test_a_small_disk_that_is_not_full_yet_warns(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=20 << 30, free=8 << 30))
    assert machine.disk_space(asked).status == "warn"


def test_a_taken_port_warns_or_fails_and_a_silent_one_is_named() -> None:
    with socket.create_server(("", 0)) as listening:
        port = listening.getsockname()[1]
        assert network.port_is_free("metrics port", port, needed=False).status == "warn"
        assert network.port_is_free("service port", port, needed=True).status == "fail"
        assert network.answers("Ray's ports", [("127.0.0.1", port)]).status == "ok"
    assert network.port_is_free("service port", port, needed=True).status == "ok"
    silent = network.answers("Ray's ports", [("127.0.0.1", port)])
    assert silent.status == "fail"
    assert f"127.0.0.1:{port}" in silent.seen


def test_what_a_check_does_not_expect_is_a_finding_and_so_is_its_silence(asked: Asked) -> None:
    ended = __import__("threading").Event()

    def broken(asked: Asked) -> Finding:
        raise KeyError("surprise")

    def refused(asked: Asked) -> Finding:
        raise UsageError("not there", field="weights.dit", remedy="fetch it")

    def never_ends(asked: Asked) -> Finding:
        ended.wait()
        return Finding("", "ok", "")

    found = {each.name: each for each in carried_out([broken, refused, never_ends, machine.python], asked, 1.0)}
    ended.set()
    assert found["broken"].status == "fail"
    assert "KeyError: 'surprise'" in found["broken"].seen
    assert (found["refused"].seen, found["refused"].remedy) == ("weights.dit: not there", "fetch it")
    assert found["never ends"].status == "fail"
    assert found["python"].status == "ok"
