from __future__ import annotations

import numpy as np
import pytest
import torch
from goodness_of_fit import p_value
from scipy.stats import kstest
from transformers import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.generation import ClassifierFreeGuidanceLogitsProcessor

from conceptcaps.audio.sampling import Sampling, guide, row_keys, sample
from conceptcaps.counter_random import gumbel, mix

NUM_DRAWS = 40_000


def reference(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Probabilities that transformers samples from, for (1, vocabulary) logits."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    if sampling.top_p:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    elif sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    return warpers(torch.zeros(1, 1, dtype=torch.int64), logits).softmax(-1)[0]


def draw(logits: torch.Tensor, sampling: Sampling, seed: int = 0) -> torch.Tensor:
    seeds = torch.arange(NUM_DRAWS) + seed * NUM_DRAWS
    keys = row_keys(seeds, torch.zeros(1, 1, dtype=torch.int64), 1)[0]
    return sample(logits.expand(NUM_DRAWS, 1, -1), keys, sampling)[:, 0]


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(top_k=0),
        Sampling(top_k=10),
        Sampling(top_k=10, temperature=0.6),
        Sampling(top_p=0.8, temperature=1.4),
    ],
)
def test_draws_follow_the_distribution_of_the_reference(sampling: Sampling) -> None:
    logits = torch.randn(1, 64, generator=torch.Generator().manual_seed(3)) * 2
    assert p_value(draw(logits, sampling), reference(logits, sampling)) > 0.001


def test_a_wrong_distribution_is_noticed() -> None:
    logits = torch.randn(1, 64, generator=torch.Generator().manual_seed(3)) * 2
    wrong = reference(logits, Sampling(top_k=0, temperature=1.05))
    assert p_value(draw(logits, Sampling(top_k=0)), wrong) < 1e-6


def test_top_k_one_is_greedy() -> None:
    logits = torch.randn(5, 4, 64)
    keys = row_keys(torch.arange(5), torch.zeros(1, 4, dtype=torch.int64), 4)[0]
    assert torch.equal(sample(logits, keys, Sampling(top_k=1)), logits.argmax(-1))


def test_guidance_is_the_reference_s() -> None:
    logits = torch.randn(6, 10)
    processed = ClassifierFreeGuidanceLogitsProcessor(2.5)(torch.zeros(3, 1, dtype=torch.int64), logits)
    assert torch.equal(guide(logits, 2.5), processed)


def test_splitmix_known_answers() -> None:
    # The first outputs of the published SplitMix64 for seed 1234567.
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    state = torch.tensor([(1234567 + (i + 1) * 0x9E3779B97F4A7C15) % 2**64 for i in range(4)], dtype=torch.uint64)
    assert [value % 2**64 for value in mix(state.view(torch.int64)).tolist()] == known


def test_noise_is_gumbel_and_finite() -> None:
    keys = row_keys(torch.arange(500), torch.arange(4)[:, None], 1).flatten()
    noise = gumbel(keys, torch.arange(100).expand(len(keys), 100))
    assert torch.isfinite(noise).all()
    assert kstest(noise.flatten().numpy()[::7], "gumbel_r").pvalue > 0.001
    assert abs(np.corrcoef(noise[:, 0], noise[:, 1])[0, 1]) < 0.08


def test_streams_of_neighbours_differ() -> None:
    frames = torch.arange(200)[:, None].expand(200, 4)
    keys = row_keys(torch.arange(50), frames, 4)
    assert keys.unique().numel() == 200 * 50 * 4


def test_a_draw_depends_on_its_own_seed_only() -> None:
    logits = torch.randn(8, 4, 300)
    keys = row_keys(torch.arange(8) + 7, torch.ones(1, 4, dtype=torch.int64), 4)[0]
    drawn = sample(logits, keys, Sampling(top_k=50))
    order = torch.randperm(8)[:3]
    assert torch.equal(sample(logits[order], keys[order], Sampling(top_k=50)), drawn[order])
