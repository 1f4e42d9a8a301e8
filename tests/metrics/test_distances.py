"""Distances of collections: near the floor for the same distribution, far for another, with intervals that cover."""

from __future__ import annotations

import numpy as np
import pytest

from conceptcaps.metrics.distances import distance


def clips(count: int, seed: int, shift: float = 0.0) -> np.ndarray:
    found = np.random.default_rng(seed).normal(shift, 1, (count, 16))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_the_same_distribution_is_at_the_floor_and_another_is_not():
    same, other = distance(clips(300, 0), clips(400, 1)), distance(clips(300, 0, 0.5), clips(400, 1))
    assert same.clips == other.clips == 300
    assert same.kad_low <= 0 <= same.kad_high
    assert other.kad_low > 5 * abs(same.kad)
    assert same.fad_floor is not None
    assert other.fad > 3 * same.fad_floor > 0
    assert other.fad > 5 * same.fad


def test_too_few_clips_are_refused():
    with pytest.raises(ValueError, match="four clips"):
        distance(clips(3, 0), clips(400, 1))
