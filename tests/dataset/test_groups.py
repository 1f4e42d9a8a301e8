"""Groups: near-duplicates are found, different captions are not, and order does not matter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptcaps import seeding
from conceptcaps.dataset.groups import NUM_HASHES, group_rows, jaccard, key, shingles, signatures

WORDS = [f"word{i}" for i in range(300)]


def caption(seed: int, length: int = 30) -> list[str]:
    return list(seeding.generator(seed, "words").choice(WORDS, length))


def groups_of(captions, threshold=0.7):
    none = np.zeros(len(captions), np.int64)
    return group_rows([none], signatures(captions), threshold)


def test_key_ignores_order_and_repetition():
    assert key(["rock", "sad"]) == key(["sad", "rock", "sad"]) != key(["rock sad"])
    assert key([]) == 0


def test_shingles_of_a_short_caption_are_the_caption():
    assert shingles("Slow Jazz!") == [("slow", "jazz")]
    assert jaccard("slow jazz", "Slow, jazz") == 1


@pytest.mark.parametrize("changed", [0, 1, 4])
def test_signatures_estimate_the_similarity(changed):
    found, exact = [], []
    for seed in range(60):
        first = caption(seed)
        second = [*first[: len(first) - changed], *caption(seed + 1000, changed)]
        a, b = signatures([" ".join(first), " ".join(second)])
        found.append((a == b).mean())
        exact.append(jaccard(" ".join(first), " ".join(second)))
    assert abs(np.mean(found) - np.mean(exact)) < 3 * 0.5 / np.sqrt(NUM_HASHES * len(found))


def test_near_duplicates_are_grouped_and_others_are_not():
    base = [" ".join(caption(i)) for i in range(200)]
    altered = [text.rsplit(" ", 1)[0] + " otherwise" for text in base]  # similarity 27 / 29
    groups = groups_of([*base, *altered])
    assert (groups[200:] == groups[:200]).all()
    assert len(np.unique(groups)) == 200


def test_a_large_bucket_is_one_group():
    groups = groups_of(["the very same caption of this music"] * 50)
    assert (groups == 0).all()


def test_keys_link_rows_of_a_tag_set_or_pair():
    tags = np.array([5, 7, 5, 0, 0])
    pairs = np.array([0, 9, 0, 9, 0])
    assert group_rows([tags, pairs], None, 0.7).tolist() == [0, 1, 0, 1, 4]


def test_no_rows():
    assert group_rows([np.zeros(0, np.int64)], signatures([]), 0.7).tolist() == []


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(12)))
def test_groups_do_not_depend_on_the_order_of_rows(order):
    captions = [" ".join(caption(i // 3)) for i in range(12)]
    straight = groups_of(captions)
    shuffled = groups_of([captions[i] for i in order])
    same = {(i, j) for i in range(12) for j in range(12) if straight[i] == straight[j]}
    assert {(order[i], order[j]) for i in range(12) for j in range(12) if shuffled[i] == shuffled[j]} == same
