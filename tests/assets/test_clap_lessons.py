"""The text tower's lessons: where a text should lie, and that it gets there while the audio tower stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize
from transformers import AutoTokenizer, ClapModel

from conceptcaps.alignment.clap import EMBEDDED
from conceptcaps.assets.build_clap import model_config
from conceptcaps.assets.clap_corpus import Index, attributes, tokenise
from conceptcaps.assets.clap_lessons import Lesson, by_contrast, by_regression, expected, read, teach
from conceptcaps.assets.clap_texts import Statements


def test_expected_embeddings_are_found_where_they_are_linear_in_what_clips_have():
    draws = torch.Generator().manual_seed(0)
    has = (torch.rand(300, 6, generator=draws) < 0.4).float()
    audio = normalize(has @ torch.randn(6, 16, generator=draws) + torch.randn(16, generator=draws), dim=1)
    found = expected(has, audio, has, penalty=1e-3)
    assert found.norm(dim=1) == pytest.approx(1, abs=1e-5)
    assert float((found * audio).sum(1).mean()) > 0.95
    assert float((found * audio.roll(1, 0)).sum(1).mean()) < 0.8


def test_likely_attributes_are_those_of_most_arrangements():
    index = Index.of([attributes(["techno"], seed) for seed in range(20)] + [attributes(["flute"], 0)])
    likely = index.likely(["flute", "no percussion"], 8)
    assert float(likely[index.numbers["plays flute"]]) == 1
    assert float(likely[index.numbers["percussion"]]) == 0
    assert ((likely > 0) & (likely < 1)).any()


def test_losses_are_least_where_texts_should_lie():
    wanted = normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    tokens = 2 + torch.arange(5).view(5, 1, 1)  # every set has one text, of one token that tells it
    there, opposite = (lambda ids, sign=sign: sign * wanted[ids[:, 0] - 2] for sign in (1, -1))
    rows, rng = torch.arange(5), np.random.default_rng(0)
    regression = by_regression(wanted, tokens, number=7, weight=3.0)
    assert float(regression(rows, rng, there)) == pytest.approx(0, abs=1e-5)
    assert float(regression(rows, rng, opposite)) == pytest.approx(6)
    contrast = by_contrast(wanted, tokens, torch.tensor(20.0))
    assert float(contrast(rows, rng, there)) < 0.1 < float(contrast(rows, rng, opposite))


def test_a_lesson_moves_texts_and_leaves_the_audio_tower():
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    torch.manual_seed(0)
    model = ClapModel(model_config(len(tokenizer)))
    texts = tokenise(tokenizer, [["slow piano"], ["fast techno with a male voice"]])
    wanted = normalize(torch.randn(2, 128), dim=1)
    audio = wanted.repeat(10, 1)
    said = Statements([("instrument", "piano"), ("genre", "techno")], np.array([[True, False], [False, True]] * 10))
    heard = [parameter.clone() for parameter in model.audio_model.parameters()]
    teach(model, tokenizer, audio, said, Lesson("test", 30, 2e-3, 2, by_regression(wanted, texts, 4, 20.0)))
    assert all(torch.equal(a, b) for a, b in zip(heard, model.audio_model.parameters(), strict=True))
    model.eval()
    with torch.no_grad():
        found = normalize(read(model, texts[:, 0].long()), dim=1)
    own = (found * wanted).sum(1)
    assert (own > 0.8).all()
    assert (own > (found * wanted.flip(0)).sum(1) + 0.5).all()
