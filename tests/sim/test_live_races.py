"""What happens to a session while somebody reads it, or asks something else of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from uuid import uuid4

import pytest

from gamecraft_core.base.store import Store, open_store
from gamecraft_core.media.fragment import encode_fragment, join
from orchestrator.live.reel import Film, split
from tests.fakes.recordings import flat_frames

PATIENCE_S = 60.0


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid4().hex}")


@pytest.mark.parametrize(("nth", "other"), [(1, 0), (2, 0), (3, 1)])
def test_two_who_look_for_the_segments_of_one_video_find_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch, nth: int, other: int
) -> None:
    """The first one's read number ``nth`` takes until the second one has chunk ``other``."""
    pieces = [
        encode_fragment(flat_frames([index] * 3), index=index, start_frame=3 * index, fps=25).data for index in range(3)
    ]
    store.put("video", join(pieces))
    film = Film(store, "video")
    begun, over = Event(), Event()
    reads, real = iter(range(1, 100)), store.get_range

    def slow(key: str, start: int, end: int, version: str = "") -> bytes:
        if next(reads) == nth:
            begun.set()
            assert over.wait(PATIENCE_S)
        return real(key, start, end, version)

    monkeypatch.setattr(store, "get_range", slow)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(film.segment, 2)
        assert begun.wait(PATIENCE_S)
        second = threads.submit(film.segment, other)
        found = second.result(PATIENCE_S)
        over.set()
        found_first = first.result(PATIENCE_S)
    segments = [split(piece)[1] for piece in pieces]
    assert (found, found_first) == (segments[other], segments[2])
    assert [film.segment(index) for index in range(3)] == segments
