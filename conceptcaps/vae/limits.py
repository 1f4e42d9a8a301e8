"""At most so many rows of one tag set, in a stream of chunks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from conceptcaps.errors import InputError

_MAX_SPARES = 50


class SetLimit:
    """Replaces rows of tag sets that have been used up, chunk by chunk in order.

    A chunk's rows depend only on the chunks before it, so that a longer run has the shorter one's rows. Memory is
    16 bytes per distinct set.

    Args:
        most: rows that one tag set may have.
    """

    def __init__(self, most: int):
        self.most = most
        self._keys = np.zeros(0, np.uint64)
        self._counts = np.zeros(0, np.int64)

    def add(self, rows: np.ndarray) -> None:
        """Count uint8 (num_rows, num_tags) rows that are kept anyway."""
        self._count(hash_rows(rows))

    def apply(self, rows: np.ndarray, spare: Callable[[int], np.ndarray]) -> np.ndarray:
        """Rows of the same shape, uint8 (num_rows, num_tags), none over the limit.

        Args:
            rows: a chunk.
            spare: n -> the chunk's n-th set of replacements.

        Raises:
            InputError: the model does not make enough different sets.
        """
        fine = self._take(rows, len(rows))
        kept = rows.copy()
        missing = np.flatnonzero(~fine)
        for attempt in range(1, _MAX_SPARES + 1):
            if not len(missing):
                return kept
            candidates = spare(attempt)
            chosen = candidates[self._take(candidates, len(missing))]
            kept[missing[: len(chosen)]] = chosen
            missing = missing[len(chosen) :]
        if not len(missing):
            return kept
        raise InputError(
            "key 'specs.max_per_set'",
            f"{len(missing)} rows found no tag set with fewer than {self.most} rows",
            "Raise it, lower num_samples, or raise temperature",
        )

    def _take(self, rows: np.ndarray, wanted: int) -> np.ndarray:
        """bool (num_rows,): the first `wanted` rows below the limit, which now count as used."""
        keys = hash_rows(rows)
        fine = self._used(keys) + _occurrence(keys) < self.most
        fine &= np.cumsum(fine) <= wanted
        self._count(keys[fine])
        return fine

    def _count(self, keys: np.ndarray) -> None:
        added, counts = np.unique(keys, return_counts=True)
        self._keys, place = np.unique(np.concatenate([self._keys, added]), return_inverse=True)
        self._counts = np.bincount(place, np.concatenate([self._counts, counts])).astype(np.int64)

    def _used(self, keys: np.ndarray) -> np.ndarray:
        if not len(self._keys):
            return np.zeros(len(keys), np.int64)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[at] == keys, self._counts[at], 0)


def _occurrence(keys: np.ndarray) -> np.ndarray:
    """int (n,): how many equal keys come before each."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    run_length = np.diff(np.append(starts, len(keys)))
    rank = np.empty(len(keys), np.int64)
    rank[order] = np.arange(len(keys)) - np.repeat(starts, run_length)
    return rank


def hash_rows(matrix: np.ndarray) -> np.ndarray:
    """uint64 (num_rows,): a well mixed key per multi-hot row (Zobrist 1970: the xor of one random word per tag)."""
    random = np.random.Generator(np.random.Philox(0))
    words: np.ndarray = random.integers(0, 2**64, (matrix.shape[1],), dtype=np.uint64)
    keys = np.zeros(len(matrix), np.uint64)
    rows, columns = np.nonzero(matrix)
    np.bitwise_xor.at(keys, rows, words[columns])
    return keys
