"""Which rows would leak into one another: groups that must stay in one split.

Rows belong together that share a tag combination, are the two of a counterfactual pair, or have near-duplicate
captions: Jaccard similarity of three-word shingles, estimated by MinHash and found by banding (Broder 1997; Leskovec,
Rajaraman and Ullman, Mining of Massive Datasets, 3.3-3.4). Groups are the connected components of these links.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from conceptcaps import seeding

NUM_HASHES = 64
_BANDS, _ROWS = 16, 4  # two captions of similarity .7 share a band with probability .99
_MARGIN = 0.05  # about one standard error of an estimate from 64 hashes: links rather too much than too little
_LAGS = 8  # neighbours compared with each row of a bucket, besides the bucket's first row
_PAIRS_AT_ONCE = 200_000
_WORDS = re.compile(r"\w+")
_MULTIPLIERS = seeding.generator(0, "minhash").integers(1, 2**63, NUM_HASHES, dtype=np.uint64) * 2 + 1
_MIX = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], dtype=np.uint64)


def key(parts: Iterable[str]) -> int:
    """int64 that is equal for equal sets of strings, whatever their order; 0 for none."""
    text = "\x1f".join(sorted(set(parts)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1 if text else 0


def shingles(caption: str) -> list[tuple[str, ...]]:
    """Every run of three lower-cased words; the whole caption where it has fewer."""
    words = _WORDS.findall(caption.lower())
    return [tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))]


def jaccard(first: str, second: str) -> float:
    """The exact similarity in [0, 1] of two captions' shingles."""
    a, b = set(shingles(first)), set(shingles(second))
    return len(a & b) / len(a | b)


def signatures(captions: Sequence[str]) -> np.ndarray:
    """uint32 (num_captions, NUM_HASHES): MinHash signatures; two agree in about a share `jaccard` of their columns."""
    if not captions:
        return np.zeros((0, NUM_HASHES), np.uint32)
    hashes = [_shingle_hashes(caption) for caption in captions]
    starts = np.cumsum([0, *(len(h) for h in hashes[:-1])])
    flat = np.concatenate(hashes)
    columns = [np.minimum.reduceat((flat * m) >> np.uint64(32), starts) for m in _MULTIPLIERS]
    return np.stack(columns, axis=1).astype(np.uint32)


def _shingle_hashes(caption: str) -> np.ndarray:
    """uint64 (num_shingles,)."""
    words = np.array([zlib.crc32(w.encode()) for w in _WORDS.findall(caption.lower())] or [0], dtype=np.uint64)
    words = np.pad(words + np.uint64(1), (0, max(0, 3 - len(words))))
    mixed = words[:-2] * _MIX[0] + words[1:-1] * _MIX[1] + words[2:] * _MIX[2]
    return (mixed ^ (mixed >> np.uint64(29))) * _MIX[1]


def group_rows(keys: Sequence[np.ndarray], captions: np.ndarray | None, threshold: float) -> np.ndarray:
    """The group of each row, named by the position of the group's first row.

    Args:
        keys: int64 (num_rows,) arrays; rows with an equal value other than 0 in one of them belong together.
        captions: signatures, uint32 (num_rows, NUM_HASHES); None leaves captions out.
        threshold: similarity from which captions are near-duplicates.

    Returns:
        int64 (num_rows,): positions of first rows.
    """
    num_rows = len(keys[0])
    links = [_equal(values) for values in keys]
    if captions is not None and num_rows:
        links += _similar(captions, threshold)
    first, second = (np.concatenate([link[side] for link in links]) for side in (0, 1))
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(num_rows, num_rows))
    _, component = connected_components(graph, directed=False)
    _, first_rows, which = np.unique(component, return_index=True, return_inverse=True)
    return first_rows[which].astype(np.int64)


def _equal(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Links between rows of equal value, each to the next one."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    same = (ordered[1:] == ordered[:-1]) & (ordered[1:] != 0)
    return order[:-1][same], order[1:][same]


def _similar(captions: np.ndarray, threshold: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Links between rows that share a band and whose signatures agree enough."""
    for band in range(_BANDS):
        part = captions[:, band * _ROWS : (band + 1) * _ROWS].astype(np.uint64)
        value = (part * _MULTIPLIERS[:_ROWS]).sum(1, dtype=np.uint64)
        order = np.lexsort((captions[:, 0], captions[:, -1], value))
        for first, second in _candidates(value[order]):
            yield _agreeing(captions, order[first], order[second], threshold - _MARGIN)


def _candidates(ordered: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions to compare in a sorted array: near neighbours of equal value, and each with the first of its run."""
    for lag in range(1, min(_LAGS, len(ordered) - 1) + 1):
        at = np.flatnonzero(ordered[lag:] == ordered[:-lag])
        yield at, at + lag
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    heads = np.repeat(starts, np.diff(np.r_[starts, len(ordered)]))
    far = np.flatnonzero(np.arange(len(ordered)) - heads > _LAGS)
    yield heads[far], far


def _agreeing(
    captions: np.ndarray, first: np.ndarray, second: np.ndarray, least: float
) -> tuple[np.ndarray, np.ndarray]:
    keep = np.zeros(len(first), bool)
    for at in range(0, len(first), _PAIRS_AT_ONCE):
        part = slice(at, at + _PAIRS_AT_ONCE)
        keep[part] = (captions[first[part]] == captions[second[part]]).mean(1) >= least
    return first[keep], second[keep]
