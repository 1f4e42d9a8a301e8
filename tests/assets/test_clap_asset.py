"""The embedded CLAP: what it was trained on, and how good it is on clips that it never heard."""

from __future__ import annotations

import json

import numpy as np
import pytest

from conceptcaps.alignment.clap import EMBEDDED, ClapAligner
from conceptcaps.assets import clap_data
from conceptcaps.assets.build_clap import NUM_CORPUS, NUM_FREE, NUM_HELD_OUT, attributes, tag_sets
from conceptcaps.assets.clap_quality import measure, retrieval, separation
from conceptcaps.config.alignment import AlignmentConfig


def test_held_out_sets_are_not_trained_on():
    training, held_out = tag_sets()
    assert (len(training), len(held_out)) == (NUM_CORPUS + NUM_FREE, NUM_HELD_OUT)
    trained = {frozenset(clap_data.flat(tags)) for tags in training}
    assert not any(frozenset(clap_data.flat(tags)) in trained for tags in held_out)


def test_sayings_are_seeded_and_say_tags():
    tags = clap_data.corpus_sets()[0]
    texts = clap_data.sayings(tags, 12, 3)
    assert texts == clap_data.sayings(tags, 12, 3)
    assert len(set(texts)) > 6
    assert all(any(tag in text for tag in clap_data.flat(tags)) for text in texts)


def test_free_sets_use_words_beyond_the_corpus():
    known = {tag for tags in clap_data.corpus_sets() for tag in clap_data.flat(tags)}
    free = {tag for tags in clap_data.free_sets(50, 1) for tag in clap_data.flat(tags)}
    assert len(free - known) > 50


def test_attributes_name_what_is_heard():
    words = attributes({"genre": ["techno"], "instrument": ["flute", "male voice", "no percussion"]}, 0)
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
    assert report["auc"] >= 0.95
