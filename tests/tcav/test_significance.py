import numpy as np
import pytest
from scipy import stats

from conceptcaps.tcav.significance import (
    benjamini_hochberg,
    equivalence_p,
    mean_interval,
    minimum_effect_p,
    point_null_p,
    welch_p,
    wilson_interval,
)


def test_benjamini_hochberg_matches_scipy_and_skips_unknowns() -> None:
    p = np.random.default_rng(0).random((5, 8)) ** 3
    np.testing.assert_allclose(benjamini_hochberg(p), stats.false_discovery_control(p.ravel()).reshape(5, 8))
    holed = p.copy()
    holed[0, 0] = np.nan
    q = benjamini_hochberg(holed)
    assert np.isnan(q[0, 0])
    np.testing.assert_allclose(q.ravel()[1:], stats.false_discovery_control(p.ravel()[1:]))


@pytest.mark.parametrize("effect", [-0.1, 0.0, 0.1])
def test_minimum_effect_holds_its_level_over_the_whole_null(effect: float) -> None:
    estimates = effect + 0.05 * np.random.default_rng(1).standard_t(50, 20_000)
    assert (minimum_effect_p(estimates, np.full(20_000, 0.05), 50, 0.1) < 0.05).mean() < 0.055


def test_minimum_effect_without_bound_is_the_usual_test() -> None:
    estimate, error = np.array([-0.2, 0.1]), np.array([0.1, 0.1])
    np.testing.assert_allclose(minimum_effect_p(estimate, error, 30, 0.0), point_null_p(estimate, error, 30))


def test_equivalence_holds_its_level_at_the_bound_and_finds_zero() -> None:
    rng = np.random.default_rng(2)
    at_bound = 0.1 + 0.02 * rng.standard_t(50, 20_000)
    at_zero = 0.02 * rng.standard_t(50, 20_000)
    error = np.full(20_000, 0.02)
    assert (equivalence_p(at_bound, error, 50, 0.1) < 0.05).mean() < 0.055
    assert (equivalence_p(at_zero, error, 50, 0.1) < 0.05).mean() > 0.95


def test_wilson_interval_matches_scipy() -> None:
    low, high = wilson_interval(np.array([0.8]), np.array([50]))
    reference = stats.binomtest(40, 50).proportion_ci(method="wilson")
    np.testing.assert_allclose([low[0], high[0]], [reference.low, reference.high])


def test_wilson_interval_holds_its_share_at_the_ends() -> None:
    count = np.arange(1, 400)
    assert (wilson_interval(np.zeros(399), count)[0] == 0).all()
    assert (wilson_interval(np.ones(399), count)[1] == 1).all()
    assert np.isnan(wilson_interval(np.array([np.nan]), np.array([0]))).all()


def test_welch_and_mean_interval() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(1, 1, (20, 2)), rng.normal(0, 1, (20, 2))
    np.testing.assert_allclose(welch_p(a, b), stats.ttest_ind(a, b, equal_var=False).pvalue)
    same = np.ones((5, 1))
    assert welch_p(same, same)[0] == 1
    assert welch_p(same, 0 * same)[0] == 0
    low, high = mean_interval(a)
    assert (low < a.mean(0)).all()
    assert (high > a.mean(0)).all()
    assert np.isnan(mean_interval(a[:1])[0]).all()
