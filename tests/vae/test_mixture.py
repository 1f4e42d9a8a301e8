"""The default model: a normalised density that draws what it promises."""

import itertools

import numpy as np
import pytest
import torch

from conceptcaps.rundir import RunDir
from conceptcaps.vae.mixture import MixtureProposer, MixtureSettings, TagMixture, fit_mixture
from conceptcaps.vae.weights import FittedModel, read_model, write_model
from conceptcaps.vocabulary import Vocabulary

NONE = np.array([], dtype=np.int64)
EVERY_ROW = np.array(list(itertools.product([0, 1], repeat=6)), dtype=np.uint8)


@pytest.fixture
def model() -> TagMixture:
    model = TagMixture(6, members=2, components=3, seed=1)
    generator = torch.Generator().manual_seed(2)
    model.weight.data = torch.randn(2, 6, 6, generator=generator)
    model.mixing.data = torch.randn(2, 3, generator=generator)
    return model.eval()


def exact(model: TagMixture) -> np.ndarray:
    return model.log_likelihood(torch.from_numpy(EVERY_ROW).float()).exp().numpy()


def shares(matrix: np.ndarray) -> np.ndarray:
    return np.bincount(matrix @ (1 << np.arange(5, -1, -1)), minlength=64) / len(matrix)


def test_density_sums_to_one(model):
    assert exact(model).sum() == pytest.approx(1, abs=1e-5)


def test_draws_follow_the_density(model):
    drawn, log_weight = MixtureProposer(model).propose(np.random.default_rng(0), 200_000, NONE)
    assert not log_weight.any()
    np.testing.assert_allclose(shares(drawn), exact(model), atol=5e-3)


def test_weights_of_given_tags_are_exact(model):
    """Weighted draws estimate p(given tags) and the conditional distribution."""
    drawn, log_weight = MixtureProposer(model).propose(np.random.default_rng(0), 200_000, np.array([1, 4]))
    assert drawn[:, [1, 4]].all()
    holds = EVERY_ROW[:, [1, 4]].all(1)
    weights = np.exp(log_weight)
    assert weights.mean() == pytest.approx(exact(model)[holds].sum(), rel=0.02)
    weighted = np.bincount(drawn @ (1 << np.arange(5, -1, -1)), weights, minlength=64) / weights.sum()
    np.testing.assert_allclose(weighted[holds], exact(model)[holds] / exact(model)[holds].sum(), atol=1e-2)


def test_tilt_moves_one_tag(model):
    plain, _ = MixtureProposer(model).propose(np.random.default_rng(0), 20_000, NONE)
    tilt = np.array([0, 0, 3.0, 0, 0, 0])
    tilted, _ = MixtureProposer(model).tilted(tilt).propose(np.random.default_rng(0), 20_000, NONE)
    assert tilted[:, 2].mean() > plain[:, 2].mean() + 0.1


def test_fit_finds_dependence():
    rng = np.random.default_rng(0)
    one = rng.random(400) < 0.5
    matrix = np.stack([one, one, ~one, rng.random(400) < 0.3, rng.random(400) < 0.3, one], 1).astype(np.uint8)
    settings = MixtureSettings(members=2, components=2, epochs=15, weight_decay=1e-4, bias_decay=1e-4)
    model, facts = fit_mixture(matrix, settings, seed=0)
    independent = -sum(np.log(np.where(c, c.mean(), 1 - c.mean())).mean() for c in matrix.T)
    assert facts["validation_nats_per_row"] < independent - 1.5
    again, _ = fit_mixture(matrix, settings, seed=0)
    torch.testing.assert_close(model.weight, again.weight)


def test_comes_back_from_disk(model, tmp_path):
    vocabulary = Vocabulary.from_mapping({"genre": list("abc"), "mood": list("def")})
    run = RunDir(tmp_path)
    write_model(FittedModel.of(model, vocabulary, EVERY_ROW, epochs=3), run, "vae", "model.safetensors")
    back = read_model(run, "vae", "model.safetensors")
    assert back.vocabulary.tags == vocabulary.tags
    assert back.facts == {"epochs": 3}
    np.testing.assert_array_equal(back.sizes, [1, 6, 15, 20, 15, 6, 1])
    np.testing.assert_allclose(exact(back.model), exact(model))
