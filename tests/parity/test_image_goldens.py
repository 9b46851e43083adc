"""Resize and crop of start images against their golden: exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gamecraft_core.media.image import cover_crop
from tests.parity.goldens import golden, header

CASES = header("image_prep").get("cases", []) or [None]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "x".join(map(str, case["src_wh"])) if case else "absent")
def test_resize_and_crop(case: dict[str, Any]) -> None:
    file = golden("image_prep")
    source, expected = (file[f"{name}{case['i']}{end}"].numpy() for name, end in (("src", ""), ("out", "_u8")))
    actual = cover_crop(np.ascontiguousarray(source), *file.header["target_hw"])
    assert np.array_equal(actual.transpose(2, 0, 1), expected)


def test_normalised_as_the_model_takes_it() -> None:
    file = golden("image_prep")
    pixels = cover_crop(file["src0"].numpy(), *file.header["target_hw"])
    normalised = pixels.transpose(2, 0, 1)[:, ::8, ::8].astype(np.float32) / np.float32(127.5) - 1
    np.testing.assert_allclose(normalised, file["out0_float"].numpy(), rtol=0, atol=1e-6)
