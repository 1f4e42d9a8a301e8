"""Sampled tag sets against held-out real ones: every metric with its noise floor, an interval and a verdict.

The floor of a metric is its value between real rows and real rows: no sampler is expected to do better, and one that
does has copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from conceptcaps.comparison.measures import DIRECTIONS, Direction, Reference, joint_measures, row_measures
from conceptcaps.metrics import tags as metrics
from conceptcaps.seeding import derive, generator

_MAX_MMD_ROWS = 1500


@dataclass(frozen=True)
class Settings:
    """How a comparison is made; see `ComparisonConfig`."""

    num_bootstrap: int = 100
    confidence: float = 0.95
    min_support: float = 5.0


@dataclass(frozen=True)
class Estimate:
    """A value and its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Figure:
    """One metric of one sampler.

    Attributes:
        sampler: its name.
        metric: its name, a key of `DIRECTIONS`.
        value: on all rows.
        low, high: bootstrap percentile interval, resampling both sides.
        floor: the metric between real rows and real rows.
        floor_low, floor_high: its interval.
        better: which way; see `Direction`.
        verdict: 'at floor' (no further from ideal than real rows), 'near floor' (intervals overlap), 'apart', or
            'undefined' where the metric is.
    """

    sampler: str
    metric: str
    value: float
    low: float
    high: float
    floor: float
    floor_low: float
    floor_high: float
    better: Direction
    verdict: str


def floors(reference: Reference, settings: Settings, seed: int) -> dict[str, Estimate]:
    """Every metric with real rows in the sampler's place.

    Training rows stand against held-out ones; for metrics of the sampled rows alone (novelty, contradictions), the
    held-out rows are measured themselves.
    """
    found = _measure(reference, reference.train, settings, derive(seed, "floor"))
    own = _row_estimates(reference, reference.held, settings, derive(seed, "floor"))
    unique = metrics.unique_share(reference.held)
    return found | own | {"unique_share": Estimate(unique, unique, unique)}


def compare(
    reference: Reference, made: np.ndarray, name: str, floor: Mapping[str, Estimate], settings: Settings, seed: int
) -> list[Figure]:
    """Every figure of one sampler.

    Args:
        reference: the real rows.
        made: uint8 (num_rows, num_tags), sampled rows.
        name: of the sampler.
        floor: of `floors`.
        settings: of intervals and support.
        seed: of resampling and of the classifiers.
    """
    found = _measure(reference, made, settings, derive(seed, "sampler"))
    return [_figure(name, metric, found[metric], floor[metric]) for metric in DIRECTIONS]


def _figure(sampler: str, metric: str, found: Estimate, floor: Estimate) -> Figure:
    better = DIRECTIONS[metric]
    numbers = (found.value, found.low, found.high, floor.value, floor.low, floor.high)
    return Figure(sampler, metric, *numbers, better, verdict(found, floor, better))


def verdict(found: Estimate, floor: Estimate, better: Direction) -> str:
    """How a figure stands to its floor; see `Figure.verdict`."""
    if not np.isfinite(found.value) or not np.isfinite(floor.value):
        return "undefined"
    ahead = {"lower": found.value <= floor.value, "higher": found.value >= floor.value}
    if ahead.get(better, found.value == floor.value):
        return "at floor"
    return "near floor" if found.low <= floor.high and floor.low <= found.high else "apart"


def _measure(reference: Reference, made: np.ndarray, settings: Settings, seed: int) -> dict[str, Estimate]:
    unique = metrics.unique_share(made[: len(reference.held)])
    estimates = {"unique_share": Estimate(unique, unique, unique), "mmd": _mmd(reference.held, made, settings, seed)}
    for kind in ("logistic", "trees"):
        estimates[f"auc_{kind}"] = _auc(reference.held, made, kind, settings, seed)
    joint = _joint_estimates(reference, made, settings, seed)
    return estimates | joint | _row_estimates(reference, made, settings, seed)


def _joint_estimates(reference: Reference, made: np.ndarray, settings: Settings, seed: int) -> dict[str, Estimate]:
    """Percentile intervals (Efron and Tibshirani 1993, ch. 13) over rows of both sides, moved to their centre.

    Resampling adds the noise of a second draw, which alone pushes distances up: each interval is moved by the
    difference between the value on all rows and the resamples' median.
    """
    full = joint_measures(reference, reference.held, made, settings.min_support)
    rng = generator(seed, "bootstrap")
    drawn = [
        joint_measures(reference, _resample(reference.held, rng), _resample(made, rng), settings.min_support)
        for _ in range(settings.num_bootstrap)
    ]
    return {name: _centred(value, [d[name] for d in drawn], settings) for name, value in full.items()}


