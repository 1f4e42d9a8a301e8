"""Tag verification on embeddings whose tags are known, and through the embedded CLAP on procedural clips."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from conceptcaps.alignment.clap import ClapAligner
from conceptcaps.alignment.tags import TagReference, Verifier, embed_tags, margins, read_prompts, tag_scores
from conceptcaps.assets import clap_data
from conceptcaps.assets.clap_corpus import tag_sets
from conceptcaps.assets.corpus import load_taxonomy
from conceptcaps.audio.procedural import ProceduralSynthesiser
from conceptcaps.config.alignment import AlignmentConfig
from conceptcaps.config.audio import AudioConfig
from conceptcaps.errors import InputError
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

    def embed_windows(self, waveforms, sampling_rate):
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


def test_verifier_keeps_the_tags_that_stand_out_from_the_mean_clip():
    mean = np.zeros(15)
    mean[VOCABULARY.index["jazz"]] = 0.9
    verifier = Verifier.make(OneHot(), TagReference(VOCABULARY, tuple(mean)), AlignmentConfig())
    audio = np.zeros(15)
    audio[[VOCABULARY.index[t] for t in ("rock", "jazz")]] = 0.6, 0.7
    kept, found = verifier(audio, ["rock", "jazz", "piano", "happy", "unheard of"])
    assert kept == ["rock"]  # every clip is as near to 'jazz'; nothing tells 'piano' from what is absent
    assert found[1] < 0 < found[0]
    assert found[2] == 0
    assert found[3:] == [None, None]


def test_prompts_come_from_a_file_and_must_hold_the_tag(tmp_path):
    path = tmp_path / "prompts.yaml"
    path.write_text("genre: ['{} music']\n")
    assert read_prompts(str(path)) == {"genre": ("{} music",)}
    assert read_prompts(None) == {}
    for text in ("genre: [music]", "colour: ['{}']", "[", "genre: []"):
        path.write_text(text)
        with pytest.raises(InputError, match=r"prompts\.yaml"):
            read_prompts(str(path))


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
