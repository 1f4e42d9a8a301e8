"""The whole analysis on a made-up layer: a linear head that reads two of six tags."""

import numpy as np
import pytest

from conceptcaps.config.tcav import TcavConfig
from conceptcaps.errors import InputError
from conceptcaps.tcav import analysis
from conceptcaps.tcav.analysis import LOGITS, ConceptClips
from conceptcaps.tcav.concepts import ConceptSet, matched_sets

NAMES = ["slow", "fast", "piano", "guitar", "happy", "sad"]
CATEGORIES = ["tempo", "tempo", "instrument", "instrument", "mood", "mood"]
CONFIG = TcavConfig(runs=6, disjoint_sets=5, disjoint_size=20)


@pytest.fixture(scope="module")
def world() -> tuple[ConceptClips, np.ndarray, np.ndarray, dict[str, np.ndarray], dict[str, ConceptSet]]:
    """Clips, activations, mean gradients, gradients per class, concept sets. `slow` raises class a, `piano` lowers it;
    nothing else matters; `sad` leaves no trace in the layer."""
    rng = np.random.default_rng(0)
    tags = (rng.random((600, 6)) < 0.4).astype(np.uint8)
    tags[:, 1] &= 1 - tags[:, 0]
    patterns = np.linalg.qr(rng.normal(size=(24, 6)))[0].T
    patterns[5] = 0
    activations = (2 * tags @ patterns + rng.normal(size=(600, 24))).astype(np.float32)
    mean = np.stack([patterns[0] - patterns[2], patterns[2] - patterns[0]])
    logits = (activations @ mean.T).astype(np.float32)
    pairs = [f"p{i // 2}" if i < 40 else None for i in range(600)]
    tags[1:40:2] = tags[0:40:2]
    tags[0:40:2, 0], tags[1:40:2, 0] = 1, 0
    logits[0:40:2] = logits[1:40:2] + np.array([1.5, -1.5])
    clips = ConceptClips([str(i) for i in range(600)], pairs, tags, NAMES, CATEGORIES, logits, ["a", "b"])
    noisy = {c: (m + 0.3 * rng.normal(size=(50, 24))).astype(np.float32) for c, m in zip("ab", mean, strict=True)}
    return clips, activations, mean, noisy, matched_sets(tags, NAMES, rng)


def cell(table: list, concept: str, class_name: str = "a") -> dict:
    return next(row for row in table if row["concept"] == concept and row["class"] == class_name)


def test_effects_through_the_layer_and_on_the_logits_name_what_is_used(world) -> None:
    clips, activations, mean, *_ = world
    for layer, arguments in (("dense", (mean, activations)), (LOGITS, (None, None))):
        table = analysis.effect_table(clips, layer, *arguments, CONFIG)
        assert len(table) == 12
        assert cell(table, "slow")["verdict"] == "used"
        assert cell(table, "slow")["effect_sd"] > 0.3 > -0.3 > cell(table, "piano")["effect_sd"]
        assert cell(table, "guitar")["verdict"] != "used"
        assert cell(table, "slow", "b")["effect_sd"] < -0.3


def test_pairs_that_differ_in_one_tag_give_counterfactual_effects(world) -> None:
    clips, *_ = world
    table = analysis.counterfactual_table(clips, CONFIG)
    assert {row["concept"] for row in table} == {"slow"}
    assert cell(table, "slow")["num_pairs"] == 20
    assert cell(table, "slow")["effect_sd"] == pytest.approx(1.5 / clips.logit_sd[0], rel=1e-5)
    assert cell(table, "slow")["verdict"] == "used"


def test_scores_point_the_right_way_and_what_cannot_be_separated_is_not_scored(world) -> None:
    _, activations, _, gradients, sets = world
    vectors = analysis.fit_vectors(activations, sets, CONFIG, seed=0)
    table = analysis.score_table(vectors, "dense", gradients, dict(zip(NAMES, CATEGORIES, strict=True)))
    assert cell(table, "slow")["tcav_score"] > 0.8
    assert cell(table, "piano")["tcav_score"] < 0.2
    assert cell(table, "slow")["accuracy_low"] > 0.6
    assert not cell(table, "sad")["separable"]
    assert cell(table, "sad")["tcav_score"] is None
    assert cell(table, "slow")["stability"] > cell(table, "sad")["stability"]


def test_both_tests_stand_under_their_own_names(world) -> None:
    _, activations, _, gradients, sets = world
    vectors = analysis.fit_vectors(activations, sets, CONFIG, seed=0)
    table = analysis.score_table(vectors, "dense", gradients, {})
    facts = analysis.add_tests(table, vectors, activations, gradients, sets, CONFIG, seed=0)
    assert "no replicates" in facts["customary_warning"]
    assert set(facts["disjoint_concepts"]) == set(sets)
    assert cell(table, "slow")["disjoint_q"] < 0.05
    assert cell(table, "slow")["customary_q"] < 0.05
    assert cell(table, "sad")["disjoint_q"] is None  # not separable, so not tested either


def test_relative_vectors_compare_within_a_category(world) -> None:
    clips, activations, _, gradients, sets = world
    relative = analysis.relative_concepts(clips, list(sets), ("tempo",), 20)
    assert "slow | fast" in relative
    assert "slow | piano" not in relative
    assert set(analysis.relative_concepts(clips, list(sets), ("mood", "tempo"), 20)) == {"slow | fast", "happy | sad"}
    table = analysis.score_table(analysis.fit_vectors(activations, relative, CONFIG, 0), "dense", gradients, {})
    assert cell(table, "slow | fast")["tcav_score"] > 0.8


def test_entanglement_and_published_layout(world) -> None:
    clips, activations, _, gradients, sets = world
    vectors = analysis.fit_vectors(activations, sets, CONFIG, seed=0)
    found = analysis.entanglement(activations, clips, sets, vectors, CONFIG, seed=0)
    assert np.array(found["cosines"]).shape == (6, 6)
    assert np.array(found["cosines_with_random_negatives"]).shape == (6, 6)
    assert 0 <= found["mean_absolute_cosine_matched"] < 0.5
    table = analysis.score_table(vectors, "dense", gradients, dict(zip(NAMES, CATEGORIES, strict=True)))
    published = analysis.published_layout(table, "dense")
    assert set(published["tempo"]["slow"]) == {"cav_accuracy", "genre_scores"}
    assert set(published["tempo"]["slow"]["genre_scores"]) == {"a", "b"}
    assert "sad" not in published.get("mood", {})


def test_bad_layers_are_refused(world) -> None:
    clips, activations, mean, _, sets = world
    broken = activations.copy()
    broken[3, 3] = np.nan
    with pytest.raises(InputError, match=r"'dense', clip 3"):
        analysis.effect_table(clips, "dense", mean, broken, CONFIG)
    vectors = analysis.fit_vectors(activations, sets, CONFIG, seed=0)
    with pytest.raises(InputError, match="all-zero gradients"):
        analysis.score_table(vectors, "dense", {"a": np.zeros((5, 24))}, {})
