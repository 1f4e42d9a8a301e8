"""p-values and intervals: minimum effect, equivalence, false discovery rate, proportions, and score tests."""

from __future__ import annotations

import numpy as np
from scipy import stats


def point_null_p(estimate: np.ndarray, error: np.ndarray, dof: float) -> np.ndarray:
    """Two-sided p-value of `effect = 0`, Student's t."""
    return 2 * stats.t.sf(np.abs(estimate) / error, dof)


def minimum_effect_p(estimate: np.ndarray, error: np.ndarray, dof: float, bound: float) -> np.ndarray:
    """p-value of the interval null `|effect| <= bound`: small means more than negligible.

    The largest over the null, which is at its edge (Hodges and Lehmann 1954). With bound 0 it is the two-sided test.
    """
    size = np.abs(estimate)
    return np.minimum(stats.t.sf((size - bound) / error, dof) + stats.t.sf((size + bound) / error, dof), 1)


def equivalence_p(estimate: np.ndarray, error: np.ndarray, dof: float, bound: float) -> np.ndarray:
    """p-value of `|effect| >= bound` by two one-sided tests (Schuirmann 1987): small means negligible."""
    return stats.t.sf((bound - np.abs(estimate)) / error, dof)


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """q-values in the shape of `p` (Benjamini and Hochberg 1995); NaN stays NaN and does not count as a test."""
    q = np.full(p.shape, np.nan)
    known = np.isfinite(p)
    values = p[known]
    order = np.argsort(values)
    ranked = values[order] * values.size / np.arange(1, values.size + 1)
    adjusted = np.empty_like(ranked)
    adjusted[order] = np.minimum(np.minimum.accumulate(ranked[::-1])[::-1], 1)
    q[known] = adjusted
    return q


def wilson_interval(share: np.ndarray, count: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper limit of a proportion from `count` independent trials (Wilson 1927)."""
    z = stats.norm.ppf((1 + confidence) / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
        half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    # Rounding alone would leave a share of 0 or 1 outside its own interval.
    return np.clip(centre - half, 0, share), np.clip(centre + half, share, 1)


def mean_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Student's t limits of the mean over axis 0; NaN limits for a single row."""
    n = len(values)
    if n < 2:
        nothing = np.full(values.shape[1:], np.nan)
        return nothing, nothing
    mean, error = values.mean(0), values.std(0, ddof=1) / np.sqrt(n)
    half = stats.t.ppf((1 + confidence) / 2, n - 1) * error
    return mean - half, mean + half


def welch_p(scores: np.ndarray, random_scores: np.ndarray) -> np.ndarray:
    """float64 (num_tests,): two-sided Welch t-tests of runs, float (num_runs, num_tests), against random runs,
    float (num_runs, num_tests or 1).

    Calibrated only where each run has clips of its own. Runs without any spread on both sides get p = 1 if their
    means agree and 0 otherwise.
    """
    a, b = scores, np.broadcast_to(random_scores, (len(random_scores), scores.shape[1]))
    parts = a.var(0, ddof=1) / len(a), b.var(0, ddof=1) / len(b)
    spread = parts[0] + parts[1]
    p = np.isclose(a.mean(0), b.mean(0)).astype(float)
    live = spread > 1e-24
    dof = spread[live] ** 2 / (parts[0][live] ** 2 / (len(a) - 1) + parts[1][live] ** 2 / (len(b) - 1))
    p[live] = 2 * stats.t.sf(np.abs(a.mean(0) - b.mean(0))[live] / np.sqrt(spread[live]), dof)
    return p
