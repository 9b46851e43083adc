"""A patient store: nothing is lost, repeated or left out while the store comes and goes, and patience ends."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from gamecraft_core.base.errors import StoreUnavailable
from gamecraft_core.base.store import Store, open_store
from gamecraft_core.base.store_patient import PatientStore


class Flaky:
    """A store of which every ``good``-th step works and the others find it away; a listing breaks off in its middle."""

    def __init__(self, inner: Store, good: int) -> None:
        self.inner, self.good, self.calls = inner, good, 0
        self.root = inner.root

    def __getattr__(self, name: str):  # type: ignore[no-untyped-def]
        def call(*arguments: object) -> object:
            self.step()
            return getattr(self.inner, name)(*arguments)

        return call

    def list(self, prefix: str) -> Iterator[str]:
        for key in self.inner.list(prefix):
            self.step()
            yield key

    def step(self) -> None:
        self.calls += 1
        if self.calls % self.good:
            raise StoreUnavailable("away")


class BreaksOff(Flaky):
    """Every seventh step of the first hundred fails."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner, 0)

    def step(self) -> None:
        self.calls += 1
        if self.calls % 7 == 0 and self.calls < 100:
            raise StoreUnavailable("away")


@pytest.fixture
def inner() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


def patient(store: Store, pauses: list[float], seconds: float = 1000.0) -> PatientStore:
    return PatientStore(store, seconds, float, clock=lambda: sum(pauses), sleep=pauses.append)


def test_every_call_gets_through(inner: Store) -> None:
    pauses: list[float] = []
    store = patient(Flaky(inner, 3), pauses)
    store.put("a", b"1")
    assert store.put_if_absent("b", b"2")
    assert not store.put_if_absent("b", b"3")
    assert (store.get("a"), store.get("b"), store.stat("a").size) == (b"1", b"2", 1)
    assert store.exists("a")
    store.delete("a")
    assert not store.exists("a")
    assert pauses[:4] == [1.0, 2.0, 1.0, 2.0], "each wait is longer than the one before it, call by call"


def test_a_listing_that_breaks_off_goes_on_where_it_was(inner: Store) -> None:
    for number in range(20):
        inner.put(f"k{number:02d}", b"")
    flaky = BreaksOff(inner)
    assert list(patient(flaky, []).list("")) == [f"k{number:02d}" for number in range(20)]
    assert flaky.calls > 40


def test_what_is_not_there_is_said_at_once(inner: Store) -> None:
    pauses: list[float] = []
    with pytest.raises(FileNotFoundError):
        patient(inner, pauses).get("nothing")
    assert pauses == []


def test_patience_ends(inner: Store) -> None:
    pauses: list[float] = []
    with pytest.raises(StoreUnavailable):
        patient(Flaky(inner, 1 << 30), pauses, seconds=20.0).get("a")
    assert 20 <= sum(pauses) < 40
