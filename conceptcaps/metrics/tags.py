"""Distances between two collections of tag sets: multi-hot arrays in, floats out.

Shapes: every `real` and `made` is a uint8 or bool (num_rows, num_tags) matrix in {0, 1} over one vocabulary.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import stats
from scipy.spatial.distance import jensenshannon


def marginals(matrix: np.ndarray) -> np.ndarray:
    """float (num_tags,): the share of rows that hold each tag."""
    return matrix.mean(0, dtype=np.float64)


def marginal_js(real: np.ndarray, made: np.ndarray) -> float:
    """Jensen-Shannon divergence of the two tag distributions, bits in [0, 1], lower is closer.

    A tag's share is of all tag uses, so the measure is blind to set size; see `size_wasserstein` for that.
    """
    one, other = marginals(real), marginals(made)
    if not one.any() or not other.any():
        return float("nan")
    return float(jensenshannon(one, other, base=2) ** 2)


def marginal_pearson(real: np.ndarray, made: np.ndarray) -> float:
    """Pearson correlation of tag frequencies, in [-1, 1], higher is closer."""
    return pearson(marginals(real), marginals(made))


def marginal_spearman(real: np.ndarray, made: np.ndarray) -> float:
    """Rank correlation of tag frequencies, in [-1, 1], higher is closer."""
    return pearson(stats.rankdata(marginals(real)), stats.rankdata(marginals(made)))


def marginal_tests(real: np.ndarray, made: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each tag is equally frequent: chi-square on its 2 x 2 table.

    Returns:
        float (num_tags,) p-values and the same adjusted for the number of tags (Benjamini and Hochberg 1995). A tag
        that neither holds, or that both always hold, has p = 1.
    """
    a, c = real.sum(0, dtype=np.float64), made.sum(0, dtype=np.float64)
    b, d = len(real) - a, len(made) - c
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    squared = (len(real) + len(made)) * (a * d - b * c) ** 2
    statistic = np.divide(squared, margins, out=np.zeros_like(squared), where=margins > 0)
    p_values = stats.chi2.sf(statistic, df=1)
    return p_values, stats.false_discovery_control(p_values)


def size_wasserstein(real: np.ndarray, made: np.ndarray) -> float:
    """Wasserstein-1 distance of the set sizes, in tags, lower is closer."""
    return float(stats.wasserstein_distance(real.sum(1), made.sum(1)))


