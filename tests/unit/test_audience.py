"""What viewers see of live sessions, by hand."""

from __future__ import annotations

import pytest

from gamecraft_core.base.spec import Layout
from orchestrator.audience import Shown, Viewer
from orchestrator.census import Census
from orchestrator.limits import Limits
from orchestrator.metrics import Metrics
from orchestrator.scheduler import Scheduler
from tests.fakes.sessions import session

SECONDS = 2.0


def test_an_action_counts_from_when_it_is_its_turn() -> None:
    """Two controls at once: the second waits for the first one's chunk, and that is no latency of its own."""
    viewer = Viewer(2, 10.0)
    assert viewer.sees(0, SECONDS, 13.0) == Shown(3.0, 0.0)
    assert viewer.sees(1, SECONDS, 14.5) == Shown(1.5, 0.0)


def test_play_stands_where_a_chunk_that_was_asked_for_in_time_comes_late() -> None:
    viewer = Viewer(2, 0.0)
    viewer.sees(0, SECONDS, 1.0)  # plays until 3
    assert viewer.sees(1, SECONDS, 3.5) == Shown(2.5, 0.5)  # plays until 5.5
    viewer.asks(1, 5.0)
    assert viewer.sees(2, SECONDS, 6.0) == Shown(1.0, 0.5)


def test_who_asks_after_play_has_ended_waits_but_sees_no_stall() -> None:
    viewer = Viewer(1, 0.0)
    viewer.sees(0, SECONDS, 1.0)
    viewer.asks(1, 60.0)
    assert viewer.sees(1, SECONDS, 61.5) == Shown(1.5, 0.0)


def test_what_was_seen_before_a_session_went_back_is_not_seen_again() -> None:
    viewer = Viewer(3, 0.0)
    viewer.sees(0, SECONDS, 1.0)
    viewer.sees(1, SECONDS, 2.0)
    assert viewer.sees(1, SECONDS, 5.0) is None
    assert viewer.sees(2, SECONDS, 6.0) == Shown(4.0, 1.0)


def test_a_session_that_comes_back_goes_on_where_it_was() -> None:
    """Five of its six controls were carried out before it rested."""
    viewer = Viewer(6, 100.0)
    assert viewer.sees(5, SECONDS, 101.0) == Shown(1.0, 0.0)


def test_memory_is_what_waits() -> None:
    viewer = Viewer(0, 0.0)
    for number in range(1000):
        viewer.asks(1, float(number))
        viewer.sees(number, SECONDS, number + 0.5)
    assert len(viewer._asked) <= 2


@pytest.mark.parametrize(
    ("layout", "played", "waited"), [("forward", 3 * 36 / 30, 10.0 + 10.0 + 10.0), ("inverted", 109 / 30, 30.0)]
)
def test_a_video_made_from_its_end_is_seen_when_its_beginning_is_there(
    layout: Layout, played: float, waited: float
) -> None:
    metrics = Metrics([], Scheduler(Limits(), Census()), 0.0)
    spec = session("a", chunks=3, chunk_frames=36, fps=30, layout=layout, priority="interactive")
    metrics.admitted(spec, 0.0)
    for index in range(3):
        metrics.decoded(spec, index, None, 10.0 * (index + 1))
    sample = metrics.registry.get_sample_value
    assert sample("gamecraft_live_video_seconds_total") == pytest.approx(played)
    assert sample("gamecraft_action_to_frame_seconds_sum") == waited
    assert sample("gamecraft_stalls_total") == (2 if layout == "forward" else 0)
