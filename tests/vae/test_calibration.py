"""Calibration and balancing: sampled rows have the frequencies and sizes that are asked for."""

import numpy as np
import pytest

from conceptcaps.vae.calibration import Targets, balanced, calibrate
from conceptcaps.vae.likelihood import sampler_log_likelihood
from conceptcaps.vae.mixture import MixtureProposer, TagMixture
from conceptcaps.vae.sampling import Rules, Sampler
from conceptcaps.vocabulary import Vocabulary

VOCABULARY = Vocabulary.from_mapping(
    {"genre": ["a", "b"], "mood": ["c", "d"], "instrument": ["e", "f"], "tempo": ["g"]}
)
RULES = Rules(VOCABULARY, min_categories=2)


@pytest.fixture
def model() -> TagMixture:
    return TagMixture(7, members=2, components=2, seed=1).eval()


def test_marginals_and_sizes_meet_their_targets(model):
    proposer = MixtureProposer(model)
    marginals = np.array([0.6, 0.1, 0.5, 0.2, 0.3, 0.4, 0.5])
    sizes = np.array([0, 0, 50, 40, 10])
    found = calibrate(proposer, RULES, Targets(marginals, sizes), seed=0)
    rows = Sampler(proposer.tilted(found.tilt), RULES, 0, found.size_log_ratio).rows(0, 20_000)
    np.testing.assert_allclose(rows.mean(0), marginals, atol=0.05)
    assert np.bincount(rows.sum(1), minlength=5)[2:5] / len(rows) == pytest.approx([0.5, 0.4, 0.1], abs=0.08)


def test_nothing_asked_changes_nothing(model):
    found = calibrate(MixtureProposer(model), RULES, Targets(), seed=0)
    assert not found.tilt.any()
    assert not found.size_log_ratio.any()


def test_sampler_density_sums_to_one(model):
    proposer = MixtureProposer(model)
    found = calibrate(proposer, RULES, Targets(np.full(7, 0.4), np.array([0, 0, 5, 3, 1])), seed=0)
    every_row = ((np.arange(128)[:, None] >> np.arange(7)) & 1).astype(np.uint8)
    logs = sampler_log_likelihood(model, proposer, found, RULES, every_row, 1, seed=0)
    assert np.isneginf(logs[~RULES.admits(every_row)]).all()
    assert np.exp(logs).sum() == pytest.approx(1, abs=0.02)


def test_balancing_keeps_set_size_and_lifts_rare_tags():
    marginals = np.array([0.5, 0.3, 0.01, 0.001])
    tempered = balanced(marginals, rarity_temperature=2)
    assert tempered.sum() == pytest.approx(marginals.sum())
    assert (np.diff(tempered) < 0).all()
    assert tempered[3] > 5 * marginals[3]
    np.testing.assert_allclose(balanced(marginals), marginals)
    assert balanced(marginals, min_share=0.02).min() == 0.02
