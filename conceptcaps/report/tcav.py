"""Concept scores as matrices, from the cells that the TCAV stage writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_TARGET = ("target", "class", "genre", "label")
_MEASURES = ("effect", "tcav_score", "score", "value")
_LOW, _HIGH = ("low", "ci_low", "lower"), ("high", "ci_high", "upper")


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
    """bool of the same shape."""
    measure: str

    def strongest(self, most: int) -> list[tuple[int, int]]:
        """Positions of the largest effects, the largest first."""
        size = np.where(np.isfinite(self.values), np.abs(self.values), -1)
        order = np.argsort(-size, axis=None, kind="stable")[: min(most, int(np.isfinite(self.values).sum()))]
        return [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, self.values.shape), strict=True)]


def cells_of(results: Any) -> Cells | None:
    """The cells of the last layer in a `tcav/results.json`; None where it holds none."""
    rows = _find_rows(results)
    if not rows:
        return None
    layer = rows[-1].get("layer")
    rows = [row for row in rows if row.get("layer") == layer]
    measure = next(name for name in _MEASURES if name in rows[0])
    concepts = list(dict.fromkeys(str(row["concept"]) for row in rows))
    targets = list(dict.fromkeys(str(_first(row, _TARGET, "")) for row in rows))
    shape = (len(concepts), len(targets))
    values, low, high = (np.full(shape, np.nan) for _ in range(3))
    significant = np.zeros(shape, bool)
    for row in rows:
        at = concepts.index(str(row["concept"])), targets.index(str(_first(row, _TARGET, "")))
        values[at] = _float(row[measure])
        low[at], high[at] = _float(_first(row, _LOW)), _float(_first(row, _HIGH))
        significant[at] = _is_significant(row)
    return Cells(concepts, targets, values, low, high, significant, measure.replace("_", " "))


def _find_rows(value: Any) -> list[Mapping[str, Any]]:
    """The first list of objects that name a concept and a measure, wherever it stands."""
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        if "concept" in value[0] and any(name in value[0] for name in _MEASURES):
            return value
        return []
    children = value.values() if isinstance(value, Mapping) else ()
    return next((found for child in children if (found := _find_rows(child))), [])


def _first(row: Mapping[str, Any], names: Sequence[str], default: Any = None) -> Any:
    return next((row[name] for name in names if name in row), default)


def _float(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _is_significant(row: Mapping[str, Any]) -> bool:
    if "verdict" in row:
        return row["verdict"] == "used"
    if "significant" in row:
        return bool(row["significant"])
    q = _first(row, ("q_value", "q", "p_value"))
    return q is not None and float(q) <= 0.05
