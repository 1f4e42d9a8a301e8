"""The embedded CLAP: what it was trained on, and how good it is on clips that it never heard."""

from __future__ import annotations

import json

import numpy as np
import pytest

from conceptcaps.alignment.clap import EMBEDDED, ClapAligner
from conceptcaps.assets import clap_data
from conceptcaps.assets.clap_corpus import NUM_COMPOSED, NUM_CORPUS, NUM_HELD_OUT, attributes, tag_sets
from conceptcaps.assets.clap_quality import measure, retrieval, separation
from conceptcaps.assets.clap_sets import FEWEST, MOST, composed_sets
from conceptcaps.audio.arrangement import arrange
from conceptcaps.config.alignment import AlignmentConfig


def test_held_out_sets_are_not_trained_on():
    training, held_out = tag_sets()
    assert (len(training), len(held_out)) == (NUM_CORPUS + NUM_COMPOSED, NUM_HELD_OUT)
    trained = {frozenset(clap_data.flat(tags)) for tags in training}
    assert not any(frozenset(clap_data.flat(tags)) in trained for tags in held_out)


def test_sayings_are_seeded_and_say_tags():
    tags = clap_data.corpus_sets()[0]
    texts = clap_data.sayings(tags, 12, 3)
    assert texts == clap_data.sayings(tags, 12, 3)
    assert len(set(texts)) > 6
    assert all(any(tag in text for tag in clap_data.flat(tags)) for text in texts)


def test_part_sayings_say_the_tags_they_give():
    tags = clap_data.corpus_sets()[1]
    found = clap_data.part_sayings(tags, 20, 3)
    assert found == clap_data.part_sayings(tags, 20, 3)
    assert {len(said) for _, said in found} == {1, 2}
    assert all(tag in text for text, said in found for tag in said)
    assert {tag for _, said in found for tag in said} == set(clap_data.flat(tags))


def test_composed_sets_are_seeded_and_use_words_beyond_the_corpus():
    known = {tag for tags in clap_data.corpus_sets() for tag in clap_data.flat(tags)}
    sets = composed_sets(100, 1)
    assert sets[:20] == composed_sets(20, 1)
    assert all(FEWEST <= len(clap_data.flat(tags)) <= MOST for tags in sets)
    assert len({tag for tags in sets for tag in clap_data.flat(tags)} - known) > 150


def test_composed_sets_name_every_voice_drum_and_instrument():
    heard = [arrange(clap_data.flat(tags), 0) for tags in composed_sets(600, 2)]
    assert {name for a in heard for name in (a.lead, *a.others)} >= {"piano", "violin", "organ", "harp", "banjo"}
    assert {hit for a in heard for hit in a.hits} >= {"kick", "snare", "clap", "shaker", "conga"}
    assert {a.voice for a in heard} >= {None, "male", "female"}
    assert {a.kit for a in heard} == {"acoustic", "electronic"}


def test_attributes_name_what_is_heard():
    words = attributes(["techno", "flute", "male voice", "no percussion"], 0)
    assert {"plays flute", "voice male", "pattern four_on_the_floor"} <= set(words)
    assert "percussion" not in words


def test_retrieval_and_separation_of_known_matrices():
    assert retrieval(np.eye(20)) == {
        "num_clips": 20, "r_at_1": 1.0, "r_at_10": 1.0, "chance_r_at_1": 0.05, "chance_r_at_10": 0.5,
    }  # fmt: skip
    assert separation(np.eye(20)) == 1
    flat = np.zeros((20, 20))
    assert retrieval(flat)["r_at_10"] == 0  # ties count against
    assert separation(flat) == pytest.approx(0.5)


def test_checkpoint_is_small_and_loads():
    assert sum(file.stat().st_size for file in EMBEDDED.iterdir()) < 7e6
    aligner = ClapAligner(AlignmentConfig(model="embedded"))
    found = aligner.embed_text(["a fast techno track", "slow piano"])
    assert found.shape == (2, 128)
    assert float(found[0] @ found[1]) < 0.9


def test_quality_on_fresh_clips_of_held_out_sets():
    report = json.loads((EMBEDDED / "quality.json").read_text())
    found = measure("embedded", tag_sets()[1][:80], seed=2024, seconds=5.0)
    assert found["r_at_10"] >= 3.5 * found["chance_r_at_10"]
    assert found["auc"] >= 0.9
    assert abs(found["auc"] - report["auc"]) < 0.05
    assert report["auc"] >= 0.98
