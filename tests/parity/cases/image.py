"""Resize and crop of start images: exact, with the same library as the published code."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from gamecraft_core.media.image import cover_crop, cover_size
from tests.parity.check import Case, Check
from tests.parity.golden import Folder, Golden

FLOATS = 1e-6
#: ``outN_float`` holds every eighth pixel.
STRIDE = 8
TABLE = "resize_table_"
#: Names of tensors that need no comparison.
INPUTS = r"src\d+"


def cases(folder: Folder, file: Golden) -> Iterator[Case]:
    for case in file.header["cases"]:
        yield Case(f"{case['i']}_{'x'.join(map(str, case['src_wh']))}", partial(_image, file, case))
    for key in file.header:
        if key.startswith(TABLE) and not key.endswith("_format"):
            yield Case(key, partial(_table, file, key))


def _image(file: Golden, case: dict[str, list[int]], check: Check) -> None:
    number, (width, height), target = case["i"], case["src_wh"], file.header["target_hw"]
    source = file.given(f"src{number}").numpy()
    check.equal("source size", source.shape, (height, width, 3))
    check.equal("resized", list(cover_size(height, width, *target)), case["resized_hw"])
    pixels = torch.from_numpy(cover_crop(np.ascontiguousarray(source), *target)).permute(2, 0, 1)
    check.tensor(file, f"out{number}_u8", pixels, 0.0)
    check.tensor(file, f"out{number}_float", pixels[:, ::STRIDE, ::STRIDE].float() / 127.5 - 1, FLOATS)


def _table(file: Golden, key: str, check: Check) -> None:
    """Sizes by themselves: source WxH to [height, width]."""
    target = [int(side) for side in key.removeprefix(TABLE).split("x")]
    for source, resized in file.header[key].items():
        width, height = (int(side) for side in source.split("x"))
        check.equal(source, list(cover_size(height, width, *target)), resized)
