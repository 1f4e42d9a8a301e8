import numpy as np
import pytest

from conceptcaps.errors import InputError
from conceptcaps.tcav.cav import cosines, fit_cavs
from conceptcaps.tcav.concepts import (
    audit,
    disjoint,
    matched_sets,
    phi_table,
    relative_sets,
    require_positives,
    resplits,
)

NAMES = ["slow", "fast", "piano", "rare"]


@pytest.fixture
def tags() -> np.ndarray:
    rng = np.random.default_rng(0)
    table = rng.random((400, 4)) < [0.3, 0.3, 0.5, 0.02]
    table[:, 2] |= (rng.random(400) < 0.6) & table[:, 0]  # slow clips mostly have a piano
    return table


def test_negatives_lack_the_concept_and_share_its_company(tags: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    matched = matched_sets(tags, NAMES, rng)["slow"]
    drawn = matched_sets(tags, NAMES, rng, matched=False)["slow"]
    assert not tags[matched.negatives, 0].any()
    assert tags[matched.positives, 0].all()
    assert len(np.unique(matched.negatives)) == len(matched.negatives)

    def gap(s):
        return abs(tags[s.positives, 2].mean() - tags[s.negatives, 2].mean())

    assert gap(matched) < 0.03 < gap(drawn)


def test_matching_disentangles_vectors(tags: np.ndarray) -> None:
    rng = np.random.default_rng(2)
    activations = tags @ rng.normal(size=(4, 24)) * 0.7 + rng.normal(size=(400, 24))

    def entanglement(matched: bool) -> float:
        sets = matched_sets(tags, NAMES, np.random.default_rng(3), matched=matched)
        cavs = fit_cavs(activations, resplits(list(sets.values()), 1, 0.0, rng), method="pattern")
        order = list(sets)
        return float(cosines(cavs.vectors)[order.index("slow"), order.index("piano")])

    assert entanglement(True) < entanglement(False) - 0.1


def test_rare_tag_makes_no_set_and_is_refused_when_asked_for(tags: np.ndarray) -> None:
    assert "rare" not in matched_sets(tags, NAMES, np.random.default_rng(0))
    counts = dict(zip(NAMES, tags.sum(0).tolist(), strict=True))
    require_positives(counts, ["slow"], 20)
    with pytest.raises(InputError, match=r"'rare' has \d+, each needs 20"):
        require_positives(counts, ["slow", "rare"], 20)


def test_resplits_hold_out_other_clips_each_time(tags: np.ndarray) -> None:
    sets = list(matched_sets(tags, NAMES, np.random.default_rng(0)).values())
    problems = resplits(sets, 5, 0.3, np.random.default_rng(1))
    assert len(problems) == 5 * len(sets)
    assert not (problems.train & problems.test).any()
    share = problems.test.sum(1) / (problems.clips >= 0).sum(1)
    np.testing.assert_allclose(share, 0.3, atol=0.02)
    assert (problems.held_out[0] != problems.held_out[1]).any()


def test_disjoint_sets_share_no_clip(tags: np.ndarray) -> None:
    sets = [matched_sets(tags, NAMES, np.random.default_rng(0))["piano"]]
    found = disjoint(sets, 4, 20, len(tags), np.random.default_rng(1))
    assert found is not None
    for problems in found:
        assert len(np.unique(problems.clips)) == problems.clips.size == 4 * 40
    assert disjoint(sets, 40, 20, len(tags), np.random.default_rng(1)) is None


def test_relative_sets_leave_out_clips_with_both(tags: np.ndarray) -> None:
    found = relative_sets(tags, NAMES, [("slow", "fast")])["slow | fast"]
    assert not tags[found.positives, 1].any()
    assert not tags[found.negatives, 0].any()
    assert len(found.positives) == len(found.negatives)


def test_audit_lists_correlated_tags_and_counts_clips_on_both_sides(tags: np.ndarray) -> None:
    sets = matched_sets(tags, NAMES, np.random.default_rng(0))
    found = audit(tags, NAMES, sets)
    assert set(found["clips_in_both_sets"].values()) == {0}
    assert set(found["negatives_with_the_tag"].values()) == {0}
    assert [(c["first"], c["second"]) for c in found["correlated_tags"]] == [("slow", "piano")]
    np.testing.assert_allclose(phi_table(tags)[0, 2], np.corrcoef(tags[:, 0], tags[:, 2])[0, 1])
