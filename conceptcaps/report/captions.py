"""The page's table of caption systems, from captions/evaluation.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conceptcaps.report.sections import Section, Table

_TITLE = "Captions of held-out tag sets"
_JUDGED = ("mean", "unparsable_share", "agreement", "kappa")


def caption_systems(evaluation: Mapping[str, Any] | None) -> Section:
    """A line per metric, a column per system; why a system or a metric is missing stands below."""
    if not evaluation:
        return Section("caption-systems", _TITLE, missing="No captions were measured (conceptcaps captions-eval).")
    values, judge = evaluation["values"], evaluation.get("judge") or {}
    names = tuple(values)
    metrics = dict.fromkeys(metric for some in values.values() for metric in some)
    rows = [(metric, *(_number(values[name].get(metric)) for name in names)) for metric in metrics]
    if judge:
        rows += [(f"judge: {what}", *(_number(judge[name][what]) for name in names)) for what in _JUDGED]
    reasons = {metric: why for some in evaluation["missing"].values() for metric, why in some.items()}
    notes = [(name, why) for name, why in {**evaluation["absent"], **reasons}.items()]
    tables = [Table("Metrics by system", ("metric", *names), rows)]
    if notes:
        tables.append(Table("What is missing, and why", ("system or metric", "why"), notes))
    lead = f"{evaluation['rows']} held-out tag sets, captioned by every system that the run has."
    return Section("caption-systems", _TITLE, lead, tables=tables)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
