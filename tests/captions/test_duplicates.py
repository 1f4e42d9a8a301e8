from __future__ import annotations

import itertools

import numpy as np
import pytest

from conceptcaps.assets.corpus import load_corpus
from conceptcaps.captions.duplicates import first_alike, simhash


def test_the_same_words_have_the_same_hash():
    assert simhash("A slow song, with drums.") == simhash("a slow song with drum")


def test_near_texts_are_nearer_than_others():
    captions = [row["caption"] for row in load_corpus()[:200]]
    changed = [caption.replace("The ", "This ", 1) for caption in captions]

    def distance(a, b):
        return ((simhash(a) ^ simhash(b)) % 2**64).bit_count()

    near = np.mean([distance(a, b) for a, b in zip(captions, changed, strict=True)])
    far = np.mean([distance(a, b) for a, b in itertools.pairwise(captions)])
    assert near < 0.5 * far


@pytest.mark.parametrize("distance", [0, 3, 7])
def test_banding_finds_what_all_pairs_find(distance):
    rng = np.random.default_rng(0)
    base = [int(v) for v in rng.integers(-(2**63), 2**63 - 1, 30)]
    hashes = [b ^ sum(1 << int(k) for k in set(rng.integers(0, 63, n))) for b in base for n in (0, 1, 3, 6, 10)]

    def brute(i):
        near = [j for j in range(i) if ((hashes[i] ^ hashes[j]) % 2**64).bit_count() <= distance]
        return near[0] if near else None

    assert first_alike(hashes, distance) == [brute(i) for i in range(len(hashes))]
