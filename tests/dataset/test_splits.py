"""Splits: proportions, every concept everywhere, stable when rows are added, honest where impossible."""

import numpy as np
import pytest
from synthetic import VOCABULARY, tags_of

from conceptcaps import seeding
from conceptcaps.dataset.splits import SPLITS, TagLists, stratify, unstratified
from conceptcaps.errors import InputError

FRACTIONS = (0.7, 0.15, 0.15)


def tag_lists(sets) -> TagLists:
    codes = [VOCABULARY.index[tag] for tags in sets for tag in tags]
    offsets = np.cumsum([0, *map(len, sets)])
    return TagLists(VOCABULARY.tags, np.array(codes, np.int32), offsets)


def draws(num_rows: int, seed: int = 0) -> np.ndarray:
    return np.array([seeding.generator(seed, "draw", i).random(3) for i in range(num_rows)])


def groups_of(sets) -> np.ndarray:
    first: dict[tuple, int] = {}
    return np.array([first.setdefault(tuple(tags), i) for i, tags in enumerate(sets)])


@pytest.fixture(scope="module")
def sets():
    return [tags_of(i) for i in range(600)]


def split(sets, seed=0, **options):
    return stratify(groups_of(sets), tag_lists(sets), FRACTIONS, draws(len(sets), seed), **options)


def test_sizes_and_concepts(sets):
    splits = split(sets)
    assert np.allclose(np.bincount(splits) / len(sets), FRACTIONS, atol=0.03)
    shares = tag_lists(sets).counts(splits, 3)
    assert np.allclose(shares / shares.sum(1, keepdims=True), FRACTIONS, atol=0.12)


def test_groups_stay_whole(sets):
    splits, groups = split(sets), groups_of(sets)
    assert len(np.unique(groups)) < len(sets)
    assert (splits == splits[groups]).all()


def test_the_seed_decides(sets):
    assert (split(sets, seed=1) == split(sets, seed=1)).all()
    assert (split(sets, seed=1) != split(sets, seed=2)).any()


def test_adding_rows_moves_none(sets):
    assert (split(sets)[:400] == split(sets[:400])).all()


def test_rows_that_turn_up_in_the_middle_move_none_that_are_known(sets):
    some = [i for i in range(600) if i % 7]
    before = split([sets[i] for i in some])
    previous = np.full(600, -1, np.int8)
    previous[some] = before
    after = stratify(groups_of(sets), tag_lists(sets), FRACTIONS, draws(600), previous)
    assert (after[some] == before).all()
    assert np.allclose(np.bincount(after) / 600, FRACTIONS, atol=0.03)


def test_better_than_chance(sets):
    """The largest error of a tag's share, against a random assignment of the same groups."""
    lists = tag_lists(sets)

    def error(splits):
        counts = lists.counts(splits, 3)
        return np.abs(counts / counts.sum(1, keepdims=True) - FRACTIONS).mean()

    random = [np.random.default_rng(seed).choice(3, 600, p=FRACTIONS)[groups_of(sets)] for seed in range(20)]
    assert error(split(sets)) < np.mean([error(splits) for splits in random])


def test_a_concept_gets_positives_everywhere():
    sets = [["rock", "sad", tempo] for tempo in ("slow tempo", "fast tempo") for _ in range(30)]
    sets += [["jazz", "flute"] for _ in range(12)]
    lists, singles = tag_lists(sets), np.arange(len(sets))
    splits = stratify(singles, lists, FRACTIONS, draws(len(sets)))
    assert unstratified(splits, singles, lists, 10) == []


def test_a_concept_in_one_group_is_reported_with_the_reason():
    sets = [["rock", "sad"]] * 5 + [["jazz", "calm"]] * 20 + [["folk", "piano"]] * 5 + [["techno"]] * 5
    groups = groups_of(sets)
    splits = stratify(groups, tag_lists(sets), FRACTIONS, draws(len(sets)))
    found = unstratified(splits, groups, tag_lists(sets), 10)
    assert {lacking.concept for lacking in found} == {"jazz", "calm"}
    assert "its 20 rows form 1 groups that must each stay in one split" in str(found[0])


def test_fewer_groups_than_splits_is_refused():
    sets = [["rock"]] * 10 + [["jazz"]] * 10
    with pytest.raises(InputError, match=r"2 groups .* too few for train, validation, test"):
        split(sets)


def test_split_names():
    assert SPLITS == ("train", "validation", "test")
