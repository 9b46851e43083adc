"""Pose files: what is read, and what is refused with line and remedy."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gamecraft_core.base.errors import BadInput
from gamecraft_core.timeline.camera import action_rows
from gamecraft_core.timeline.poses import parse_pose_rows

Row = list[float]


def lines_of(change: Callable[[Row], None] = lambda row: None, at: int = 5, count: int = 33) -> list[str]:
    """A good path of ``count`` lines whose line ``at`` (from 1) is changed."""
    rows = action_rows("right_rot", 3.0, 40).tolist()[:count]
    change(rows[at - 1])
    return [" ".join(map(repr, row)) for row in rows]


def put(index: int, value: float) -> Callable[[Row], None]:
    def change(row: Row) -> None:
        row[index] = value

    return change


def test_rows_come_back_exactly() -> None:
    rows = parse_pose_rows(lines_of())
    assert [list(row) for row in rows] == action_rows("right_rot", 3.0, 40).tolist()[:33]


def test_blank_lines_comments_and_commas() -> None:
    lines = ["# made by hand", "", *[line.replace(" ", ", ") for line in lines_of(count=17)], "\n"]
    assert len(parse_pose_rows(lines, chunk_frames=17)) == 17


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda row: row.pop(), ["18 numbers", "give 19"]),
        (put(1, 0.0), ["fx = 0", "positive"]),
        (put(2, -0.9), ["fy = -0.9"]),
        (put(3, 0.0), ["cx = 0"]),
        (put(10, float("nan")), ["not finite"]),
        (put(10, float("inf")), ["not finite"]),
        (put(10, 1e9), ["huge"]),
        (put(7, 2.0), ["not a rotation", "orthonormal"]),
        (lambda row: row.__setitem__(slice(11, 14), [-value for value in row[11:14]]), ["determinant +1"]),
    ],
)
def test_a_bad_line_is_named(change: Callable[[Row], None], words: list[str]) -> None:
    with pytest.raises(BadInput) as caught:
        parse_pose_rows(["# header", *lines_of(change, at=5)])
    for word in ["line 6", *words]:
        assert word in str(caught.value)


def test_words_are_refused() -> None:
    with pytest.raises(BadInput, match=r"line 1 .*no number.*'https:"):
        parse_pose_rows(["https://example.org/video" + " 0" * 18, *lines_of()])


def test_too_few_rows() -> None:
    with pytest.raises(BadInput, match=r"has 32 rows.*each of the 33 frames"):
        parse_pose_rows(lines_of(count=32))
