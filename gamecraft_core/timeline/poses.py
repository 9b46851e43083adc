"""Pose files: text rows of 19 numbers become a checked camera path.

Invariant: what comes out can be inverted, is a rigid motion within 1e-3 and stays finite in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from gamecraft_core.base.errors import BadInput
from gamecraft_core.base.spec import POSE_ROW_LENGTH

_ROTATION_TOLERANCE = 1e-3
#: Far beyond any scene, far below where float32 products overflow.
_LARGEST = 1e6
_LENS_RANGE = (1e-3, 1e3)

PoseRow = tuple[float, ...]


def parse_pose_rows(text_lines: Iterable[str], chunk_frames: int = 33, field: str = "actions") -> tuple[PoseRow, ...]:
    """Read a pose file's lines; blank lines and lines starting with ``#`` do not count.

    Raises BadInput naming the line and the remedy for anything that cannot steer a camera.
    """
    rows = [
        _parse_row(line, number, field)
        for number, line in enumerate(text_lines, start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if len(rows) < chunk_frames:
        raise BadInput(
            f"the pose file has {len(rows)} rows", field=field, remedy=f"give one for each of the {chunk_frames} frames"
        )
    return tuple(rows)


def _parse_row(line: str, number: int, field: str) -> PoseRow:
    def refuse(message: str, remedy: str) -> BadInput:
        return BadInput(f"line {number} of the pose file {message}", field=field, remedy=remedy)

    words = line.replace(",", " ").split()
    if len(words) != POSE_ROW_LENGTH:
        raise refuse(f"has {len(words)} numbers", "give 19: index fx fy cx cy 0 0 and a 3x4 world-to-camera matrix")
    try:
        row = tuple(float(word) for word in words)
    except ValueError as error:
        raise refuse(f"holds something that is no number: {error}", "write plain decimal numbers") from None
    if not all(math.isfinite(value) and abs(value) <= _LARGEST for value in row):
        raise refuse("holds a value that is not finite or is huge", f"keep every value within +-{_LARGEST:g}")
    low, high = _LENS_RANGE
    for name, value in zip(("fx", "fy", "cx", "cy"), row[1:5], strict=True):
        if not low <= value <= high:
            raise refuse(f"has {name} = {value:g}", f"give {name} as a positive fraction of the image, such as 0.5")
    rotation = np.array(row[7:]).reshape(3, 4)[:, :3]
    if abs(rotation @ rotation.T - np.eye(3)).max() > _ROTATION_TOLERANCE or np.linalg.det(rotation) < 0:
        raise refuse("has a matrix that is not a rotation", "make its 3x3 part orthonormal with determinant +1")
    return row
