import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeClassifier

from conceptcaps.errors import InputError
from conceptcaps.tcav.cav import Problems, accuracy, cosines, fit_cavs


def problems_of(num_clips: int, sizes: list[int], seed: int, held_out: float = 0.25) -> tuple[Problems, np.ndarray]:
    """Problems of different sizes, padded; labels follow a hidden direction with noise."""
    rng = np.random.default_rng(seed)
    width = max(sizes)
    clips, labels = np.full((len(sizes), width), -1), np.zeros((len(sizes), width), bool)
    held = np.zeros((len(sizes), width), bool)
    for row, size in enumerate(sizes):
        clips[row, :size] = rng.permutation(num_clips)[:size]
        labels[row, :size] = rng.random(size) < 0.5
        held[row, : round(size * held_out)] = True
    return Problems(clips, labels, held), labels


def clips_with_concepts(problems: Problems, num_clips: int, dim: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_clips, dim)) @ rng.normal(size=(dim, dim)) * rng.uniform(0.01, 30, dim) + 5
    for row in range(len(problems)):
        mine = problems.clips[row][problems.labels[row] & (problems.clips[row] >= 0)]
        x[mine] += x.std(0) * rng.normal(size=dim) * 0.3
    return x


@pytest.mark.parametrize("dim", [12, 150])
@pytest.mark.parametrize("reg", [0.01, 1.0])
def test_logistic_agrees_with_scikit_learn_in_both_forms(dim: int, reg: float) -> None:
    problems, _ = problems_of(200, [40, 60, 83], seed=1)
    x = clips_with_concepts(problems, 200, dim, seed=2)
    cavs = fit_cavs(x, problems, regularisation=reg)
    scale = x.std(0)
    for row in range(len(problems)):
        train = problems.clips[row][problems.train[row]]
        y = problems.labels[row][problems.train[row]]
        reference = LogisticRegression(C=1 / reg, tol=1e-10, max_iter=100_000).fit((x[train] - x.mean(0)) / scale, y)
        raw = reference.coef_[0] / scale
        assert cavs.vectors[row] @ raw / np.linalg.norm(raw) > 0.99999
        test = problems.clips[row][problems.test[row]]
        expected = reference.predict((x[test] - x.mean(0)) / scale) == problems.labels[row][problems.test[row]]
        assert (cavs.correct[row][problems.test[row]] == expected).all()


@pytest.mark.parametrize("dim", [12, 150])
def test_ridge_agrees_with_scikit_learn(dim: int) -> None:
    problems, _ = problems_of(200, [40, 64], seed=3)
    x = clips_with_concepts(problems, 200, dim, seed=4)
    cavs = fit_cavs(x, problems, method="ridge", regularisation=2.0)
    for row in range(len(problems)):
        train = problems.clips[row][problems.train[row]]
        fitted = RidgeClassifier(alpha=2.0).fit(
            (x[train] - x.mean(0)) / x.std(0), problems.labels[row][problems.train[row]].astype(int)
        )
        raw = fitted.coef_.ravel() / x.std(0)
        assert cavs.vectors[row] @ raw / np.linalg.norm(raw) > 0.999999


def test_separable_problem_with_hardly_any_penalty_still_converges() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 60))
    labels = np.repeat([True, False], 20)[None]
    x[:20] += 3
    problems = Problems(np.arange(40)[None], labels, np.zeros((1, 40), bool))
    cavs = fit_cavs(x, problems, regularisation=1e-6)
    assert np.isfinite(cavs.vectors).all()
    assert cavs.correct.all()


def test_pattern_points_at_the_concept_where_the_filter_turns_from_a_distractor() -> None:
    rng = np.random.default_rng(5)
    labels = rng.random(2000) < 0.5
    noise = rng.normal(size=2000) * 3
    x = np.stack([labels + noise, noise, rng.normal(size=2000)], 1)  # concept moves unit 0 only; unit 1 explains noise
    problems = Problems(np.arange(2000)[None], labels[None], np.zeros((1, 2000), bool))
    truth = np.array([1.0, 0, 0])
    pattern = fit_cavs(x, problems, method="pattern").vectors[0]
    weights = fit_cavs(x, problems).vectors[0]
    assert pattern @ truth > 0.95
    assert weights @ truth < 0.8


@pytest.mark.parametrize("method", ["logistic", "ridge"])
def test_shift_and_common_scale_of_activations_change_nothing(method: str) -> None:
    problems, _ = problems_of(120, [50, 50], seed=6)
    x = clips_with_concepts(problems, 120, 30, seed=7)
    one = fit_cavs(x, problems, method=method)
    other = fit_cavs(7.0 * x + 100.0, problems, method=method)
    np.testing.assert_allclose(one.vectors, other.vectors, atol=1e-6)
    assert (one.correct == other.correct).all()


def test_scaling_one_unit_scales_its_weight_inversely() -> None:
    problems, _ = problems_of(120, [60], seed=8)
    x = clips_with_concepts(problems, 120, 8, seed=9)
    factors = np.array([1.0, 10, 0.1, 1, 1, 1, 1, 1])
    one, other = fit_cavs(x, problems).vectors[0], fit_cavs(x * factors, problems).vectors[0]
    ratio = other * factors / one
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)


def test_accuracy_is_on_held_out_clips_and_balanced() -> None:
    rng = np.random.default_rng(10)
    x = rng.normal(size=(300, 200))
    labels = np.arange(300) % 3 == 0  # pure noise, one third positive: 67% by always saying no
    held = rng.random(300) < 0.4
    problems = Problems(np.arange(300)[None], labels[None], held[None])
    cavs = fit_cavs(x, problems, regularisation=1e-3)
    assert cavs.correct[0][~held].mean() > 0.95
    assert abs(accuracy(cavs, problems)[0] - 0.5) < 0.15


def test_constant_unit_gets_no_weight() -> None:
    problems, _ = problems_of(60, [40], seed=11)
    x = np.random.default_rng(11).normal(size=(60, 5))
    x[:, 2] = 4.0
    assert fit_cavs(x, problems).vectors[0, 2] == 0


def test_activations_that_are_not_finite_are_refused_by_clip() -> None:
    problems, _ = problems_of(60, [40], seed=12)
    x = np.random.default_rng(12).normal(size=(60, 5))
    x[17, 1] = np.nan
    with pytest.raises(InputError, match=r"clip 17.*not finite"):
        fit_cavs(x, problems)
    with pytest.raises(InputError, match="same for all clips"):
        fit_cavs(np.ones((60, 5)), problems)


def test_cosines() -> None:
    table = cosines(np.array([[1.0, 0], [2, 2], [0, 0]]))
    np.testing.assert_allclose(table[0], [1, np.sqrt(0.5), 0])


@pytest.mark.parametrize("method", ["logistic", "ridge", "pattern"])
def test_single_precision_is_enough_for_products_of_single_precision_activations(method):
    rng = np.random.default_rng(11)
    activations = (rng.normal(size=(200, 48)) * 10.0 ** rng.uniform(-2, 2, 48) + 5).astype(np.float32)
    clips = np.stack([rng.permutation(200)[:40] for _ in range(6)])
    labels = np.broadcast_to(np.arange(40) < 20, clips.shape).copy()
    problems = Problems(clips, labels, np.zeros_like(labels))
    exact, found = (fit_cavs(a, problems, method=method).vectors for a in (activations.astype(float), activations))
    assert (exact * found).sum(1).min() > 1 - 1e-8
