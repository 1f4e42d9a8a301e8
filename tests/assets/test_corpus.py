from __future__ import annotations

import ast
import gzip
import os
import subprocess
import sys

import numpy as np
import pytest

from conceptcaps.assets.build_corpus import ANTONYMS, GENRES, MOODS, encode
from conceptcaps.assets.corpus import COLUMNS, CORPUS, load_corpus, load_taxonomy


@pytest.fixture(scope="module")
def rows():
    return load_corpus()


def tags_of(row):
    return ast.literal_eval(row["aspect_list"])


def test_the_corpus_is_small_and_in_musiccaps_format(rows):
    assert CORPUS.stat().st_size <= 600_000
    assert len(rows) >= 2000
    assert all(tuple(row) == COLUMNS for row in rows)
    assert len({row["ytid"] for row in rows}) == len(rows)
    assert all(int(row["end_s"]) - int(row["start_s"]) == 10 for row in rows)


def test_rebuilding_gives_the_same_bytes_in_another_process():
    # Another hash seed: nothing may hang on the order of a set.
    code = "import sys; from conceptcaps.assets.build_corpus import *; sys.stdout.buffer.write(encode(build_rows()))"
    env = {**os.environ, "PYTHONHASHSEED": "12345"}
    built = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True).stdout
    assert gzip.decompress(built) == gzip.decompress(CORPUS.read_bytes())


def test_encoding_is_free_of_time(rows):
    assert encode(rows[:5]) == encode(rows[:5])


def test_every_tag_is_used_and_said(rows):
    vocabulary = load_taxonomy()
    used = {tag for row in rows for tag in tags_of(row)}
    assert used == set(vocabulary.tags)
    assert all(tag in row["caption"] for row in rows for tag in tags_of(row))


def test_rows_hold_no_contradiction(rows):
    for row in rows:
        tags = set(tags_of(row))
        assert not any(pair <= tags for pair in ANTONYMS)
        assert len(tags & {"slow tempo", "medium tempo", "fast tempo", "uptempo"}) <= 1
        assert not ("no voices" in tags and tags & {"male voice", "female voice", "choir"})


def test_tags_go_together_as_in_music(rows):
    vocabulary = load_taxonomy()
    hot = vocabulary.encode(tags_of(row) for row in rows).astype(float)
    correlation = np.corrcoef(hot.T)
    at = vocabulary.index
    assert correlation[at["metal"], at["distorted guitar"]] > 0.2
    assert correlation[at["ambient"], at["slow tempo"]] > 0.1
    assert correlation[at["jazz"], at["fast tempo"]] < 0.1
    assert np.mean(vocabulary.num_categories(hot) >= 3) > 0.95


def test_the_tables_speak_of_the_taxonomy():
    vocabulary = load_taxonomy()
    assert set(GENRES) == set(vocabulary.tags_by_category["genre"])
    assert set(MOODS) == set(vocabulary.tags_by_category["mood"])
