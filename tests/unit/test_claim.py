"""One output, one run: a claim is taken once, continued by its equal, and refused to others with the reason."""

from __future__ import annotations

import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gamecraft_core.base.errors import OutputTaken
from gamecraft_core.base.store import Store, open_store
from gamecraft_core.dataset import layout
from gamecraft_core.dataset.claim import RUN_VERSION, ClaimResult, claim, finish, look


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


def run(run_id: str = "r1", manifest: str = "ab12", **sampling: Any) -> dict[str, Any]:
    identity = {"manifest": manifest, "sampling": {"steps": 8, "shift": 5.0} | sampling, "sizes": (64, 112)}
    return {"run_id": run_id, "identity": identity, "config": {"fleet": "demo"}}


def test_a_fresh_output_is_claimed_and_says_by_whom(store: Store) -> None:
    assert claim(store, run()) == ClaimResult(False, "r1")
    there = json.loads(store.get(layout.RUN))
    assert (there["version"], there["run_id"], there["config"]) == (RUN_VERSION, "r1", {"fleet": "demo"})


def test_the_same_run_goes_on_under_its_first_id(store: Store) -> None:
    claim(store, run("r1"))
    assert claim(store, run("r2") | {"config": {"fleet": "other"}}) == ClaimResult(True, "r1")
    assert json.loads(store.get(layout.RUN))["run_id"] == "r1"


def test_another_run_is_refused_with_each_difference_named(store: Store) -> None:
    claim(store, run())
    with pytest.raises(OutputTaken) as caught:
        claim(store, run(manifest="ff00", steps=4, tiling=False))
    assert caught.value.message.endswith(
        'belongs to run r1, which differs: manifest: "ab12" there, "ff00" here; '
        "sampling.steps: 8 there, 4 here; sampling.tiling: nothing there, false here"
    )
    assert caught.value.field == "out"
    assert caught.value.remedy


def test_many_differences_are_counted(store: Store) -> None:
    extra: dict[str, Any] = {f"a{number}": number for number in range(12)}
    claim(store, run(**extra))
    with pytest.raises(OutputTaken, match="and 4 more"):
        claim(store, run())


def test_a_finished_run_can_be_claimed_again_by_itself(store: Store) -> None:
    claim(store, run())
    finish(store, run() | {"counts": {"committed": 3}})
    assert json.loads(store.get(layout.RUN))["counts"] == {"committed": 3}
    assert claim(store, run()) == ClaimResult(True, "r1")


@pytest.mark.parametrize("record", [b"", b"[]", b"{}", b'{"version": 1}', b"\xff\xfe", b'"text"'])
def test_what_is_no_record_is_refused(store: Store, record: bytes) -> None:
    store.put(layout.RUN, record)
    with pytest.raises(OutputTaken, match="not a run's record") as caught:
        claim(store, run())
    assert caught.value.remedy


def test_a_record_of_another_version_is_refused(store: Store) -> None:
    store.put(layout.RUN, b'{"version": 99, "shape": "unknown"}')
    with pytest.raises(OutputTaken, match="version 99") as caught:
        claim(store, run())
    assert "release" in caught.value.remedy


@pytest.mark.parametrize("key", ["data/train-00000-of-00001.parquet", "_commits/x.parquet"])
def test_a_dataset_without_a_record_is_left_alone(store: Store, key: str) -> None:
    store.put(key, b"somebody's")
    with pytest.raises(OutputTaken, match=r"no run\.json"):
        claim(store, run())
    assert not store.exists(layout.RUN)


def test_one_of_many_rivals_gets_it(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    barrier = threading.Barrier(8)

    def rival(number: int) -> str:
        barrier.wait()
        try:
            return "won" if not claim(store, run(f"r{number}", manifest=f"m{number}")).resumed else "resumed"
        except OutputTaken:
            return "refused"

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(rival, range(8))) == ["refused"] * 7 + ["won"]


def test_looking_claims_nothing_and_tells_what_the_run_noted(store: Store) -> None:
    assert look(store, run()["identity"]) is None
    assert not store.exists(layout.RUN)
    claim(store, run() | {"survey": {"rows": 7}})
    assert look(store, run()["identity"]) == ClaimResult(True, "r1", "running", {"rows": 7})
    with pytest.raises(OutputTaken, match="which differs"):
        look(store, run(manifest="ff00")["identity"])
