from __future__ import annotations

import numpy as np
import pytest

from conceptcaps.captions.grammar import GrammarCaptioner, article, with_article
from conceptcaps.vocabulary import CATEGORIES, aspects_column

ODD = {
    "genre": ["rock", "movie soundtrack", "r&b", "{it}"],
    "mood": ["happy mood", "groovy", "people dancing", "dark"],
    "instrument": ["no voices", "e-guitar", "passionate female vocal", "808 kick", "a steel drum"],
    "tempo": ["slow tempo", "medium to uptempo", "4 on the floor kick pattern", "polyrhythms"],
}


def batch_of(rows: list[dict[str, list[str]]], seeds: list[int]) -> dict[str, list]:
    batch: dict[str, list] = {
        "seed": seeds,
        "aspect_list": [[t for tags in row.values() for t in tags] for row in rows],
    }
    for category in CATEGORIES:
        batch[aspects_column(category)] = [row.get(category, []) for row in rows]
    return batch


def random_rows(count: int) -> list[dict[str, list[str]]]:
    rng = np.random.default_rng(3)
    return [{c: list(rng.permutation(ODD[c])[: rng.integers(0, 4)]) for c in CATEGORIES} for _ in range(count)]


def test_every_tag_is_said_word_for_word_and_length_is_kept():
    rows = random_rows(200)
    for row, caption in zip(rows, GrammarCaptioner()(batch_of(rows, list(range(200)))), strict=True):
        assert all(tag in caption for tags in row.values() for tag in tags)
        assert 20 <= len(caption.split()) <= 80
        assert caption[0].isupper()
        assert caption.endswith(".")


def test_a_caption_depends_on_its_row_only():
    rows = random_rows(20)
    together = GrammarCaptioner()(batch_of(rows, list(range(20))))
    alone = [GrammarCaptioner()(batch_of([row], [i]))[0] for i, row in enumerate(rows)]
    assert together == alone


def test_seeds_vary_the_wording():
    row = {"genre": ["rock"], "mood": ["dark", "calm"], "instrument": ["piano"], "tempo": ["slow tempo"]}
    assert len(set(GrammarCaptioner()(batch_of([row] * 50, list(range(50)))))) > 40


def test_tags_of_no_category_are_said():
    batch = batch_of([{"genre": ["rock"]}], [1])
    batch["aspect_list"] = [["rock", "vinyl crackle"]]
    assert "vinyl crackle" in GrammarCaptioner()(batch)[0]


def test_null_aspects_are_no_tags():
    batch = {"seed": [1], **{aspects_column(c): [None] for c in CATEGORIES}}
    assert GrammarCaptioner()(batch)[0]


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [("piano", "a piano"), ("e-guitar", "an e-guitar"), ("strings", "strings"), ("a harp", "a harp"), ("", "")],
)
def test_articles_of_nouns(phrase, expected):
    assert with_article(phrase) == expected


def test_articles_by_sound():
    assert [article(w) for w in ("ukulele", "organ", "r&b", "uplifting", "8-bit", "piano")] == [
        "a", "an", "an", "an", "an", "a",
    ]  # fmt: skip
