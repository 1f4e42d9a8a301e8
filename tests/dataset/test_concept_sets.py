"""Concept sets: matching takes the confounder away, and says so where it cannot."""

import csv

import numpy as np
import pytest
from synthetic import VOCABULARY, tags_of

from conceptcaps import seeding
from conceptcaps.config.dataset import ConceptSetsConfig
from conceptcaps.dataset.concept_sets import counts, covariates, differences, facts, match, shares, warnings
from conceptcaps.vocabulary import CATEGORIES, Vocabulary

CONFIG = ConceptSetsConfig()
GUITAR, ROCK = VOCABULARY.index["electric guitar"], VOCABULARY.index["rock"]


def rng(seed: int = 0) -> np.random.Generator:
    return seeding.generator(seed, "test")


@pytest.fixture(scope="module")
def tags():
    """1,500 rows in which electric guitar mostly comes with rock."""
    return VOCABULARY.encode([tags_of(i) for i in range(1500)])


def test_electric_guitar_does_not_mean_rock(tags):
    found = match(tags, GUITAR, CONFIG, rng())
    assert found.before[ROCK] > 1
    assert abs(found.after[ROCK]) < 0.1
    assert np.nanmean(np.abs(found.after)) < 0.3 * np.nanmean(np.abs(found.before))


def test_pairs_are_sound(tags):
    found = match(tags, GUITAR, CONFIG, rng())
    assert (tags[found.positives, GUITAR] == 1).all()
    assert (tags[found.negatives, GUITAR] == 0).all()
    assert len(set(found.negatives)) == len(found.negatives) == len(found.positives) <= CONFIG.max_rows
    assert (tags[found.positives, ROCK] == tags[found.negatives, ROCK]).all()


def test_the_seed_decides(tags):
    first, again, other = (match(tags, GUITAR, CONFIG, rng(seed)) for seed in (1, 1, 2))
    assert (first.negatives == again.negatives).all()
    assert not np.array_equal(np.sort(first.negatives), np.sort(other.negatives))


def test_alternatives_are_not_balanced(tags):
    slow, fast = VOCABULARY.index["slow tempo"], VOCABULARY.index["fast tempo"]
    found = covariates(*shares(counts(tags), len(tags), slow), slow)
    assert fast not in found
    assert ROCK in found


def test_differences_by_hand():
    found = differences(np.array([1.0, 0.5]), np.array([0.5, 0.5]), np.array([0]))
    assert found[0] == pytest.approx(0.5 / np.sqrt(0.125))
    assert np.isnan(found[1])


def test_shares_by_hand():
    tags = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1], [0, 0, 1]], np.uint8)
    with_it, without = shares(counts(tags), 4, 0)
    np.testing.assert_array_equal(with_it, tags[:2].mean(0))
    np.testing.assert_array_equal(without, tags[2:].mean(0))


def test_a_concept_that_never_comes_alone_is_warned_of(tags):
    bound = tags.copy()
    bound[:, GUITAR] = bound[:, ROCK]
    found = match(bound, GUITAR, CONFIG, rng())
    said = " ".join(warnings(found, VOCABULARY.tags, CONFIG))
    assert "cannot be told from the tags it comes with, above all 'rock'" in said
    assert facts(found, VOCABULARY.tags, CONFIG)["pairs"] == len(found.positives)


def test_no_negatives():
    every = np.ones((30, len(VOCABULARY)), np.uint8)
    found = match(every, GUITAR, CONFIG, rng())
    assert len(found.positives) == 0


def test_on_real_tags(musiccaps):
    with (musiccaps / "distilled.csv").open() as file:
        rows = list(csv.DictReader(file))
    split = [{c: [t.strip() for t in row[f"{c}_tags"].split(",") if t.strip()] for c in CATEGORIES} for row in rows]
    home = {tag: category for row in split for category in CATEGORIES for tag in row[category]}
    vocabulary = Vocabulary.from_mapping({c: sorted(t for t, at in home.items() if at == c) for c in CATEGORIES})
    tags = vocabulary.encode([[t for c in CATEGORIES for t in row[c]] for row in split])
    before, after = [], []
    for concept in np.argsort(-tags.sum(0))[:25]:
        found = match(tags, int(concept), CONFIG, rng())
        before.append(np.nanmean(np.abs(found.before)))
        after.append(np.nanmean(np.abs(found.after)))
    print(f"mean absolute standardised difference {np.mean(before):.3f} before, {np.mean(after):.3f} after")
    assert np.mean(after) < 0.75 * np.mean(before)
