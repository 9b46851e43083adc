"""Bytes an hour: never more than the quota at once, never more than it gives back, and back when it says."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.live.limits import Quota, ServiceLimits
from orchestrator.live.port import OverQuota
from orchestrator.live.quotas import Quotas

HOUR = 3600.0


class Clock:
    """Stands still unless moved."""

    def __init__(self) -> None:
        self.now = 0.0
        self.refused: list[str] = []

    def __call__(self) -> float:
        return self.now


def quotas(clock: Clock, **each: Quota) -> Quotas:
    return Quotas(ServiceLimits(quotas=each), lambda tenant: (), clock, clock.refused.append)


@given(st.lists(st.tuples(st.floats(0, 2 * HOUR), st.integers(1, 1000)), max_size=40))
def test_never_more_than_is_given_and_again_when_it_says(calls: list[tuple[float, int]]) -> None:
    clock, taken = Clock(), 0
    tried = quotas(clock, ann=Quota(upload_bytes=1000))
    for pause, size in calls:
        clock.now += pause
        try:
            tried.charge("ann", size)
        except OverQuota as refused:
            clock.now += refused.retry_after + 1e-3
            tried.charge("ann", size)
        taken += size
        assert taken <= 1000 * (1 + clock.now / HOUR) + 1e-6


def test_what_can_never_fit_is_refused_for_an_hour_at_most() -> None:
    with pytest.raises(OverQuota) as refused:
        quotas(Clock(), ann=Quota(upload_bytes=1000)).charge("ann", 1_000_000)
    assert refused.value.retry_after == HOUR


def test_what_is_refused_is_not_charged_and_others_are_not_concerned() -> None:
    clock = Clock()
    tried = quotas(clock, ann=Quota(upload_bytes=1000))
    tried.charge("bob", 1 << 30)
    tried.charge("ann", 600)
    with pytest.raises(OverQuota, match="401 bytes"):
        tried.charge("ann", 401)
    tried.charge("ann", 400)
    assert clock.refused == ["quota"]


def test_a_refusal_travels_whole() -> None:
    refused = OverQuota("too many", field="chunks", remedy="fewer", retry_after=2.5)
    came: OverQuota = pickle.loads(pickle.dumps(refused))
    assert (came.message, came.field, came.remedy, came.retry_after) == ("too many", "chunks", "fewer", 2.5)
    assert type(came) is OverQuota