def _resample(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rows[rng.integers(0, len(rows), len(rows))]


def _centred(value: float, drawn: list[float], settings: Settings) -> Estimate:
    finite = np.array([d for d in drawn if np.isfinite(d)])
    if not len(finite):
        return Estimate(value, value, value)
    low, high = _quantiles(finite, settings)
    middle = float(np.median(finite))
    return Estimate(value, value + low - middle, value + high - middle)


def _quantiles(drawn: np.ndarray, settings: Settings) -> tuple[float, float]:
    tail = (1 - settings.confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def _row_estimates(reference: Reference, made: np.ndarray, settings: Settings, seed: int) -> dict[str, Estimate]:
    rng = generator(seed, "rows")
    estimates = {}
    for name, values in row_measures(reference, made).items():
        drawn = np.array([_resample(values, rng).mean() for _ in range(settings.num_bootstrap)])
        estimates[name] = Estimate(float(values.mean()), *_quantiles(drawn, settings))
    return estimates


def _mmd(real: np.ndarray, made: np.ndarray, settings: Settings, seed: int) -> Estimate:
    kernels = metrics.mmd_kernels(real[:_MAX_MMD_ROWS], made[:_MAX_MMD_ROWS])
    rng = generator(seed, "mmd")
    sizes = len(kernels[0]), len(kernels[2])
    drawn = [
        metrics.mmd(kernels, *(rng.multinomial(n, np.full(n, 1 / n)).astype(np.float64) for n in sizes))
        for _ in range(settings.num_bootstrap)
    ]
    return _centred(metrics.mmd(kernels), drawn, settings)


def _auc(
    real: np.ndarray, made: np.ndarray, kind: Literal["logistic", "trees"], settings: Settings, seed: int
) -> Estimate:
    """Of the classifier two-sample test; its interval resamples scored rows."""
    scores, labels = metrics.classifier_scores(real, made, kind, derive(seed, kind) % 2**32)
    rng = generator(seed, "auc", kind)
    drawn = []
    for _ in range(settings.num_bootstrap):
        rows = rng.integers(0, len(scores), len(scores))
        if 0 < labels[rows].sum() < len(rows):
            drawn.append(metrics.auc(scores[rows], labels[rows]))
    return Estimate(metrics.auc(scores, labels), *_quantiles(np.array(drawn), settings))


def tag_table(reference: Reference, made: np.ndarray, name: str) -> list[dict[str, Any]]:
    """Per tag: shares in held-out and sampled rows, chi-square p-value and its Benjamini-Hochberg adjustment."""
    p_values, adjusted = metrics.marginal_tests(reference.held, made)
    real, sampled = metrics.marginals(reference.held), metrics.marginals(made)
    return [
        {
            "sampler": name,
            "tag": tag,
            "category": reference.vocabulary.category_of(tag),
            "real_share": float(real[i]),
            "made_share": float(sampled[i]),
            "p_value": float(p_values[i]),
            "q_value": float(adjusted[i]),
        }
        for i, tag in enumerate(reference.vocabulary.tags)
    ]


def baselines(train: np.ndarray, num_rows: int, seed: int) -> dict[str, np.ndarray]:
    """Rows of three samplers that learn next to nothing: uint8 (num_rows, num_tags) each.

    `independent`: each tag with its own training frequency. `uniform`: a training set's size, filled with tags drawn
    uniformly. `resampled`: training rows drawn with replacement, the copy that novelty must tell from a model.
    """
    rng = generator(seed, "baselines")
    independent = rng.random((num_rows, train.shape[1])) < train.mean(0)
    sizes = train.sum(1)[rng.integers(0, len(train), num_rows)]
    ranks = rng.random((num_rows, train.shape[1])).argsort(1).argsort(1)
    return {
        "independent": independent.astype(np.uint8),
        "uniform": (ranks < sizes[:, None]).astype(np.uint8),
        "resampled": _resample_to(train, num_rows, rng),
    }


def _resample_to(rows: np.ndarray, num_rows: int, rng: np.random.Generator) -> np.ndarray:
    return rows[rng.integers(0, len(rows), num_rows)]


def as_rows(figures: list[Figure]) -> list[dict[str, Any]]:
    """Figures as the rows of a tidy table."""
    return [asdict(figure) for figure in figures]
