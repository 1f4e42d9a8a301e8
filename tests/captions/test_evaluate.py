from __future__ import annotations

import ast
import logging

import pytest

from conceptcaps.assets.corpus import load_corpus, load_taxonomy
from conceptcaps.captions import evaluate
from conceptcaps.captions.model_metrics import mauve, perplexity
from conceptcaps.captions.vllm import EMBEDDED
from conceptcaps.config.evaluation import EvaluationConfig
from conceptcaps.errors import InputError


@pytest.fixture(scope="module")
def corpus():
    rows = load_corpus()[:60]
    return [row["caption"] for row in rows], [ast.literal_eval(row["aspect_list"]) for row in rows]


def test_the_corpus_agrees_with_its_tags_and_not_with_others(corpus):
    captions, tags = corpus
    vocabulary = load_taxonomy().tags
    own = evaluate.tag_measures(captions, tags, vocabulary)
    other = evaluate.tag_measures(captions, tags[1:] + tags[:1], vocabulary)
    assert own["coverage"] == own["complete"] == 1
    assert own["contradiction_rate"] == 0
    assert own["precision"] > 0.95
    assert other["coverage"] < 0.5
    assert other["precision"] < 0.5
    assert other["contradiction_rate"] > 0.1


def test_measures_of_a_system_stand_side_by_side(corpus):
    captions, tags = corpus
    made = evaluate.measure(captions, tags, references=captions, vocabulary=load_taxonomy().tags).values
    assert made["bleu"] == pytest.approx(1)
    assert made["in_20_to_80_words"] == 1
    assert 0 < made["distinct_1"] < made["distinct_2"] < 1


def test_text_that_the_model_knows_is_less_perplexing(corpus):
    captions, _ = corpus
    scrambled = [" ".join(reversed(caption.split())) for caption in captions[:10]]
    assert perplexity(captions[:10], EMBEDDED) < 0.2 * perplexity(scrambled, EMBEDDED)


def test_a_metric_without_its_model_is_left_out_and_the_rest_goes_on(corpus, tmp_path, caplog):
    captions, tags = corpus
    settings = EvaluationConfig(language_model=str(tmp_path))
    with caplog.at_level(logging.WARNING):
        made = evaluate.measure(captions[:4], tags[:4], settings=settings)
    assert made.values["perplexity"] is None
    assert str(tmp_path) in made.missing["perplexity"]
    assert made.values["coverage"] == 1
    assert "perplexity is left out" in caplog.text


def test_mauve_tells_captions_from_other_text(corpus):
    captions, _ = corpus
    scrambled = [" ".join(reversed(caption.split())) for caption in captions[30:]]
    alike, unlike = mauve(captions[:30], captions[30:], EMBEDDED), mauve(scrambled, captions[:30], EMBEDDED)
    assert unlike < alike <= 1
    with pytest.raises(InputError, match="20 texts"):
        mauve(captions[:5], captions, EMBEDDED)
