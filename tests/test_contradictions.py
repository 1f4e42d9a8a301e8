from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from conceptcaps.contradictions import Contradictions, load_families
from conceptcaps.errors import InputError
from conceptcaps.vocabulary import Vocabulary

TAGS = {
    "genre": ["rock"],
    "tempo": ["slow tempo", "medium tempo", "fast tempo", "medium to uptempo", "upbeat", "slow rock"],
    "instrument": ["no voices", "male vocal", "no percussion", "drums", "tambourine", "no other instruments"],
}


@pytest.fixture
def contradictions() -> Contradictions:
    return Contradictions.for_vocabulary(Vocabulary.from_mapping(TAGS))


@pytest.mark.parametrize(
    "tags",
    [
        ("slow tempo", "fast tempo"),
        ("slow tempo", "medium to uptempo"),
        ("upbeat", "slow tempo"),
        ("no voices", "male vocal"),
        ("no percussion", "tambourine"),
    ],
)
def test_exclusive_tags_contradict(contradictions, tags):
    assert contradictions.describe(tags)
    assert contradictions.describe(reversed(tags))


@pytest.mark.parametrize(
    "tags",
    [
        ("medium tempo", "medium to uptempo"),
        ("fast tempo", "upbeat"),
        ("slow rock", "fast tempo"),
        ("no other instruments", "drums"),
        ("no voices", "no percussion"),
        ("unknown", "slow tempo"),
    ],
)
def test_compatible_tags_do_not(contradictions, tags):
    assert contradictions.describe(tags) == []


def test_violations_agree_with_describe(contradictions):
    vocabulary = Vocabulary.from_mapping(TAGS)
    rows = np.random.default_rng(0).integers(0, 2, (200, len(vocabulary)), dtype=np.uint8)
    expected = [bool(contradictions.describe(tags)) for tags in vocabulary.decode(rows)]
    assert contradictions.violations(rows).tolist() == expected
    assert contradictions.pairs.dtype == bool
    assert (contradictions.pairs == contradictions.pairs.T).all()
    assert not contradictions.pairs.diagonal().any()


def test_json_round_trip(contradictions):
    assert Contradictions.from_json(contradictions.to_json()) == contradictions


def test_no_family_no_violation():
    vocabulary = Vocabulary.from_mapping({"genre": ["rock", "pop"]})
    assert not Contradictions.for_vocabulary(vocabulary).violations(np.ones((3, 2))).any()


@pytest.mark.parametrize("text", ["{", "{}", '{"families": [{"name": "x", "sides": {"a": ["("]}}]}'])
def test_bad_table_is_refused(text):
    with pytest.raises(InputError):
        load_families(text, "table.json")


def test_real_rows_hardly_contradict_themselves(musiccaps):
    vocabulary = Vocabulary.from_mapping(json.loads((musiccaps / "concepts_to_tags.published.json").read_text()))
    with (musiccaps / "distilled.csv").open(encoding="utf-8") as file:
        rows = vocabulary.encode(row["aspect_list"].split(", ") for row in csv.DictReader(file))
    assert Contradictions.for_vocabulary(vocabulary).violations(rows).mean() < 0.002
