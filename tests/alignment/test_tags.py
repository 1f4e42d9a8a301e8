"""Tag verification on embeddings whose tags are known, and through the embedded CLAP on procedural clips."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from conceptcaps.alignment.clap import ClapAligner
from conceptcaps.alignment.tags import embed_tags, margins, tag_scores, verified
from conceptcaps.assets import clap_data
from conceptcaps.assets.build_clap import tag_sets
from conceptcaps.assets.corpus import load_taxonomy
from conceptcaps.audio.procedural import ProceduralSynthesiser
from conceptcaps.config.alignment import AlignmentConfig
from conceptcaps.config.audio import AudioConfig
from conceptcaps.vocabulary import Vocabulary

VOCABULARY = Vocabulary.from_mapping(
    {
        "genre": ["rock", "jazz", "techno", "ambient"],
        "mood": ["happy", "sad"],
        "instrument": ["acoustic drums", "no percussion", "piano", "flute", "distorted guitar", "organ"],
        "tempo": ["slow tempo", "medium tempo", "fast tempo"],
    }
)


class OneHot:
    """An aligner whose text embedding is the tag that the text names."""

    def embed_text(self, texts):
        return np.stack(
            [np.eye(len(VOCABULARY))[next(i for i, t in enumerate(VOCABULARY.tags) if t in x)] for x in texts]
        )

    def embed_audio(self, waveforms, sampling_rate):
        raise AssertionError("texts only")


def test_prompts_of_a_tag_are_averaged():
    np.testing.assert_allclose(embed_tags(OneHot(), VOCABULARY), np.eye(len(VOCABULARY)))
    own = embed_tags(OneHot(), VOCABULARY, {"genre": ("{}", "{} or jazz")})
    assert own.shape == (15, 15)
    np.testing.assert_allclose(np.linalg.norm(own, axis=1), 1)


def test_margin_is_against_absent_tags_of_the_category():
    rows = VOCABULARY.encode([["rock", "piano"], ["jazz", "flute", "slow tempo"]])
    audio = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    found = margins(tag_scores(audio, np.eye(15), baseline=np.zeros(15)), rows, VOCABULARY)
    assert found[0, VOCABULARY.index["rock"]] > 100
    assert found[0, VOCABULARY.index["techno"]] == 0
    assert np.isfinite(found[:, VOCABULARY.category_indices == 0]).all()


def test_margin_is_nan_without_two_absent_tags():
    rows = VOCABULARY.encode([["happy"]])
    found = margins(np.random.default_rng(0).random((1, 15)), rows, VOCABULARY)
    assert np.isnan(found[0, VOCABULARY.category_indices == 1]).all()


def test_verified_keeps_tags_above_the_threshold():
    row = np.full(15, np.nan)
    row[VOCABULARY.index["rock"]], row[VOCABULARY.index["piano"]] = 2.0, -1.0
    assert verified(row, ["rock", "piano", "happy", "unheard of"], VOCABULARY) == {"rock": 2.0}


@pytest.fixture(scope="module")
def heard() -> tuple[np.ndarray, np.ndarray, Vocabulary]:
    """Margins and tags of procedural clips of tag sets that the embedded CLAP was not trained on."""
    aligner, vocabulary = ClapAligner(AlignmentConfig(model="embedded")), load_taxonomy()
    tags = [clap_data.flat(tags) for tags in tag_sets()[1][:120]]
    synthesiser = ProceduralSynthesiser(AudioConfig(duration=5.0))
    audio = aligner.embed_audio(
        synthesiser({"seed": list(range(len(tags))), "aspect_list": tags}), synthesiser.sampling_rate
    )
    rows = vocabulary.encode(tags)
    return margins(tag_scores(audio, embed_tags(aligner, vocabulary)), rows, vocabulary), rows, vocabulary


@pytest.mark.parametrize("tag", ["no percussion", "distorted guitar", "male voice", "slow tempo"])
def test_audible_tags_are_found_in_procedural_clips(heard, tag):
    found, rows, vocabulary = heard
    at = vocabulary.index[tag]
    assert roc_auc_score(rows[:, at], found[:, at]) > 0.75


def test_tempo_families_are_told_apart(heard):
    found, rows, vocabulary = heard
    slow, fast = vocabulary.index["slow tempo"], vocabulary.index["fast tempo"]
    either = rows[:, slow] + rows[:, fast] == 1
    assert roc_auc_score(rows[either, fast], found[either, fast] - found[either, slow]) > 0.85
