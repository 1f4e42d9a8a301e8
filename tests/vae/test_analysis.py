"""Measures of the latent space."""

import numpy as np
import pytest

from conceptcaps.vae import analysis
from conceptcaps.vae.model import BetaVAE
from conceptcaps.vocabulary import Vocabulary

VOCABULARY = Vocabulary.from_mapping({"genre": ["rock", "jazz"], "mood": ["sad"], "instrument": [], "tempo": []})


def test_active_units_are_those_that_vary():
    means = np.zeros((50, 3), np.float32)
    means[:, 1] = np.linspace(-1, 1, 50)
    means[:, 2] = 0.01 * np.linspace(-1, 1, 50)
    assert analysis.active_units(means) == 1


def test_silhouette_is_high_for_separate_genres():
    matrix = VOCABULARY.encode([["rock"]] * 20 + [["jazz"]] * 20)
    apart = np.concatenate([np.zeros((20, 2)), np.ones((20, 2))]) + np.random.default_rng(0).normal(0, 0.01, (40, 2))
    overall, by_genre = analysis.genre_silhouettes(apart, matrix, VOCABULARY)
    assert overall > 0.9
    assert set(by_genre) == {"rock", "jazz"}
    assert overall == pytest.approx(np.mean(list(by_genre.values())))
    assert analysis.genre_silhouettes(np.full((40, 2), 0.5), matrix, VOCABULARY)[0] < 0.1
    one, none = analysis.genre_silhouettes(apart[:20], matrix[:20], VOCABULARY)
    assert np.isnan(one)
    assert none == {}


def test_genre_is_the_commonest_of_a_row():
    matrix = VOCABULARY.encode([["rock", "jazz"], ["rock"], ["sad"]])
    assert analysis.genre_of(matrix, VOCABULARY).tolist() == [0, 0, -1]


def test_reconstruction_counts_tags():
    model = BetaVAE(3, 4, 2, 0.0, seed=0).eval()
    for parameter in model.parameters():
        parameter.data.zero_()
    model.decoder_out.bias.data[..., 0] = 9
    model.decoder_out.bias.data[..., 1:] = -9
    found = analysis.reconstruction(model, np.array([[1, 0, 0], [1, 1, 0]], np.uint8))
    assert (found["precision"], found["recall"]) == (1, 2 / 3)
    assert (found["exact_match"], found["hamming"]) == (0.5, 0.5)


def test_projections_have_two_dimensions():
    means = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    for method in ("pca", "tsne"):
        assert analysis.project(means, method, 0).shape == (30, 2)


@pytest.mark.served
def test_umap_is_seeded():
    pytest.importorskip("umap")
    means = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    points = analysis.project(means, "umap", 0)
    assert points.shape == (30, 2)
    np.testing.assert_array_equal(points, analysis.project(means, "umap", 0))


def test_describe_reports_every_measure():
    model = BetaVAE(3, 4, 2, 0.0, seed=0).eval()
    matrix = VOCABULARY.encode([["rock"], ["jazz", "sad"]] * 6)
    found = analysis.describe_vae(model, matrix, VOCABULARY, 20, 0)
    assert found["validation_nats_per_row"] <= found["elbo_nats_per_row"] + 0.5
    assert {"kl_nats_per_row", "active_units", "silhouette_genre", "f1", "exact_match"} <= set(found)
