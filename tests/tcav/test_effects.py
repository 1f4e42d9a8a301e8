import numpy as np
import pytest

from conceptcaps.errors import InputError
from conceptcaps.tcav.effects import (
    NEGLIGIBLE,
    UNDETERMINED,
    USED,
    counterfactual_effects,
    joint_effects,
    logit_effects,
    rank_agreement,
    regress,
    verdicts,
)


def correlated_tags(n: int, k: int, rng: np.random.Generator, phi: float = 0.0) -> np.ndarray:
    """Tag 1 copies tag 0 with probability phi; the others are coins."""
    tags = rng.random((n, k)) < 0.4
    copied = rng.random(n) < phi
    tags[copied, 1] = tags[copied, 0]
    return tags


def linear_world(n: int, phi: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Activations driven by 6 tags and noise, a linear head that reads tags 0 and 2 only."""
    rng = np.random.default_rng(seed)
    tags = correlated_tags(n, 6, rng, phi)
    patterns = np.linalg.qr(rng.normal(size=(32, 6)))[0].T
    activations = tags @ (2 * patterns) + rng.normal(size=(n, 32)) * 0.3 + 10
    gradient = (patterns[0] - patterns[2])[None]
    return activations, gradient, tags, np.array([1.0, 0, -1, 0, 0, 0])


@pytest.mark.parametrize("phi", [0.0, 0.6])
def test_used_tags_are_found_and_their_company_is_not(phi: float) -> None:
    activations, gradient, tags, truth = linear_world(800, phi, seed=0)
    logits = activations @ gradient.T
    effects = joint_effects(activations, gradient, tags, logits.std(0))
    np.testing.assert_allclose(effects.estimate[0], 2 * truth / logits.std(0), atol=0.12)
    verdict, *_ = verdicts(effects)
    assert list(verdict[0]) == [USED, NEGLIGIBLE, USED, NEGLIGIBLE, NEGLIGIBLE, NEGLIGIBLE]


def test_single_tag_difference_would_flag_the_company() -> None:
    activations, gradient, tags, _ = linear_world(800, 0.6, seed=0)
    logits = activations @ gradient.T
    alone = joint_effects(activations, gradient, tags[:, 1:2], logits.std(0))
    assert verdicts(alone)[0][0, 0] == USED


def test_shift_changes_nothing_and_scaling_cancels_with_its_gradient() -> None:
    activations, gradient, tags, _ = linear_world(300, 0.3, seed=1)
    sd = (activations @ gradient.T).std(0)
    one = joint_effects(activations, gradient, tags, sd)
    shifted = joint_effects(activations + 1e3, gradient, tags, sd)
    scaled = joint_effects(activations * 50, gradient / 50, tags, sd)
    np.testing.assert_allclose(one.estimate, shifted.estimate, atol=1e-8)
    np.testing.assert_allclose(one.estimate, scaled.estimate, atol=1e-8)
    np.testing.assert_allclose(one.error, scaled.error, atol=1e-8)


def test_linear_head_makes_joint_pattern_and_logit_baseline_agree() -> None:
    activations, gradient, tags, _ = linear_world(300, 0.3, seed=2)
    logits = activations @ gradient.T + 4
    joint = joint_effects(activations, gradient, tags, logits.std(0))
    baseline = logit_effects(logits, tags)
    np.testing.assert_allclose(joint.estimate, baseline.estimate, atol=1e-9)


def test_zero_null_is_calibrated_with_unequal_variances() -> None:
    rng = np.random.default_rng(3)
    flagged = []
    for _ in range(40):
        tags = rng.random((200, 10)) < 0.3
        noise = rng.normal(size=(200, 3)) * (1 + 3 * tags[:, :1])  # tag 0 changes the spread, nothing the mean
        flagged.append(regress(noise, tags).p_zero() < 0.05)
    assert 0.03 < np.mean(flagged) < 0.07


def test_interval_null_keeps_trifles_out_at_any_number_of_clips() -> None:
    rng = np.random.default_rng(4)
    tags = rng.random((20_000, 5)) < 0.5
    values = 0.05 * tags[:, :1] + rng.normal(size=(20_000, 1))
    effects = regress(values, tags)
    assert effects.p_zero()[0, 0] < 0.05
    assert verdicts(effects)[0][0, 0] == NEGLIGIBLE


def test_few_clips_leave_it_undetermined() -> None:
    rng = np.random.default_rng(5)
    tags = rng.random((40, 3)) < 0.5
    assert set(verdicts(regress(rng.normal(size=(40, 1)), tags))[0][0]) <= {UNDETERMINED}


def test_twin_tags_and_rare_tags_are_not_estimated() -> None:
    rng = np.random.default_rng(6)
    tags = rng.random((200, 5)) < 0.5
    tags[:, 1] = tags[:, 0]
    tags[:, 4] = False
    tags[:2, 4] = True
    effects = regress(rng.normal(size=(200, 2)), tags)
    assert np.isnan(effects.estimate[:, [0, 1, 4]]).all()
    assert np.isfinite(effects.estimate[:, [2, 3]]).all()
    assert set(verdicts(effects)[0][:, 0]) == {UNDETERMINED}


def test_too_many_tags_are_refused() -> None:
    tags = np.random.default_rng(7).random((40, 30)) < 0.5
    with pytest.raises(InputError, match="40 clips for 30 tags"):
        regress(np.zeros((40, 1)), tags)


def test_least_squares_and_hc3_match_the_textbook() -> None:
    rng = np.random.default_rng(8)
    tags = rng.random((60, 3)) < 0.5
    y = tags @ [1.0, -2, 0] + rng.normal(size=60)
    x = np.column_stack([np.ones(60), tags])
    bread = np.linalg.inv(x.T @ x)
    beta = bread @ x.T @ y
    leverage = np.einsum("ij,jk,ik->i", x, bread, x)
    meat = x.T @ (x * (((y - x @ beta) / (1 - leverage)) ** 2)[:, None])
    effects = regress(y[:, None], tags)
    np.testing.assert_allclose(effects.estimate[0], beta[1:])
    np.testing.assert_allclose(effects.error[0], np.sqrt(np.diag(bread @ meat @ bread))[1:])
    assert effects.dof == 56


def test_counterfactual_effects_are_paired() -> None:
    rng = np.random.default_rng(9)
    base = rng.normal(size=(24, 2)) * 10
    mean, error, dof = counterfactual_effects(base + np.array([1.0, 0]), base, np.array([2.0, 2.0]))
    np.testing.assert_allclose(mean, [0.5, 0], atol=1e-12)
    assert (error < 1e-9).all()
    assert dof == 23


def test_rank_agreement() -> None:
    assert rank_agreement(np.array([1.0, 2, 3, np.nan]), np.array([2.0, 4, 9, 1])) == pytest.approx(1)
    assert np.isnan(rank_agreement(np.ones(4), np.arange(4.0)))
