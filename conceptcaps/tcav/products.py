"""Products of many small sets of clips with one layer's features, without a copy of all sets at once.

Shapes: `features` float32 or float64 (U, D); `clips` int64 (P, N), rows of `features`, where -1 pads and stands for
the first. Rows are gathered a few problems at a time into one buffer that the processor's second-level cache holds:
gathered whole they would be written to memory, faulted in and read back, which costs as much as the products.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import csr_array

_BLOCK_BYTES = 2**20


def gram_matrices(features: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """(P, N, N), in the features' precision: the inner products of each problem's clips.

    Where the problems share their clips (re-splits of one concept set), these are looked up in the products of all
    clips that occur. `x @ x.T` of one array is BLAS's syrk: half the work.
    """
    num_problems, size = clips.shape
    occurring, place = _occurring(clips, len(features))
    if 2 * len(occurring) ** 2 <= clips.size * size:
        x = features[occurring]
        return (x @ x.T).ravel().take(place[:, :, None] * len(occurring) + place[:, None])
    found = np.empty((num_problems, size, size), features.dtype)
    for part, x in _gathered(features, clips):
        found[part] = x @ x.mT
    return found


def combinations(features: np.ndarray, clips: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(P, D): each problem's clips summed up with `weights` (P, N) of the same dtype, which are zero on padding."""
    num_problems, size = clips.shape
    starts = np.arange(num_problems + 1) * size
    table = csr_array((weights.ravel(), np.maximum(clips, 0).ravel(), starts), shape=(num_problems, len(features)))
    return table @ features


def projections(features: np.ndarray, clips: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """float64 (P, N): each problem's clips along its vector, a row of `vectors` (P, D)."""
    found = np.empty((*clips.shape, 1))
    for part, x in _gathered(features, clips):
        found[part] = x @ vectors[part, :, None].astype(x.dtype)
    return found[..., 0]


def _occurring(clips: np.ndarray, num_clips: int) -> tuple[np.ndarray, np.ndarray]:
    """The clips that occur, in order, and the place of each of `clips` among them."""
    seen = np.zeros(num_clips, dtype=bool)
    seen[np.maximum(clips, 0)] = True
    return np.flatnonzero(seen), (np.cumsum(seen) - 1)[np.maximum(clips, 0)]


def _gathered(features: np.ndarray, clips: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Consecutive problems and their features (some, N, D), valid until the next."""
    num_problems, size = clips.shape
    rows = max(1, _BLOCK_BYTES // (8 * features.shape[1] * max(size, 1)))
    buffer = np.empty((min(rows, num_problems), size, features.shape[1]), features.dtype)
    for start in range(0, num_problems, rows):
        part = slice(start, min(start + rows, num_problems))
        yield part, features.take(clips[part], axis=0, out=buffer[: part.stop - start], mode="clip")
