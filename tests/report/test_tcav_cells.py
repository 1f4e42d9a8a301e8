"""Concept effects as matrices."""

import numpy as np

from conceptcaps.report.tcav import cells_of


def row(concept, target, layer, effect, low, high, verdict):
    names = ("concept", "class", "layer", "effect_sd", "low", "high", "verdict")
    return dict(zip(names, (concept, target, layer, effect, low, high, verdict), strict=True))


ROWS = [
    row("rock", "metal", "logits", 9.0, 8.0, 10.0, "used"),
    row("rock", "metal", "late", 0.5, 0.4, 0.6, "used"),
    row("sad", "metal", "late", -0.9, -1.3, 0.1, "undetermined"),
    row("sad", "jazz", "late", None, None, None, "undetermined"),
]


def test_cells_of_a_layer():
    cells = cells_of(ROWS, "late")
    assert (cells.concepts, cells.targets) == (["rock", "sad"], ["metal", "jazz"])
    assert np.array_equal(cells.values, [[0.5, np.nan], [-0.9, np.nan]], equal_nan=True)
    assert cells.significant.tolist() == [[True, False], [False, False]]
    assert cells.strongest(5) == [(1, 0), (0, 0)]
    assert cells.first(1).concepts == ["sad"]
    assert cells.first(1).values.shape == (1, 2)


def test_without_a_layer_the_first_one():
    assert cells_of(ROWS).values.tolist() == [[9.0]]


def test_nothing_to_show():
    assert cells_of([]) is None
    assert cells_of(ROWS, "other").concepts == []
