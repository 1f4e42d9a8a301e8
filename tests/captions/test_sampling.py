from __future__ import annotations

import pytest
import torch
from goodness_of_fit import p_value
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from conceptcaps.captions.sampling import draw, nucleus

NUM_DRAWS = 40_000


def reference(logits: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """Probabilities (rows, vocabulary) that transformers samples from."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature), TopPLogitsWarper(top_p)])
    return warpers(torch.zeros(len(logits), 1, dtype=torch.int64), logits.clone()).softmax(-1)


def of(value: float, rows: int) -> torch.Tensor:
    return torch.full((rows,), value)


@pytest.mark.parametrize("spread", [0.0, 0.3, 3.0, 12.0])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.999, 1.0])
def test_the_nucleus_is_that_of_transformers(spread, top_p):
    # In double precision, so that rounding moves no token over the nucleus' edge.
    logits = torch.randn(50, 300, generator=torch.Generator().manual_seed(1)).double() * spread
    values, tokens = nucleus(logits, of(top_p, 50).double())
    found = torch.zeros_like(logits).scatter(1, tokens, values.softmax(-1))
    if spread:
        torch.testing.assert_close(found, reference(logits, 1.0, top_p))
    else:  # all tokens are as likely: none is preferred
        torch.testing.assert_close(found, torch.full_like(logits, 1 / 300))


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.9), (1.5, 0.6)])
def test_draws_follow_the_distribution_of_transformers(temperature, top_p):
    logits = torch.randn(1, 64, generator=torch.Generator().manual_seed(3)) * 2
    seeds, places = torch.arange(NUM_DRAWS), torch.zeros(NUM_DRAWS, dtype=torch.int64)
    drawn = draw(logits.expand(NUM_DRAWS, -1), seeds, places, of(temperature, NUM_DRAWS), of(top_p, NUM_DRAWS))
    assert p_value(drawn, reference(logits, temperature, top_p)[0]) > 0.001


def test_a_row_draws_the_same_whatever_stands_beside_it():
    source = torch.Generator().manual_seed(5)
    logits, seeds = torch.randn(40, 200, generator=source), torch.randint(2**31, (40,), generator=source)
    logits[1] *= 0.01  # as wide a nucleus as there can be: it widens every row's search
    places, temperature, top_p = torch.arange(40), of(0.8, 40), of(0.95, 40)
    together = draw(logits, seeds, places, temperature, top_p)
    alone = [draw(*(a[i : i + 1] for a in (logits, seeds, places, temperature, top_p))) for i in range(40)]
    assert together.tolist() == [int(token) for token in alone]


def test_places_of_a_caption_draw_apart():
    logits = torch.zeros(1, 1000).expand(200, -1)
    drawn = draw(logits, torch.zeros(200, dtype=torch.int64), torch.arange(200), of(1.0, 200), of(1.0, 200))
    assert len(set(drawn.tolist())) > 150


def test_rows_may_differ_in_their_settings():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2]])).expand(3000, -1)
    seeds, places = torch.arange(3000), torch.zeros(3000, dtype=torch.int64)
    top_p = torch.tensor([0.4, 0.7, 1.0]).repeat(1000)
    drawn = draw(logits, seeds, places, of(1.0, 3000), top_p).reshape(1000, 3)
    assert [sorted(set(column.tolist())) for column in drawn.T] == [[0], [0, 1], [0, 1, 2]]
