"""Concept scores as matrices, from the cells that the TCAV stage writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Cells:
    """Concepts by classes, of one layer."""

    concepts: list[str]
    targets: list[str]
    values: np.ndarray
    """float (num_concepts, num_targets), nan where there is no score."""
    low: np.ndarray
    high: np.ndarray
    significant: np.ndarray
    """bool of the same shape: shown to be used by the classifier."""
    layer: str

    def first(self, most: int) -> Cells:
        """The concepts with the largest effects."""
        size = np.nan_to_num(np.abs(self.values)).max(1, initial=0)
        keep = np.argsort(-size, kind="stable")[:most]
        low, high, significant = self.low[keep], self.high[keep], self.significant[keep]
        return Cells(
            [self.concepts[i] for i in keep], self.targets, self.values[keep], low, high, significant, self.layer
        )

    def strongest(self, most: int) -> list[tuple[int, int]]:
        """Positions of the largest effects, the largest first."""
        size = np.where(np.isfinite(self.values), np.abs(self.values), -1)
        order = np.argsort(-size, axis=None, kind="stable")[: min(most, int(np.isfinite(self.values).sum()))]
        return [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, self.values.shape), strict=True)]


def cells_of(rows: Sequence[Mapping[str, Any]], layer: str | None = None) -> Cells | None:
    """The cells of one layer (None: of the first row's); None where there are none.

    Args:
        rows: with `concept`, `class`, `layer`, `effect_sd`, `low`, `high` and `verdict`, as in `tcav/effects.parquet`.
    """
    if not rows:
        return None
    layer = rows[0]["layer"] if layer is None else layer
    rows = [row for row in rows if row["layer"] == layer]
    concepts = list(dict.fromkeys(row["concept"] for row in rows))
    targets = list(dict.fromkeys(row["class"] for row in rows))
    shape = (len(concepts), len(targets))
    values, low, high = (np.full(shape, np.nan) for _ in range(3))
    significant = np.zeros(shape, bool)
    for row in rows:
        at = concepts.index(row["concept"]), targets.index(row["class"])
        values[at], low[at], high[at] = (_float(row[name]) for name in ("effect_sd", "low", "high"))
        significant[at] = row["verdict"] == "used"
    return Cells(concepts, targets, values, low, high, significant, layer)


def _float(value: Any) -> float:
    return float("nan") if value is None else float(value)
