"""Sampling that hits given tag frequencies and set sizes: tilted logits and sizes weighted by rejection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conceptcaps.seeding import generator
from conceptcaps.vae.sampling import Proposer, Rules

_DRAWS = 16_384
_ROUNDS = 8
_PSEUDO_ROWS = 20.0
_MAX_LOG_RATIO = np.log(4.0)


@dataclass(frozen=True)
class Targets:
    """What sampled rows should look like.

    Attributes:
        marginals: float (num_tags,), the wanted share of rows with each tag; None leaves the model's.
        sizes: float (largest + 1,), rows by number of tags, in any unit; None leaves the model's.
    """

    marginals: np.ndarray | None = None
    sizes: np.ndarray | None = None


@dataclass(frozen=True)
class Calibration:
    """What makes a model meet its targets.

    Attributes:
        tilt: float (num_tags,), added to the model's logits.
        size_log_ratio: float (num_tags + 1,), by set size; see `Sampler`.
    """

    tilt: np.ndarray
    size_log_ratio: np.ndarray


def balanced(marginals: np.ndarray, rarity_temperature: float = 1.0, min_share: float = 0.0) -> np.ndarray:
    """Wanted tag shares from measured ones.

    Args:
        marginals: float (num_tags,).
        rarity_temperature: shares are raised to 1 / this before they are scaled back to the same tags per row: 1
            leaves them, larger values make rare tags commoner.
        min_share: no tag is wanted in a smaller share of rows.
    """
    positive = marginals[marginals > 0]
    floor = positive.min() if len(positive) else 1.0
    tempered = np.maximum(marginals, floor) ** (1 / rarity_temperature) if rarity_temperature != 1 else marginals
    scaled = tempered * marginals.sum() / max(tempered.sum(), 1e-12)
    return np.clip(scaled, min_share, 0.95)


def calibrate(proposer: Proposer, rules: Rules, targets: Targets, seed: int) -> Calibration:
    """Find the tilt and size weights with which draws that pass `rules` meet `targets`.

    Stochastic approximation (Robbins and Monro 1951): each round measures a fresh pilot and moves every tag's logit by
    a shrinking step. Sizes are weighted exactly. Given tags are left out: conditioning comes after.
    """
    free = Rules(rules.vocabulary, rules.contradictions, rules.min_categories, rules.max_tags)
    tilt = np.zeros(len(rules.vocabulary))
    rounds = _ROUNDS if targets.marginals is not None else 0
    for step in range(rounds):
        matrix = _draws(proposer.tilted(tilt), free, seed, step)
        weights = np.exp(_size_log_ratio(matrix, targets.sizes)[matrix.sum(1)])
        measured = (weights @ matrix + 0.5) / (weights.sum() + 1)
        gap = _logit(targets.marginals) - _logit(measured)
        tilt += np.clip(gap, -1.5, 1.5) * min(1.0, 3 / (step + 1))
    matrix = _draws(proposer.tilted(tilt), free, seed, rounds)
    return Calibration(tilt, _size_log_ratio(matrix, targets.sizes))


def _draws(proposer: Proposer, rules: Rules, seed: int, step: int) -> np.ndarray:
    matrix, _ = proposer.propose(generator(seed, "calibration", step), _DRAWS, np.array([], dtype=np.int64))
    return matrix[rules.admits(matrix)]


def _size_log_ratio(matrix: np.ndarray, wanted: np.ndarray | None) -> np.ndarray:
    """float (num_tags + 1,), by set size: log of the wanted share over the share in `matrix`, bounded."""
    made = np.bincount(matrix.sum(1), minlength=matrix.shape[1] + 1).astype(np.float64)
    if wanted is None or not len(matrix):
        return np.zeros(matrix.shape[1] + 1)
    share = (made + 1e-9) / made.sum()
    # A few pseudo-rows of the model's own sizes: sizes that few rows have are not known exactly.
    target = np.zeros_like(share)
    target[: len(wanted)] = wanted[: len(share)]
    target = np.where(made > 0, target, 0) + _PSEUDO_ROWS * share
    ratio = np.log(target / target.sum()) - np.log(share)
    return np.where(made > 0, np.minimum(ratio, _MAX_LOG_RATIO), 0.0)


def _logit(share: np.ndarray | None) -> np.ndarray:
    clipped = np.clip(np.asarray(share, dtype=np.float64), 1e-5, 1 - 1e-5)
    return np.log(clipped) - np.log1p(-clipped)
