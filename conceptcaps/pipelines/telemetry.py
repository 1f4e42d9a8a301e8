"""What a running job tells Prometheus, through Ray; the dashboard in `cluster/grafana` reads these names."""

from __future__ import annotations

from functools import cache
from typing import Any

from ray.util.metrics import Counter, Histogram

_BOUNDARIES = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300]


class _Tagged:
    """A metric with its tags set."""

    def __init__(self, metric: Any, tags: dict[str, str]):
        self.metric, self.tags = metric, tags

    def observe(self, value: float) -> None:
        self.metric.observe(value, tags=self.tags)

    def inc(self, value: float) -> None:
        if value:
            self.metric.inc(value, tags=self.tags)


@cache
def _seconds() -> Histogram:
    return Histogram(
        "conceptcaps_stage_seconds", "Seconds of one engine call", boundaries=_BOUNDARIES, tag_keys=("stage",)
    )


@cache
def _rows() -> Counter:
    return Counter("conceptcaps_rows_total", "Rows published, by how they ended", tag_keys=("status",))


@cache
def stage_seconds(stage: str) -> _Tagged:
    """Histogram of the seconds of a stage's calls of its engine, each on one batch."""
    return _Tagged(_seconds(), {"stage": stage})


@cache
def rows_total(status: str) -> _Tagged:
    """Counter of the rows published with a status."""
    return _Tagged(_rows(), {"status": status})
