"""The logits processor by itself: what vLLM tells it of its batch, and what it then draws."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("vllm", reason="vLLM is an optional extra")

from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality

from conceptcaps.captions.vllm import seeded_sampling
from conceptcaps.captions.vllm_sampler import SeededNucleus
from conceptcaps.config.captions import CaptionsConfig

CONFIG = CaptionsConfig(engine="vllm")
CPU = torch.device("cpu")


def request(index: int, seed: int, said: list[int]) -> tuple:
    return index, SamplingParams(**seeded_sampling(CONFIG, seed)), None, said


def drawn(sampler: SeededNucleus, logits: torch.Tensor) -> list[int]:
    return sampler.apply(logits.clone()).argmax(-1).tolist()


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(3, 50, generator=torch.Generator().manual_seed(2))


def test_rows_keep_their_draws_when_the_batch_is_rearranged(logits):
    sampler, said = SeededNucleus(None, CPU, False), [[], [7], [7, 8]]
    sampler.update_state(BatchUpdate(3, [], [request(i, 10 + i, said[i]) for i in range(3)], []))
    before = drawn(sampler, logits)
    sampler.update_state(None)
    assert drawn(sampler, logits) == before
    sampler.update_state(BatchUpdate(3, [], [], [(0, 2, MoveDirectionality.SWAP)]))
    assert drawn(sampler, logits[[2, 1, 0]]) == before[::-1]
    sampler.update_state(BatchUpdate(2, [0], [], [(2, 0, MoveDirectionality.UNIDIRECTIONAL)]))
    assert drawn(sampler, logits[:2]) == before[:2]


def test_the_next_token_is_another_draw(logits):
    sampler, said = SeededNucleus(None, CPU, False), [[], [], []]
    sampler.update_state(BatchUpdate(3, [], [request(i, i, said[i]) for i in range(3)], []))
    draws = []
    for token in range(20):
        draws.append(tuple(drawn(sampler, logits)))
        for words in said:
            words.append(token)
    assert len(set(draws)) > 10


def test_other_requests_are_left_alone(logits):
    sampler = SeededNucleus(None, CPU, False)
    assert torch.equal(sampler.apply(logits.clone()), logits)
    plain = (0, SamplingParams(temperature=0.0), None, [])
    sampler.update_state(BatchUpdate(3, [], [plain, request(1, 1, []), (2, SamplingParams(), None, [])], []))
    after = sampler.apply(logits.clone())
    assert torch.equal(after[[0, 2]], logits[[0, 2]])
    assert not torch.equal(after[1], logits[1])
