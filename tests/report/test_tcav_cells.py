"""Concept scores in the layouts that a results file may have."""

import numpy as np

from conceptcaps.report.tcav import cells_of


def row(concept, target, effect, **more):
    return {"concept": concept, "target": target, "effect": effect, **more}


def test_cells_of_the_last_layer():
    results = {
        "layers": ["early", "late"],
        "cells": [
            row("rock", "metal", 9.0, layer="early", verdict="used"),
            row("rock", "metal", 0.5, layer="late", low=0.4, high=0.6, verdict="used"),
            row("sad", "metal", -0.1, layer="late", low=-0.3, high=0.1, verdict="negligible"),
            row("sad", "jazz", None, layer="late", verdict="undetermined"),
        ],
    }
    cells = cells_of(results)
    assert (cells.concepts, cells.targets) == (["rock", "sad"], ["metal", "jazz"])
    assert np.array_equal(cells.values, [[0.5, np.nan], [-0.1, np.nan]], equal_nan=True)
    assert cells.significant.tolist() == [[True, False], [False, False]]
    assert cells.strongest(5) == [(0, 0), (1, 0)]


def test_q_values_and_other_names():
    cells = cells_of([{"concept": "rock", "class": "metal", "tcav_score": 0.9, "q_value": 0.01}])
    assert cells.significant.all()
    assert cells.measure == "tcav score"


def test_nothing_to_show():
    assert cells_of(None) is None
    assert cells_of({"cells": []}) is None
    assert cells_of({"note": "no concept could be separated"}) is None
