"""Batched Newton steps for L2-regularised linear classifiers with a free intercept.

Shapes: P problems, N clips each, D units. `x` (P, N, D), `target` (P, N) in {0, 1}, `sample_weight` (P, N) >= 0 with
zeros on padding. Objective of each problem: sum_i s_i loss(f_i, t_i) + reg/2 |w|^2, f = x w + b.

All in the precision of `x` or of its Gram matrix, float64 or float32: each step solves for what is left over, so that
a rounded factorisation only costs steps.

Products are numpy's, which calls BLAS once per matrix: a product with a vector is a gemv, and `x @ x.mT` of one array
forms one triangle only. On matrices this small that is several times faster than torch's batched product.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

_TOLERANCE = 1e-8  # of the Newton decrement (Boyd and Vandenberghe 2004, section 9.5), squared, per clip
_MAX_STEPS = 200
_LEAST_CURVATURE = 1e-12
_WORTH_KEEPING = 0.1  # a factorisation is made anew once most steps leave more of the decrement than this
_LONGEST, _SEARCHES, _CLOSE = 64.0, 12, 1e-3
_LONGEST_KEPT = 4.0  # longer steps with an old factorisation would blow up what of alpha the Gram matrix cannot see
_TINY = 1e-30
_ROUNDED = 10.0  # times the rounding of the Gram matrices: the least penalty under which they may be single precision

Solve = Callable[[np.ndarray], np.ndarray]
"""(P, M) right sides -> (P, M) solutions."""
Step = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(P, N) weighted residuals, (P, M) parameters -> (P, M): the Newton step."""
Factorise = Callable[[np.ndarray], Step]
"""weight (P, N) -> the steps with the Hessian of these weights."""
Apply = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(P, M) parameters -> their f (P, N), and the gradient of their penalty (P, M)."""


def solve_dual(
    gram: np.ndarray, target: np.ndarray, sample_weight: np.ndarray, reg: float, *, logistic: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Dual weights alpha (P, N), w = x^T alpha, and intercepts (P,) from `gram` = x x^T (P, N, N)."""
    largest = np.trace(gram, axis1=1, axis2=2).max(initial=0)
    if reg < _ROUNDED * np.finfo(gram.dtype).eps * largest:
        gram = gram.astype(np.float64)

    def factorise(weight: np.ndarray) -> Step:
        return _dual_step(gram, weight, reg)

    def apply(alpha_bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pulled = _times(gram, alpha_bias[:, :-1])
        penalty = np.zeros_like(alpha_bias)
        np.multiply(pulled, reg, out=penalty[:, :-1])
        return pulled + alpha_bias[:, -1:], penalty

    start = np.zeros((len(gram), gram.shape[1] + 1), gram.dtype)
    solved = _fit(start, factorise, apply, target, sample_weight, logistic)
    return solved[:, :-1], solved[:, -1]


def _dual_step(gram: np.ndarray, weight: np.ndarray, reg: float) -> Step:
    """(K + reg/W) change of alpha + change of b = (residual - reg alpha)/W, with a sum of 0 for the free intercept."""
    root = np.sqrt(weight)
    system = root[:, :, None] * gram
    system *= root[:, None, :]
    _add_to_diagonal(system, reg)
    solve = _cholesky(system)
    ones = root * solve(root)
    total = ones.sum(1)

    def step(residual: np.ndarray, alpha_bias: np.ndarray) -> np.ndarray:
        left = np.divide(residual - reg * alpha_bias[:, :-1], root, out=np.zeros_like(root), where=root > 0)
        solved = root * solve(left)
        bias = ((alpha_bias[:, :-1] + solved).sum(1) / total)[:, None]
        return np.concatenate([solved - bias * ones, bias], axis=1)

    return step


def solve_primal(
    x: np.ndarray, target: np.ndarray, sample_weight: np.ndarray, reg: float, *, logistic: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (P, D) and intercepts (P,) by iterations on (D + 1) x (D + 1) systems."""
    x1 = np.concatenate([x, np.ones_like(x[..., :1])], axis=-1)
    penalty = np.full(x1.shape[-1], reg, x.dtype)
    penalty[-1] = 0

    def factorise(weight: np.ndarray) -> Step:
        root = np.sqrt(weight)
        weighted = x1 * root[..., None]
        system = weighted.mT @ weighted
        _add_to_diagonal(system, penalty)
        solve = _cholesky(system)
        return lambda residual, weights: solve(_times(x1.mT, residual) - penalty * weights)

    def apply(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _times(x1, weights), penalty * weights

    start = np.zeros((len(x1), x1.shape[2]), x.dtype)
    solved = _fit(start, factorise, apply, target, sample_weight, logistic)
    return solved[:, :-1], solved[:, -1]


def _fit(
    now: np.ndarray,
    factorise: Factorise,
    apply: Apply,
    target: np.ndarray,
    sample_weight: np.ndarray,
    logistic: bool,
) -> np.ndarray:
    """(P, M): ridge in one step; logistic regression from zeros `now`, each step as long as lowers its objective most.

    A factorisation costs several times what a step with it does, so it is kept while steps with it still shrink the
    decrement fast (Shamanskii 1967). A decrement g^T H0^-1 g by an old Hessian H0 is below the true one, but not by
    more than the largest ratio of an old curvature to the present one: that bound is what has to meet the tolerance.
    """
    target, sample_weight = target.astype(now.dtype), sample_weight.astype(now.dtype)
    if not logistic:
        return factorise(sample_weight)(sample_weight * (2 * target - 1), now)
    real, enough = sample_weight > 0, _TOLERANCE * sample_weight.sum(1)
    f, p, renew = np.zeros_like(target), np.full_like(target, 0.5), True
    pull, before = np.zeros_like(now), np.full(len(f), np.inf, now.dtype)
    for _ in range(_MAX_STEPS):
        curvature = np.maximum(p * (1 - p), _LEAST_CURVATURE)
        if renew:
            used, step = curvature, factorise(sample_weight * curvature)
        residual = sample_weight * (target - p)
        move = step(residual, now)
        along, pulled = apply(move)
        slope, bend = np.vecdot(move, pull), np.vecdot(move, pulled)
        decrement = np.vecdot(residual, along) - slope
        bound = decrement * np.where(real, used / curvature, 1).max(1, initial=1)
        guess = decrement / np.maximum(np.vecdot(sample_weight * curvature * along, along) + bend, _TINY)
        longest = _LONGEST if renew else _LONGEST_KEPT
        guess = guess.clip(0, longest)
        unfinished = bound > enough
        if not unfinished.any():
            return now + guess[:, None] * move  # so short that the guess is exact
        close = _CLOSE * np.maximum(decrement, enough)
        length, f, p = _line_search(guess, longest, close, f, along, slope, bend, target, sample_weight)
        now, pull = now + length[:, None] * move, pull + length[:, None] * pulled
        renew = bool((bound > _WORTH_KEEPING * before)[unfinished].mean() > 0.5)
        before = bound
    return now


def _line_search(
    t: np.ndarray,
    longest: float,
    close: np.ndarray,
    f: np.ndarray,
    along: np.ndarray,
    slope: np.ndarray,
    bend: np.ndarray,
    target: np.ndarray,
    sample_weight: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The t that minimises sum_i s_i log loss(f + t along) + slope t + bend t^2 / 2, by bracketed Newton from `t`.

    Args:
        t: (P,), the first guess, within 0 and `longest`.
        longest: bound of t.
        close: (P,), the squared decrement along the line that may be left.

    Returns:
        t (P,), f + t along (P, N), and the sigmoid of that.
    """
    low, high = np.zeros_like(t), np.full_like(t, longest)
    weighted = sample_weight * along
    for left in reversed(range(_SEARCHES)):
        moved = f + t[:, None] * along
        p = _sigmoid(moved)
        first = np.vecdot(p - target, weighted) + slope + bend * t
        second = np.maximum(np.vecdot(p * (1 - p) * along, weighted) + bend, _TINY)
        at_end = (t >= longest) & (first < 0)
        if not left or (at_end | (first * first <= second * close)).all():
            break
        low, high = np.where(first < 0, t, low), np.where(first < 0, high, t)
        new = t - first / second
        t = np.where((new > low) & (new < high), new, (low + high) / 2)
    return t, moved, p


def _cholesky(system: np.ndarray) -> Solve:
    """The solutions of positive definite systems (P, M, M) for any right sides (P, M)."""
    upper = torch.linalg.cholesky(torch.from_numpy(system), upper=True)

    def solve(right: np.ndarray) -> np.ndarray:
        half = torch.linalg.solve_triangular(upper.mT, torch.from_numpy(right)[..., None], upper=False)
        return torch.linalg.solve_triangular(upper, half, upper=True)[..., 0].numpy()

    return solve


def _add_to_diagonal(system: np.ndarray, value: float | np.ndarray) -> None:
    index = np.arange(system.shape[-1])
    system[:, index, index] += value


def _times(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """(P, N, M) times (P, M): (P, N)."""
    return (matrix @ vector[..., None])[..., 0]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return torch.sigmoid(torch.from_numpy(x)).numpy()
