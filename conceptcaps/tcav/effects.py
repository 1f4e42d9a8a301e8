"""The joint pattern effect: how much a tag, all others held fixed, moves a class logit through a layer.

Activations are regressed on all tags at once; each tag's coefficients are its pattern (Haufe et al. 2014; Pahde et al.
2022 for CAVs), net of the tags it comes with. The effect is the pattern times the logit's mean gradient, in standard
deviations of the logit. The regression being linear, that is the regression of one scalar per clip and class, the
activation times the mean gradient, so intervals that are robust to unequal variances (HC3) cost nothing.

A null of exactly zero calls every trifle significant once clips are many; the null here is an interval.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from conceptcaps.errors import TooFewRows
from conceptcaps.tcav.significance import benjamini_hochberg, equivalence_p, minimum_effect_p, point_null_p

USED, NEGLIGIBLE, UNDETERMINED = "used", "negligible", "undetermined"
NEGLIGIBLE_SD = 0.1
"""An effect of at most this many standard deviations of the logit counts as negligible."""


@dataclass(frozen=True)
class Effects:
    """Effects of tags on class logits, in standard deviations of the logit.

    Args:
        estimate: float64 (num_classes, num_tags); NaN where the clips cannot tell the tag from others.
        error: float64 (num_classes, num_tags), robust standard errors.
        dof: residual degrees of freedom.
    """

    estimate: np.ndarray
    error: np.ndarray
    dof: float

    def interval(self, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper limits, each (num_classes, num_tags)."""
        half = stats.t.ppf((1 + confidence) / 2, self.dof) * self.error
        return self.estimate - half, self.estimate + half

    def p_zero(self) -> np.ndarray:
        """p-values of no effect at all."""
        return point_null_p(self.estimate, self.error, self.dof)

    def p_used(self, bound: float = NEGLIGIBLE_SD) -> np.ndarray:
        """p-values of the interval null |effect| <= bound."""
        return minimum_effect_p(self.estimate, self.error, self.dof, bound)

    def p_negligible(self, bound: float = NEGLIGIBLE_SD) -> np.ndarray:
        """p-values of |effect| >= bound."""
        return equivalence_p(self.estimate, self.error, self.dof, bound)


def joint_effects(
    activations: np.ndarray, gradients: np.ndarray, tags: np.ndarray, logit_sd: np.ndarray, *, min_clips: int = 5
) -> Effects:
    """The joint pattern effect of every tag on every class.

    Args:
        activations: float (num_clips, dim), of one layer.
        gradients: float (num_classes, dim), mean gradient of each class logit with respect to the layer.
        tags: bool or uint8 (num_clips, num_tags), multi-hot.
        logit_sd: float (num_classes,), standard deviation of each logit over the clips.
        min_clips: tags with fewer clips on either side get NaN.

    Raises:
        InputError: more tags than the clips can tell apart.
    """
    projections = activations.astype(np.float64) @ gradients.T.astype(np.float64)
    return regress(projections / logit_sd, tags, min_clips=min_clips)


def logit_effects(logits: np.ndarray, tags: np.ndarray, *, min_clips: int = 5) -> Effects:
    """The baseline that needs no internals: the logits themselves regressed on all tags.

    Args:
        logits: float (num_clips, num_classes).
        tags: bool or uint8 (num_clips, num_tags), multi-hot.
    """
    return regress(logits / logits.std(0), tags, min_clips=min_clips)