def size_ks(real: np.ndarray, made: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance of the set sizes, in [0, 1], lower is closer."""
    one, other = np.sort(real.sum(1)), np.sort(made.sum(1))
    points = np.union1d(one, other)
    gaps = np.searchsorted(one, points, "right") / len(one) - np.searchsorted(other, points, "right") / len(other)
    return float(np.abs(gaps).max())


def cooccurrence(matrix: np.ndarray) -> np.ndarray:
    """float (num_tags, num_tags): the share of rows that hold both tags; tag frequencies on the diagonal."""
    counts = matrix.astype(np.float32)
    return (counts.T @ counts).astype(np.float64) / max(len(matrix), 1)


def pair_mask(num_tags: int, groups: np.ndarray | None = None, pair: tuple[int, int] | None = None) -> np.ndarray:
    """bool (num_tags, num_tags): each unordered pair of tags once, or only those of two groups (categories)."""
    mask = np.triu(np.ones((num_tags, num_tags), dtype=bool), 1)
    if groups is None or pair is None:
        return mask
    one, other = groups == pair[0], groups == pair[1]
    return mask & (np.outer(one, other) | np.outer(other, one))


def cooccurrence_pearson(real: np.ndarray, made: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Pearson correlation of off-diagonal co-occurrence shares, in [-1, 1], higher is closer."""
    mask = pair_mask(real.shape[1]) if mask is None else mask
    return pearson(cooccurrence(real)[mask], cooccurrence(made)[mask])


def cooccurrence_kl(real: np.ndarray, made: np.ndarray, smoothing: float = 0.5) -> float:
    """KL(real || made) of the distribution over co-occurring pairs, nats, lower is closer.

    Args:
        smoothing: count added to every pair, so that a pair that one side lacks stays finite.
    """
    p, q = _pair_distribution(real, smoothing), _pair_distribution(made, smoothing)
    return float((p * np.log(p / q)).sum())


def cooccurrence_hellinger(real: np.ndarray, made: np.ndarray) -> float:
    """Hellinger distance of the distributions over co-occurring pairs, in [0, 1], lower is closer."""
    p, q = _pair_distribution(real, 0.0), _pair_distribution(made, 0.0)
    return float(np.sqrt(max(0.0, 1 - np.sqrt(p * q).sum())))


def _pair_distribution(matrix: np.ndarray, smoothing: float) -> np.ndarray:
    counts = cooccurrence(matrix)[pair_mask(matrix.shape[1])] * len(matrix) + smoothing
    return counts / max(counts.sum(), 1e-12)


def pmi(matrix: np.ndarray, smoothing: float = 0.5) -> np.ndarray:
    """Pointwise mutual information log(p_ij / (p_i p_j)) of every pair, nats: float (num_tags, num_tags).

    Args:
        smoothing: count added to each joint count, and to its expectation under independence.
    """
    n = max(len(matrix), 1)
    joint, single = cooccurrence(matrix) * n, marginals(matrix)
    return np.log((joint + smoothing) / (n * np.outer(single, single) + smoothing))


def phi(matrix: np.ndarray) -> np.ndarray:
    """Correlation of every pair of tags, in [-1, 1]; 0 where a tag never varies: float (num_tags, num_tags)."""
    joint, single = cooccurrence(matrix), marginals(matrix)
    scale = np.sqrt(np.outer(single * (1 - single), single * (1 - single)))
    return np.divide(joint - np.outer(single, single), scale, out=np.zeros_like(joint), where=scale > 0)


def supported_pairs(real: np.ndarray, min_count: float) -> np.ndarray:
    """bool (num_tags, num_tags): pairs that `real` holds, or would hold by chance, at least `min_count` times."""
    single = marginals(real)
    counts = len(real) * np.maximum(cooccurrence(real), np.outer(single, single))
    return pair_mask(real.shape[1]) & (counts >= min_count)


def association_pearson(
    real: np.ndarray, made: np.ndarray, measure: Literal["pmi", "phi"] = "pmi", mask: np.ndarray | None = None
) -> float:
    """Pearson correlation of a pairwise association on the pairs of `mask`, in [-1, 1], higher is closer."""
    mask = supported_pairs(real, 5) if mask is None else mask
    score = pmi if measure == "pmi" else phi
    return pearson(score(real)[mask], score(made)[mask])


def pearson(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson correlation, in [-1, 1]; NaN for fewer than two values or a constant side."""
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(np.corrcoef(one, other)[0, 1])


def classifier_scores(
    real: np.ndarray, made: np.ndarray, kind: Literal["logistic", "trees"], seed: int, folds: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    """Classifier two-sample test (Lopez-Paz and Oquab 2017): out-of-fold scores of "is real".

    The larger side is cut to the size of the smaller, at random.

    Returns:
        float (num_rows,) scores and bool (num_rows,) labels; see `auc`.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    rng = np.random.default_rng(seed)
    size = min(len(real), len(made))
    sides = [side[rng.permutation(len(side))[:size]] for side in (real, made)]
    features = np.concatenate(sides).astype(np.float32)
    labels = np.repeat([True, False], size)
    model = (
        LogisticRegression(C=0.1, max_iter=500)
        if kind == "logistic"
        else RandomForestClassifier(100, min_samples_leaf=3, random_state=seed)
    )
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return cross_val_predict(model, features, labels, cv=splits, method="predict_proba")[:, 1], labels


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve; 0.5 where the two sides cannot be told apart, 1 where they always can."""
    ranks = stats.rankdata(scores)
    positive = int(labels.sum())
    above = ranks[labels].sum() - positive * (positive + 1) / 2
    return float(above / (positive * (len(labels) - positive)))


def mmd_kernels(
    real: np.ndarray, made: np.ndarray, bandwidth: float | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kernel exp(-Hamming / bandwidth) within real rows, between both, and within made rows; see `mmd`.

    Args:
        bandwidth: in tags; None takes the median distance within `real`.
    """
    within, between, other = _hamming(real, real), _hamming(real, made), _hamming(made, made)
    if bandwidth is None:
        bandwidth = max(float(np.median(within[~np.eye(len(real), dtype=bool)])), 1.0)
    return np.exp(-within / bandwidth), np.exp(-between / bandwidth), np.exp(-other / bandwidth)


def mmd(
    kernels: tuple[np.ndarray, np.ndarray, np.ndarray],
    real_weights: np.ndarray | None = None,
    made_weights: np.ndarray | None = None,
) -> float:
    """Unbiased squared maximum mean discrepancy (Gretton et al. 2012, eq. 3), lower is closer.

    Zero in expectation for equal distributions, so it can be slightly negative.

    Args:
        kernels: of `mmd_kernels`.
        real_weights, made_weights: float, how often each row counts (for the bootstrap); None counts each once.
    """
    within, between, other = kernels
    a = np.ones(len(within)) if real_weights is None else real_weights
    b = np.ones(len(other)) if made_weights is None else made_weights
    return float(_pair_mean(within, a) + _pair_mean(other, b) - 2 * (a @ between @ b) / (a.sum() * b.sum()))


def _pair_mean(kernel: np.ndarray, weights: np.ndarray) -> float:
    """Mean over pairs of different rows: a row drawn twice is no pair with itself."""
    same = float(weights**2 @ np.diag(kernel))
    return (float(weights @ kernel @ weights) - same) / float(weights.sum() ** 2 - (weights**2).sum())


def _hamming(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    a, b = one.astype(np.float32), other.astype(np.float32)
    return a.sum(1)[:, None] + b.sum(1)[None] - 2 * a @ b.T


def row_keys(matrix: np.ndarray) -> np.ndarray:
    """void (num_rows,): one comparable key per tag set."""
    packed = np.ascontiguousarray(np.packbits(matrix.astype(bool), axis=1))
    return packed.view(np.dtype((np.void, packed.shape[1])))[:, 0]


def unique_share(matrix: np.ndarray) -> float:
    """Distinct tag sets over rows, in (0, 1]."""
    return len(np.unique(row_keys(matrix))) / len(matrix)


def novel_share(made: np.ndarray, known: np.ndarray) -> float:
    """The share of rows whose tag set is none of `known`'s."""
    return float(1 - np.isin(row_keys(made), row_keys(known)).mean())


def nearest_jaccard(made: np.ndarray, known: np.ndarray, chunk: int = 4096) -> np.ndarray:
    """float (num_rows,): the Jaccard similarity of each made row to the most similar known one, in [0, 1].

    Rows that memorise have a higher mean than held-out real rows have.
    """
    reference = known.astype(np.float32)
    sizes = reference.sum(1)
    found = []
    for begin in range(0, len(made), chunk):
        rows = made[begin : begin + chunk].astype(np.float32)
        shared = rows @ reference.T
        union = rows.sum(1)[:, None] + sizes[None] - shared
        found.append((shared / np.maximum(union, 1)).max(1))
    return np.concatenate(found)
