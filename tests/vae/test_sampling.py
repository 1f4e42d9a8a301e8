"""Sampled tag sets: rules, conditioning, and rows that depend on (seed, index) alone."""

import numpy as np
import pytest

from conceptcaps.contradictions import Contradictions
from conceptcaps.errors import InputError
from conceptcaps.vae import sampling
from conceptcaps.vae.model import BetaVAE
from conceptcaps.vocabulary import Vocabulary

VOCABULARY = Vocabulary.from_mapping(
    {
        "genre": ["rock", "jazz"],
        "mood": ["happy", "sad"],
        "instrument": ["piano", "violin"],
        "tempo": ["slow tempo", "fast tempo"],
    }
)
CONTRADICTIONS = Contradictions.for_vocabulary(VOCABULARY)


def model(scale: float = 4.0) -> BetaVAE:
    vae = BetaVAE(len(VOCABULARY), 6, 2, 0.0, seed=2).eval()
    vae.decoder_out.weight.data *= scale
    vae.decoder_hidden.weight.data *= scale
    return vae


def sampler(seed: int = 0, proposer=None, **rules) -> sampling.Sampler:
    proposer = proposer or sampling.VaeProposer(model())
    return sampling.Sampler(proposer, sampling.Rules(VOCABULARY, **rules), seed)


def frequencies(matrix: np.ndarray) -> np.ndarray:
    """Of each of the 2^8 sets."""
    return np.bincount(matrix @ (1 << np.arange(8)), minlength=256) / len(matrix)


def test_every_rule_holds():
    rows = sampler(contradictions=CONTRADICTIONS, min_categories=3, max_tags=4).rows(0, 5000)
    assert CONTRADICTIONS.pairs.any()
    assert not CONTRADICTIONS.violations(rows).any()
    assert VOCABULARY.num_categories(rows).min() == 3
    assert rows.sum(1).max() == 4


@pytest.mark.parametrize("given", [("jazz",), ("jazz", "violin", "slow tempo")])
def test_seed_tags_condition_exactly(given):
    """Agrees with plain rejection from the unconditioned model, which overwriting tags would not."""
    conditioned = sampler(given=given).rows(0, 20_000)
    plain = sampler(seed=1).rows(0, 200_000)
    columns = [VOCABULARY.index[t] for t in given]
    wanted = plain[plain[:, columns].all(1)]
    assert len(wanted) > 1000
    noise = 0.5 * np.sqrt(2 * 2**5 / np.pi / min(len(wanted), len(conditioned)))
    distance = 0.5 * np.abs(frequencies(conditioned) - frequencies(wanted)).sum()
    assert distance < 3 * noise
    overwritten = plain.copy()
    overwritten[:, columns] = 1
    assert 0.5 * np.abs(frequencies(overwritten) - frequencies(wanted)).sum() > 3 * noise


def test_a_row_depends_on_seed_and_index_only():
    one, other = sampler(seed=3), sampler(seed=3)
    few, many = one.rows(0, 100), other.rows(0, 9000)
    np.testing.assert_array_equal(few, many[:100])
    np.testing.assert_array_equal(one.rows(5000, 6000), many[5000:6000])
    assert (sampler(seed=4).rows(0, 100) != few).any()


def test_threshold_sets_probable_tags_only():
    proposer = sampling.VaeProposer(model(), method="threshold", threshold=0.9)
    rng = np.random.Generator(np.random.Philox(0))
    low, _ = sampling.VaeProposer(model(), method="threshold", threshold=0.1).propose(rng, 500, np.array([], int))
    rng = np.random.Generator(np.random.Philox(0))
    high, _ = proposer.propose(rng, 500, np.array([], int))
    assert (high <= low).all()
    assert high.sum() < low.sum()


def test_temperature_flattens():
    def entropy(temperature):
        rows = sampler(proposer=sampling.VaeProposer(model(), temperature=temperature)).rows(0, 4096)
        share = frequencies(rows)
        return -(share[share > 0] * np.log(share[share > 0])).sum()

    assert entropy(0.25) < entropy(1.0) < entropy(4.0)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"given": ("flute",)}, "not in the vocabulary"),
        ({"given": ("slow tempo", "fast tempo"), "contradictions": CONTRADICTIONS}, "contradict each other"),
        ({"given": ("rock", "happy"), "max_tags": 1}, "more than max_tags"),
        ({"min_categories": 4, "max_tags": 3}, "satisfies every rule"),
    ],
)
def test_impossible_rules_are_refused(rules, message):
    with pytest.raises(InputError, match=message):
        sampler(**rules)