def regress(values: np.ndarray, tags: np.ndarray, *, min_clips: int = 5) -> Effects:
    """Least squares of each column of `values` on all tags and a constant, with HC3 errors (MacKinnon and White 1985).

    Args:
        values: float (num_clips, num_outcomes).
        tags: bool or uint8 (num_clips, num_tags).
        min_clips: tags that fewer clips have, or that all but fewer have, get NaN.

    Raises:
        InputError: fewer clips than twice the tags.
    """
    n, count = len(tags), tags.sum(0, dtype=np.int64)
    kept = np.flatnonzero((count >= min_clips) & (count <= n - min_clips))
    if n < 2 * len(kept) + 4:
        raise TooFewRows(
            "the concept dataset",
            f"has {n} clips for {len(kept)} tags, too few to tell them apart",
            f"Give at least {2 * len(kept) + 4} clips, or fewer tags",
        )
    x = tags[:, kept].astype(np.float64)
    x -= x.mean(0)
    inverse, estimable = _pseudo_inverse(x)
    coefficients = inverse @ values
    residuals = values - values.mean(0) - x @ coefficients
    leverage = np.minimum((x * inverse.T).sum(1) + 1 / n, 1 - 1e-9)
    variance = inverse**2 @ (residuals / (1 - leverage[:, None])) ** 2
    estimate, error = (
        np.full((values.shape[1], tags.shape[1]), np.nan),
        np.full((values.shape[1], tags.shape[1]), np.nan),
    )
    estimate[:, kept[estimable]] = coefficients[estimable].T
    error[:, kept[estimable]] = np.sqrt(variance[estimable]).T
    return Effects(estimate, np.maximum(error, 1e-12), n - len(kept) - 1)


def _pseudo_inverse(x: np.ndarray, tolerance: float = 1e-8) -> tuple[np.ndarray, np.ndarray]:
    """The pseudo-inverse (num_tags, num_clips), and which tags are no mixture of others."""
    if not x.shape[1]:
        return x.T, np.zeros(0, dtype=bool)
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    live = s > tolerance * s.max(initial=0)
    inverse = (vt[live].T / s[live]) @ u[:, live].T
    return inverse, (vt[~live] ** 2).sum(0) < tolerance


def counterfactual_effects(
    with_tag: np.ndarray, without_tag: np.ndarray, logit_sd: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """What a classifier truly responds to: paired logit differences of clips that differ in one tag only.

    Args:
        with_tag: float (num_pairs, num_classes), logits of the clips that have the tag.
        without_tag: float (num_pairs, num_classes), logits of their twins.
        logit_sd: float (num_classes,).

    Returns:
        Mean effect and its standard error, each (num_classes,), in logit standard deviations, and the pairs' dof.
    """
    difference = (with_tag - without_tag) / logit_sd
    n = len(difference)
    return difference.mean(0), difference.std(0, ddof=1) / np.sqrt(n), n - 1


def verdicts(effects: Effects, *, bound: float = NEGLIGIBLE_SD, rate: float = 0.05) -> tuple[np.ndarray, ...]:
    """A verdict per cell, and the q-values behind it.

    Args:
        effects: estimates and errors.
        bound: half width of the interval null, in logit standard deviations.
        rate: false discovery rate, over all cells.

    Returns:
        (verdict, q_used, q_negligible), each in the shape of the estimates: `used` where |effect| > bound is shown,
        `negligible` where |effect| < bound is, else `undetermined`.
    """
    q_used = benjamini_hochberg(effects.p_used(bound))
    q_negligible = benjamini_hochberg(effects.p_negligible(bound))
    verdict = np.full(effects.estimate.shape, UNDETERMINED, dtype=object)
    verdict[q_negligible <= rate] = NEGLIGIBLE
    verdict[q_used <= rate] = USED
    return verdict, q_used, q_negligible


def rank_agreement(scores: np.ndarray, others: np.ndarray) -> float:
    """Spearman correlation over the cells that both know; for head randomisation (Adebayo et al. 2018), near 0 is good.

    A score that stays the same when the head's weights are drawn anew does not explain the classifier.
    """
    known = np.isfinite(scores) & np.isfinite(others)
    if known.sum() < 3 or not np.ptp(scores[known]) or not np.ptp(others[known]):
        return float("nan")
    return float(stats.spearmanr(scores[known], others[known]).statistic)
