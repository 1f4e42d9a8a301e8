"""Concept activation vectors: all linear classifiers of a layer fitted in one batched solve.

A concept activation vector (Kim et al. 2018, section 3.2) is the normal of a linear classifier that tells a concept's
clips from others. Every concept, run and relative pair is one *problem*: a row of clip indices with labels. Problems
are solved together, in the dual (Gram matrices) where they hold fewer clips than the layer has units, else in the
primal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from conceptcaps.errors import InputError
from conceptcaps.tcav.newton import solve_dual, solve_primal
from conceptcaps.tcav.products import combinations, gram_matrices, projections

CavMethod = Literal["logistic", "ridge", "pattern"]
_CHUNK_BYTES = 10 * 2**20  # of systems solved together: they stay in the processor's cache between steps


@dataclass(frozen=True)
class Problems:
    """Which clips each classifier learns from, and on which it is tested.

    Args:
        clips: int64 (num_problems, size), rows of the activation matrix; -1 pads.
        labels: bool (num_problems, size), True for the concept's own clips.
        held_out: bool (num_problems, size), True for clips kept for testing.
    """

    clips: np.ndarray
    labels: np.ndarray
    held_out: np.ndarray

    def __post_init__(self) -> None:
        assert self.clips.shape == self.labels.shape == self.held_out.shape
        assert self.clips.ndim == 2

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def train(self) -> np.ndarray:
        """bool (num_problems, size): clips to learn from."""
        return (self.clips >= 0) & ~self.held_out

    @property
    def test(self) -> np.ndarray:
        """bool (num_problems, size): clips to test on."""
        return (self.clips >= 0) & self.held_out


@dataclass(frozen=True)
class Cavs:
    """Fitted classifiers in the space of the activations as they are, whatever scaling the fit used inside.

    Args:
        vectors: float64 (num_problems, dim), unit length, pointing to the concept.
        correct: bool (num_problems, size), whether each clip of the problem is classified rightly.
    """

    vectors: np.ndarray
    correct: np.ndarray


def fit_cavs(
    activations: np.ndarray, problems: Problems, *, method: CavMethod = "logistic", regularisation: float = 1.0
) -> Cavs:
    """Fit one linear classifier per problem.

    Features are scaled to unit variance over the layer for the fit, and the scaling is folded back into the vector,
    so that vectors and gradients live in the same space.

    Args:
        activations: float (num_clips, dim), of one layer.
        problems: what to fit.
        method: `logistic` minimises sum(log loss) + regularisation/2 |w|^2, scikit-learn's LogisticRegression with
            C = 1/regularisation; `ridge` is its RidgeClassifier with alpha = regularisation; `pattern` is the
            difference of the class means (Pahde et al. 2022), which distractor noise does not turn away.
        regularisation: weight of the L2 penalty, > 0.

    Raises:
        InputError: activations that are not finite, or that do not vary.
    """
    check_activations(activations)
    scale = activations.std(0, dtype=np.float64)
    scale[scale < 1e-12 * max(scale.max(), 1e-300)] = np.inf  # a constant unit cannot tell clips apart
    features = (activations - activations.mean(0, dtype=np.float64)) / scale
    vectors, correct = _fit_in_chunks(features, features.astype(activations.dtype), problems, method, regularisation)
    vectors = vectors * np.where(np.isinf(scale), 0, scale) if method == "pattern" else vectors / scale
    norms = np.maximum(np.linalg.norm(vectors, axis=1), 1e-300)
    return Cavs(vectors / norms[:, None], correct)


def check_activations(activations: np.ndarray, layer: str = "layer") -> None:
    """Refuse activations that no classifier can learn from.

    Raises:
        InputError: a value that is not finite (naming the first clip), or no unit that varies.
    """
    finite = np.isfinite(activations).all(1)
    if not finite.all():
        first = int(np.flatnonzero(~finite)[0])
        raise InputError(
            f"{layer}, clip {first}",
            f"has activations that are not finite ({int((~finite).sum())} clips of {len(finite)} do)",
            "Check the classifier's weights and the clip's audio",
        )
    if not len(activations) or not np.ptp(activations, axis=0).any():
        raise InputError(layer, "has activations that are the same for all clips", "Analyse another layer")


def accuracy(cavs: Cavs, problems: Problems) -> np.ndarray:
    """float64 (num_problems,): balanced accuracy on held-out clips; NaN where a side has none."""
    test, labels = problems.test, problems.labels
    with np.errstate(invalid="ignore"):
        sides = [(cavs.correct & test & side).sum(1) / (test & side).sum(1) for side in (labels, ~labels)]
    return (sides[0] + sides[1]) / 2


def cosines(vectors: np.ndarray) -> np.ndarray:
    """float64 (n, n): the cosine similarity of every pair of rows."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-300)
    return unit @ unit.T


def _fit_in_chunks(
    features: np.ndarray, rounded: np.ndarray, problems: Problems, method: CavMethod, regularisation: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weights and whether clips are classified rightly, of all problems.

    Args:
        features: float64 (num_clips, dim), scaled.
        rounded: the same in the activations' own precision: products of clips gain nothing from more.
    """
    dim, train = features.shape[1], problems.train
    width = int(train.sum(1).max(initial=1))
    rows = max(1, _CHUNK_BYTES // (8 * (3 * width**2 if width <= dim else 2 * width * dim + 3 * dim**2)))
    weights, correct = np.empty((len(problems), dim)), np.zeros(problems.clips.shape, dtype=bool)
    for start in range(0, len(problems), rows):
        part = slice(start, start + rows)
        chunk = Problems(problems.clips[part], problems.labels[part], problems.held_out[part])
        weights[part], biases = _fit_chunk(features, rounded, chunk, method, regularisation)
        decision = projections(rounded, chunk.clips, weights[part]) + biases[:, None]
        correct[part] = ((decision > 0) == chunk.labels) & (chunk.clips >= 0)
    return weights, correct


def _fit_chunk(
    features: np.ndarray, rounded: np.ndarray, problems: Problems, method: CavMethod, regularisation: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weights for the scaled features (num_problems, dim), and biases (num_problems,)."""
    width = int(problems.train.sum(1).max(initial=0))
    order = np.argsort(~problems.train, axis=1, kind="stable")[:, :width]  # training clips first, packed
    clips, labels, train = (np.take_along_axis(a, order, 1) for a in (problems.clips, problems.labels, problems.train))
    target, sample_weight, logistic = labels.astype(np.float64), train.astype(np.float64), method == "logistic"
    if method == "pattern":
        return _mean_difference(features, clips, target, sample_weight)
    if width > features.shape[1]:
        x = features[np.maximum(clips, 0)]
        return solve_primal(x, target, sample_weight, regularisation, logistic=logistic)
    gram = gram_matrices(rounded, clips)
    alpha, biases = solve_dual(gram, target, sample_weight, regularisation, logistic=logistic)
    return combinations(rounded, clips, alpha.astype(rounded.dtype, copy=False)), biases


def _mean_difference(
    features: np.ndarray, clips: np.ndarray, target: np.ndarray, sample_weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    def mean(weight: np.ndarray) -> np.ndarray:
        return combinations(features, clips, weight / np.maximum(weight.sum(1, keepdims=True), 1))

    positive, negative = mean(sample_weight * target), mean(sample_weight * (1 - target))
    direction = positive - negative
    return direction, -((positive + negative) / 2 * direction).sum(1)
