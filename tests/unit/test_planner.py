"""Chunk plans: start or continuation follows from the history."""

from __future__ import annotations

import pytest

from gamecraft_core.base.errors import BadInput
from gamecraft_core.timeline.planner import plan_chunk


def test_an_image_start() -> None:
    plan = plan_chunk(0, 33, 1)
    assert (plan.kind, plan.history_latents, plan.new_latents, plan.total_latents) == ("image", 1, 9, 10)
    assert (plan.span, plan.zero_camera_frames, plan.rope_frames) == ((0, 33), 4, 37)


def test_a_continuation() -> None:
    plan = plan_chunk(3, 33, 9)
    assert (plan.kind, plan.total_latents, plan.span) == ("continuation", 18, (99, 132))
    assert (plan.zero_camera_frames, plan.rope_frames) == (33, 69)


def test_a_video_start_is_a_continuation_at_index_0() -> None:
    assert plan_chunk(0, 33, 9).kind == "continuation"


def test_ten_latents_occur_in_both_kinds() -> None:
    start, continuation = plan_chunk(0, 33, 1), plan_chunk(1, 17, 5)
    assert start.total_latents == continuation.total_latents == 10
    assert (start.kind, continuation.kind) == ("image", "continuation")


def test_17_frame_chunks() -> None:
    start, continuation = plan_chunk(0, 17, 1), plan_chunk(2, 17, 5)
    assert (start.total_latents, start.rope_frames, start.span) == (6, 21, (0, 17))
    assert (continuation.rope_frames, continuation.zero_camera_frames, continuation.span) == (37, 17, (34, 51))


@pytest.mark.parametrize(("chunk_frames", "history"), [(33, 5), (17, 9), (33, 0), (33, 10)])
def test_a_history_of_another_length_is_refused(chunk_frames: int, history: int) -> None:
    with pytest.raises(BadInput, match="history"):
        plan_chunk(1, chunk_frames, history)


def test_other_chunk_lengths_are_refused() -> None:
    with pytest.raises(BadInput, match="33 or 17"):
        plan_chunk(0, 34, 1)


def test_an_image_cannot_continue_a_session() -> None:
    with pytest.raises(ValueError, match="continues"):
        plan_chunk(1, 33, 1)
