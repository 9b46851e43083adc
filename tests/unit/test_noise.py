"""Draws depend on (seed, chunk index, purpose) and nothing else."""

from __future__ import annotations

import itertools
from typing import get_args

import numpy as np

from gamecraft_core.sampling.noise import Purpose, draw

SHAPE = (16, 9, 8, 12)


def test_a_draw_repeats_whatever_happened_before() -> None:
    first = draw(42, 3, "start_noise", SHAPE)
    draw(1, 1, "image_posterior", SHAPE)
    np.random.default_rng(0).standard_normal(5)
    np.testing.assert_array_equal(draw(42, 3, "start_noise", SHAPE), first)


def test_the_stream_itself_never_changes() -> None:
    """A session resumed by a later version must go on with the same noise."""
    known = [-0.09535468369722366, -1.0173099040985107, -0.2158760130405426]
    assert draw(0, 0, "start_noise", (3,)).tolist() == known


def test_every_name_counts() -> None:
    draws = [
        draw(seed, index, purpose, (64,))
        for seed, index, purpose in itertools.product((0, 1, 2**63 - 1), (0, 1, 11), get_args(Purpose))
    ]
    assert len({values.tobytes() for values in draws}) == len(draws) == 27
    assert draw(1, 11, "start_noise", (4,)).tolist() != draw(11, 1, "start_noise", (4,)).tolist()


def test_values_are_standard_normal_float32() -> None:
    values = draw(5, 0, "start_noise", (200_000,))
    assert values.dtype == np.float32
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1) < 0.01
