"""What viewers see of live sessions, by hand."""

from __future__ import annotations

from orchestrator.audience import Shown, Viewer

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
