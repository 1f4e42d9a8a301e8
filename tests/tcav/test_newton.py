import numpy as np
import pytest

from conceptcaps.tcav import newton
from conceptcaps.tcav.newton import solve_dual, solve_primal


def batch(num_problems: int, size: int, dim: int, *, gap: float, seed: int) -> tuple[np.ndarray, ...]:
    """Features (P, N, D), targets and weights; the classes lie `gap` apart, and the last fifth is padding."""
    rng = np.random.default_rng(seed)
    target = (rng.random((num_problems, size)) < 0.5).astype(float)
    x = rng.normal(size=(num_problems, size, dim))
    x += gap * target[..., None] * rng.normal(size=(num_problems, 1, dim)) / np.sqrt(dim)
    weight = np.ones((num_problems, size))
    weight[:, size - size // 5 :] = 0
    return x, target, weight


def fit_dual(x: np.ndarray, target: np.ndarray, weight: np.ndarray, reg: float, *, logistic: bool = True) -> tuple:
    alpha, bias = solve_dual(x @ x.mT, target, weight, reg, logistic=logistic)
    return (x.mT @ alpha[..., None])[..., 0], bias


def decrement(x: np.ndarray, target: np.ndarray, weight: np.ndarray, reg: float, w: np.ndarray, b: np.ndarray) -> float:
    """The largest squared Newton decrement per clip, from the exact Hessian and written out plainly."""
    found = []
    for i in range(len(x)):
        x1 = np.c_[x[i], np.ones(len(x[i]))]
        p = 1 / (1 + np.exp(-(x[i] @ w[i] + b[i])))
        gradient = x1.T @ (weight[i] * (p - target[i])) + reg * np.r_[w[i], 0]
        hessian = (x1 * (weight[i] * p * (1 - p))[:, None]).T @ x1 + reg * np.diag(np.r_[np.ones(len(w[i])), 0])
        found.append(gradient @ np.linalg.solve(hessian, gradient) / weight[i].sum())
    return max(found)


@pytest.mark.parametrize(("size", "dim"), [(40, 64), (90, 64), (60, 2048), (300, 20)])
@pytest.mark.parametrize("reg", [1.0, 0.01])
@pytest.mark.parametrize("gap", [0.0, 4.0])
def test_both_forms_meet_the_tolerance_of_the_exact_hessian(size: int, dim: int, reg: float, gap: float) -> None:
    x, target, weight = batch(6, size, dim, gap=gap, seed=1)
    dual = fit_dual(x, target, weight, reg)
    assert decrement(x, target, weight, reg, *dual) < 1e-8
    if dim < 1000:
        primal = solve_primal(x, target, weight, reg, logistic=True)
        assert decrement(x, target, weight, reg, *primal) < 1e-8
        np.testing.assert_allclose(dual[0], primal[0], atol=2e-3 * np.abs(primal[0]).max())


def test_ridge_is_the_same_in_both_forms() -> None:
    x, target, weight = batch(4, 50, 30, gap=1.0, seed=2)
    for a, b in zip(
        fit_dual(x, target, weight, 0.5, logistic=False),
        solve_primal(x, target, weight, 0.5, logistic=False),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-9)


@pytest.mark.parametrize("solve", [fit_dual, solve_primal])
def test_problems_of_different_difficulty_are_each_solved_as_if_alone(solve) -> None:
    parts = [batch(2, 60, 40, gap=gap, seed=3) for gap in (0.0, 1.0, 30.0)]
    x, target, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    x[::2] *= 20.0
    together = solve(x, target, weight, 0.1, logistic=True)
    for i in range(len(x)):
        alone = solve(x[i : i + 1], target[i : i + 1], weight[i : i + 1], 0.1, logistic=True)
        cosine = together[0][i] @ alone[0][0] / np.linalg.norm(together[0][i]) / np.linalg.norm(alone[0][0])
        assert cosine > 1 - 1e-7
    assert decrement(x, target, weight, 0.1, *together) < 1e-8


def test_a_factorisation_serves_several_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    made, used = [], []
    cholesky, search = newton._cholesky, newton._line_search
    monkeypatch.setattr(newton, "_cholesky", lambda system: made.append(1) or cholesky(system))
    monkeypatch.setattr(newton, "_line_search", lambda *a: used.append(1) or search(*a))
    x, target, weight = batch(8, 60, 128, gap=2.0, seed=4)
    fit_dual(x, target, weight, 1.0)
    assert len(made) <= 4
    assert len(made) < len(used) < 15


@pytest.mark.parametrize("reg", [1.0, 1e-6])
def test_single_precision_meets_the_tolerance_and_gives_way_to_double_where_the_penalty_would_drown(reg: float) -> None:
    x, target, weight = batch(6, 60, 256, gap=4.0, seed=5)
    x = x.astype(np.float32)
    w, b = fit_dual(x, target, weight, reg)
    assert w.dtype == (np.float32 if reg == 1.0 else np.float64)
    gram_in_full = (x.astype(float) @ x.astype(float).mT) if reg == 1.0 else (x @ x.mT).astype(float)
    alpha, _ = solve_dual(gram_in_full, target, weight, reg, logistic=True)
    exact = (x.mT.astype(float) @ alpha[..., None])[..., 0]
    assert (np.vecdot(w, exact) / np.linalg.norm(w, axis=1) / np.linalg.norm(exact, axis=1)).min() > 1 - 1e-7
    if reg == 1.0:
        assert decrement(x.astype(float), target, weight, reg, w.astype(float), b) < 1e-8
