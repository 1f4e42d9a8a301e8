"""Batched Newton steps for L2-regularised linear classifiers with a free intercept.

Shapes: P problems, N clips each, D units. `x` (P, N, D), `target` (P, N) in {0, 1}, `sample_weight` (P, N) >= 0 with
zeros on padding. Objective of each problem: sum_i s_i loss(f_i, t_i) + reg/2 |w|^2, f = x w + b.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_TOLERANCE = 1e-8  # of the Newton decrement (Boyd and Vandenberghe 2004, section 9.5), squared, per clip
_MAX_STEPS = 100
_LEAST_CURVATURE = 1e-12
_LONGEST, _SEARCHES = 64.0, 12

Step = Callable[[Tensor, Tensor], Tensor]
"""(response (P, N), weight (P, N)) -> (P, M): the parameters of a weighted ridge regression."""
Apply = Callable[[Tensor], tuple[Tensor, Tensor]]
"""(P, M) parameters -> their f (P, N), and the gradient of their penalty (P, M)."""


def solve_dual(
    x: Tensor, target: Tensor, sample_weight: Tensor, reg: float, *, logistic: bool
) -> tuple[Tensor, Tensor]:
    """Weights (P, D) and intercepts (P,) by iterations on N x N systems; w = x^T alpha."""
    gram = x @ x.mT

    def step(response: Tensor, weight: Tensor) -> Tensor:
        return _dual_step(gram, response, weight, reg)

    def apply(alpha_bias: Tensor) -> tuple[Tensor, Tensor]:
        pulled = (gram @ alpha_bias[:, :-1, None])[..., 0]
        return pulled + alpha_bias[:, -1:], torch.nn.functional.pad(reg * pulled, (0, 1))

    solved = _fit(step, apply, target, sample_weight, logistic)
    return (x.mT @ solved[:, :-1, None])[..., 0], solved[:, -1]


def _dual_step(gram: Tensor, response: Tensor, weight: Tensor, reg: float) -> Tensor:
    """(K + reg/W) alpha + b = response with sum(alpha) = 0 for the free intercept: (P, N + 1), alpha and b."""
    root = weight.sqrt()
    system = root[:, :, None] * gram * root[:, None, :]
    system.diagonal(dim1=1, dim2=2).add_(reg)
    right = torch.stack([root * response, root], dim=-1)
    solved = root[..., None] * torch.cholesky_solve(right, torch.linalg.cholesky(system))
    bias = (solved[..., 0].sum(1) / solved[..., 1].sum(1))[:, None]
    return torch.cat([solved[..., 0] - bias * solved[..., 1], bias], dim=1)


def solve_primal(
    x: Tensor, target: Tensor, sample_weight: Tensor, reg: float, *, logistic: bool
) -> tuple[Tensor, Tensor]:
    """Weights (P, D) and intercepts (P,) by iterations on (D + 1) x (D + 1) systems."""
    x1 = torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)
    penalty = x.new_full((x1.shape[-1],), reg)
    penalty[-1] = 0

    def step(response: Tensor, weight: Tensor) -> Tensor:
        weighted = x1 * weight[..., None]
        system = weighted.mT @ x1 + torch.diag(penalty)
        return torch.cholesky_solve(weighted.mT @ response[..., None], torch.linalg.cholesky(system))[..., 0]

    def apply(weights: Tensor) -> tuple[Tensor, Tensor]:
        return (x1 @ weights[..., None])[..., 0], penalty * weights

    solved = _fit(step, apply, target, sample_weight, logistic)
    return solved[:, :-1], solved[:, -1]


def _fit(step: Step, apply: Apply, target: Tensor, sample_weight: Tensor, logistic: bool) -> Tensor:
    """(P, M): ridge in one step, logistic regression by Newton steps, each as long as lowers its objective most."""
    if not logistic:
        return step(2 * target - 1, sample_weight)
    now = step(4 * target - 2, sample_weight / 4)  # the first Newton step from zero; its length is to be found
    f, pull = apply(now)
    length = _line_search(torch.zeros_like(f), f, torch.zeros_like(f[:, 0]), (now * pull).sum(1), target, sample_weight)
    now, f, pull = (length[:, None] * a for a in (now, f, pull))
    for _ in range(_MAX_STEPS):
        p = torch.sigmoid(f)
        curvature = (p * (1 - p)).clamp(min=_LEAST_CURVATURE)
        move = step(f + (target - p) / curvature, sample_weight * curvature) - now
        along, pulled = apply(move)
        slope, bend = (move * pull).sum(1), (move * pulled).sum(1)
        decrement = -(sample_weight * (p - target) * along).sum(1) - slope
        length = _line_search(f, along, slope, bend, target, sample_weight)
        now, f, pull = (a + length[:, None] * b for a, b in ((now, move), (f, along), (pull, pulled)))
        if bool((decrement <= _TOLERANCE * sample_weight.sum(1)).all()):
            break
    return now


def _line_search(
    f: Tensor, along: Tensor, slope: Tensor, bend: Tensor, target: Tensor, sample_weight: Tensor
) -> Tensor:
    """(P,): the t that minimises sum_i s_i log loss(f + t along) + slope t + bend t^2 / 2, by bracketed Newton."""
    t = torch.ones_like(slope)
    low, high = torch.zeros_like(t), torch.full_like(t, _LONGEST)
    for _ in range(_SEARCHES):
        p = torch.sigmoid(f + t[:, None] * along)
        first = (sample_weight * (p - target) * along).sum(1) + slope + bend * t
        second = (sample_weight * p * (1 - p) * along.square()).sum(1) + bend
        low, high = torch.where(first < 0, t, low), torch.where(first < 0, high, t)
        new = t - first / second.clamp(min=1e-300)
        t, moved = torch.where((new > low) & (new < high), new, (low + high) / 2), t
        if bool(((t - moved).abs() <= 1e-3 * t).all()):
            break
    return t
