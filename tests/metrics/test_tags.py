"""Distances between collections of tag sets: identities, known values, order and direction."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from conceptcaps.metrics import tags as metrics

RNG = np.random.default_rng(0)
REAL = (RNG.random((300, 12)) < np.linspace(0.05, 0.6, 12)).astype(np.uint8)
REAL[:, 1] = REAL[:, 0]
NEAR = REAL[RNG.integers(0, 300, 280)]
FAR = (RNG.random((280, 12)) < 0.5).astype(np.uint8)

LOWER = [
    metrics.marginal_js,
    metrics.size_wasserstein,
    metrics.size_ks,
    metrics.cooccurrence_kl,
    metrics.cooccurrence_hellinger,
    lambda a, b: metrics.mmd(metrics.mmd_kernels(a, b)),
]
HIGHER = [
    metrics.marginal_pearson,
    metrics.marginal_spearman,
    metrics.cooccurrence_pearson,
    metrics.association_pearson,
]


@pytest.mark.parametrize("metric", LOWER)
def test_distances_grow(metric):
    assert metric(REAL, NEAR) < metric(REAL, FAR)


@pytest.mark.parametrize("metric", HIGHER)
def test_similarities_fall(metric):
    assert metric(REAL, REAL) == pytest.approx(1)
    assert metric(REAL, NEAR) > metric(REAL, FAR)


@pytest.mark.parametrize("metric", LOWER[:3] + LOWER[4:])
def test_distances_are_symmetric(metric):
    if metric is not LOWER[-1]:
        assert metric(REAL, FAR) == pytest.approx(metric(FAR, REAL))
        assert metric(REAL, REAL) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("metric", LOWER + HIGHER)
def test_row_order_does_not_matter(metric):
    assert metric(REAL, FAR) == pytest.approx(metric(REAL[::-1], RNG.permutation(FAR)))


def test_wasserstein_counts_tags():
    one, two = np.eye(4, dtype=np.uint8), np.eye(4, dtype=np.uint8) | np.roll(np.eye(4, dtype=np.uint8), 1, 1)
    assert metrics.size_wasserstein(one, two) == 1
    assert metrics.size_ks(one, two) == 1


def test_marginal_js_of_disjoint_tags_is_one_bit():
    one, other = np.array([[1, 0]], np.uint8), np.array([[0, 1]], np.uint8)
    assert metrics.marginal_js(one, other) == pytest.approx(1)


def test_chi_square_agrees_with_scipy():
    p_values, adjusted = metrics.marginal_tests(REAL, FAR)
    for j in (0, 5):
        table = [[m[:, j].sum(), len(m) - m[:, j].sum()] for m in (REAL, FAR)]
        assert p_values[j] == pytest.approx(stats.chi2_contingency(table, correction=False).pvalue)
    assert (adjusted >= p_values).all()
    absent = np.zeros_like(REAL)
    assert (metrics.marginal_tests(absent, absent)[0] == 1).all()


def test_phi_is_the_correlation():
    expected = np.corrcoef(REAL[:, 2], REAL[:, 3])[0, 1]
    assert metrics.phi(REAL)[2, 3] == pytest.approx(expected)
    assert metrics.phi(REAL)[0, 1] == pytest.approx(1)


def test_pmi_of_a_copied_tag():
    share = REAL[:, 0].mean()
    assert metrics.pmi(REAL, smoothing=0)[0, 1] == pytest.approx(-np.log(share))


def test_supported_pairs_count_seen_and_expected():
    mask = metrics.supported_pairs(REAL, 5)
    assert not np.tril(mask).any()
    rare = np.zeros((100, 3), np.uint8)
    rare[:50, 0], rare[50:, 1], rare[0, 2] = 1, 1, 1
    assert metrics.supported_pairs(rare, 5).sum() == 1


def test_pairs_of_categories_partition_all_pairs():
    groups = np.repeat([0, 1, 2], 4)
    masks = [metrics.pair_mask(12, groups, (i, j)) for i in range(3) for j in range(i, 3)]
    np.testing.assert_array_equal(sum(m.astype(int) for m in masks), metrics.pair_mask(12).astype(int))


@pytest.mark.parametrize("kind", ["logistic", "trees"])
def test_classifier_tells_far_rows_only(kind):
    same = metrics.auc(*metrics.classifier_scores(REAL[:150], REAL[150:], kind, 0))
    far = metrics.auc(*metrics.classifier_scores(REAL, FAR, kind, 0))
    assert same < 0.62
    assert far > 0.75


def test_auc_agrees_with_sklearn():
    scores, labels = np.round(RNG.random(60), 1), RNG.random(60) < 0.4
    assert metrics.auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))


def test_mmd_is_unbiased():
    values = []
    for seed in range(40):
        order = np.random.default_rng(seed).permutation(300)
        values.append(metrics.mmd(metrics.mmd_kernels(REAL[order[:150]], REAL[order[150:]])))
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(40) + 1e-4


def test_mmd_weights_leave_rows_out():
    kernels = metrics.mmd_kernels(REAL, FAR)
    weights = (np.arange(300) < 100).astype(float)
    expected = metrics.mmd((kernels[0][:100, :100], kernels[1][:100], kernels[2]))
    assert metrics.mmd(kernels, weights) == pytest.approx(expected)


def test_diversity():
    known = np.array([[1, 1, 0, 0], [0, 0, 1, 1]], np.uint8)
    made = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], np.uint8)
    assert metrics.unique_share(made) == 0.75
    assert metrics.novel_share(made, known) == 0.75
    np.testing.assert_allclose(metrics.nearest_jaccard(made, known), [1, 0.5, 0.5, 0])
