from __future__ import annotations

import numpy as np
import pytest

from conceptcaps.metrics import text

ONE = ["a slow rock song with drums and a piano", "a fast pop song with a female voice and claps"]
OTHER = ["a slow rock tune with drums and piano", "calm strings play a long quiet melody for a choir"]


def test_distinct_counts_ngrams_by_hand():
    assert text.distinct(["a b a", "b a"], 1) == pytest.approx(2 / 5)
    assert text.distinct(["a b a", "b a"], 2) == pytest.approx(2 / 3)
    assert np.isnan(text.distinct([], 1))


def test_sizes():
    assert text.vocabulary_size(["A cat.", "a Dog"]) == 3
    assert text.lengths(["A cat.", ""]).tolist() == [2, 0]


@pytest.mark.parametrize("metric", [text.bleu, text.rouge_l, text.meteor])
def test_closeness_is_one_for_the_same_less_for_others_and_blind_to_row_order(metric):
    same, near, far = metric(ONE, ONE), metric(ONE[:1], OTHER[:1]), metric(ONE[:1], OTHER[1:])
    assert same == pytest.approx(1, abs=0.01)
    assert same > near > far
    assert metric(ONE, OTHER) == pytest.approx(metric(ONE[::-1], OTHER[::-1]))


def test_meteor_by_hand():
    # 'the cats sat' on 'the cat sat': stems agree, one chunk of three: 1 - 0.5 / 27.
    assert text.meteor(["the cats sat"], ["the cat sat"]) == pytest.approx(1 - 0.5 / 27)
    # Two of two and two of four match in two chunks: P 1, R 0.5, penalty 0.5.
    expected = (1 * 0.5 / (0.9 * 1 + 0.1 * 0.5)) * 0.5
    assert text.meteor(["a c"], ["a b c d"]) == pytest.approx(expected)


def test_self_bleu_is_high_for_copies_and_low_for_variety():
    assert text.self_bleu([ONE[0]] * 4) == pytest.approx(1)
    assert text.self_bleu([*ONE, *OTHER]) < 0.6
    assert np.isnan(text.self_bleu(["alone"]))
