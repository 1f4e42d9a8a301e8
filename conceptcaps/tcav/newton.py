"""Batched Newton steps for L2-regularised linear classifiers with a free intercept.

Shapes: P problems, N clips each, D units. `x` (P, N, D), `target` (P, N) in {0, 1}, `sample_weight` (P, N) >= 0 with
zeros on padding. Objective of each problem: sum_i s_i loss(f_i, t_i) + reg/2 |w|^2, f = x w + b.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_TOLERANCE = 1e-9
_MAX_STEPS = 100
_LEAST_CURVATURE = 1e-12


def solve_dual(
    x: Tensor, target: Tensor, sample_weight: Tensor, reg: float, *, logistic: bool
) -> tuple[Tensor, Tensor]:
    """Weights (P, D) and intercepts (P,) by iterations on N x N systems; w = x^T alpha."""
    gram = x @ x.mT
    if not logistic:
        alpha, bias = _dual_step(gram, 2 * target - 1, sample_weight, reg)
    else:
        alpha, bias = _minimise_dual(gram, target, sample_weight, reg)
    return (x.mT @ alpha[..., None])[..., 0], bias


def _minimise_dual(gram: Tensor, target: Tensor, sample_weight: Tensor, reg: float) -> tuple[Tensor, Tensor]:
    alpha, bias = torch.zeros_like(target), torch.zeros_like(target[:, 0])
    pulled = torch.zeros_like(target)  # gram @ alpha: linear in alpha, so it is moved along with it

    def objective(alpha: Tensor, bias: Tensor, pulled: Tensor) -> Tensor:
        loss = F.binary_cross_entropy_with_logits(pulled + bias[:, None], target, sample_weight, reduction="none")
        return loss.sum(1) + reg / 2 * (alpha * pulled).sum(1)

    value = objective(alpha, bias, pulled)
    for _ in range(_MAX_STEPS):
        f = pulled + bias[:, None]
        p = torch.sigmoid(f)
        curvature = (p * (1 - p)).clamp(min=_LEAST_CURVATURE)
        towards, shift = _dual_step(gram, f + (target - p) / curvature, sample_weight * curvature, reg)
        goal = (towards, shift, (gram @ towards[..., None])[..., 0])
        alpha, bias, pulled, new = _damped((alpha, bias, pulled), goal, objective, value)
        done = bool((value - new <= _TOLERANCE * (1 + value.abs())).all())
        value = new
        if done:
            break
    return alpha, bias


def _dual_step(gram: Tensor, response: Tensor, weight: Tensor, reg: float) -> tuple[Tensor, Tensor]:
    """Weighted ridge on `response`: (K + reg/W) alpha + b = response with sum(alpha) = 0 for the free intercept."""
    root = weight.sqrt()
    system = root[:, :, None] * gram * root[:, None, :]
    system.diagonal(dim1=1, dim2=2).add_(reg)
    right = torch.stack([root * response, root], dim=-1)
    solved = root[..., None] * torch.cholesky_solve(right, torch.linalg.cholesky(system))
    bias = solved[..., 0].sum(1) / solved[..., 1].sum(1)
    return solved[..., 0] - bias[:, None] * solved[..., 1], bias


def solve_primal(
    x: Tensor, target: Tensor, sample_weight: Tensor, reg: float, *, logistic: bool
) -> tuple[Tensor, Tensor]:
    """Weights (P, D) and intercepts (P,) by iterations on (D + 1) x (D + 1) systems."""
    x1 = torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)
    penalty = x.new_full((x1.shape[-1],), reg)
    penalty[-1] = 0
    if not logistic:
        solution = _primal_step(x1, 2 * target - 1, sample_weight, penalty)
        return solution[:, :-1], solution[:, -1]
    solution = _minimise_primal(x1, target, sample_weight, penalty)
    return solution[:, :-1], solution[:, -1]


def _minimise_primal(x1: Tensor, target: Tensor, sample_weight: Tensor, penalty: Tensor) -> Tensor:
    w = x1.new_zeros(len(x1), x1.shape[-1])

    def objective(w: Tensor) -> Tensor:
        f = (x1 @ w[..., None])[..., 0]
        loss = F.binary_cross_entropy_with_logits(f, target, sample_weight, reduction="none")
        return loss.sum(1) + (penalty * w * w).sum(1) / 2

    value = objective(w)
    for _ in range(_MAX_STEPS):
        f = (x1 @ w[..., None])[..., 0]
        p = torch.sigmoid(f)
        curvature = (p * (1 - p)).clamp(min=_LEAST_CURVATURE)
        goal = _primal_step(x1, f + (target - p) / curvature, sample_weight * curvature, penalty)
        w, new = _damped((w,), (goal,), objective, value)
        done = bool((value - new <= _TOLERANCE * (1 + value.abs())).all())
        value = new
        if done:
            break
    return w


def _primal_step(x1: Tensor, response: Tensor, weight: Tensor, penalty: Tensor) -> Tensor:
    weighted = x1 * weight[..., None]
    system = weighted.mT @ x1 + torch.diag(penalty)
    return torch.cholesky_solve(weighted.mT @ response[..., None], torch.linalg.cholesky(system))[..., 0]


def _damped(now: tuple, goal: tuple, objective, value: Tensor) -> tuple:  # type: ignore[no-untyped-def]
    """Go towards `goal` by the longest of 1, 1/2, 1/4, ... that does not raise a problem's objective."""
    step = torch.ones_like(value)
    for _ in range(30):
        moved = tuple(a + step.reshape(-1, *[1] * (a.ndim - 1)) * (g - a) for a, g in zip(now, goal, strict=True))
        new = objective(*moved)
        worse = new > value + 1e-12 * value.abs()
        if not bool(worse.any()):
            return (*moved, new)
        step = torch.where(worse, step / 2, step)
    step = torch.where(worse, torch.zeros_like(step), step)
    moved = tuple(a + step.reshape(-1, *[1] * (a.ndim - 1)) * (g - a) for a, g in zip(now, goal, strict=True))
    return (*moved, objective(*moved))
