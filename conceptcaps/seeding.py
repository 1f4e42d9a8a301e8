"""Randomness is an argument: ids, seeds and generators, all derived by hashing and never from global state."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np


def derive(seed: int, *names: str | int) -> int:
    """A seed in [0, 2**63) for one purpose, independent of every other purpose's.

    Args:
        seed: the parent seed.
        names: what the new seed is for, e.g. ("audio", take, attempt).
    """
    return _value(_digest(seed, *names))


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator (Philox, counter-based) for `derive(seed, *names)`."""
    return np.random.Generator(np.random.Philox(derive(seed, *names)))


def row_identity(run_seed: int, index: int) -> tuple[str, int]:
    """The id and the seed that the row with this index carries from birth to shard.

    Both depend only on (run_seed, index): a row is the same row whatever batch, worker or run length it meets.
    Ids sort by index within a run; the suffix keeps rows of differently seeded runs apart when they are merged.
    """
    return next(row_identities(run_seed, index, index + 1))


def row_identities(run_seed: int, begin: int, end: int) -> Iterator[tuple[str, int]]:
    """`row_identity` of the rows [begin, end): what they share is hashed once."""
    shared = _digest(run_seed, "row", "")
    for index in range(begin, end):
        own = shared.copy()
        own.update(b"%d" % index)
        seed = _value(own)
        yield f"{index:09d}-{seed & 0xFFFFFFFF:08x}", seed


def _digest(seed: int, *names: str | int) -> Any:
    return hashlib.blake2b("\x1f".join([str(int(seed)), *map(str, names)]).encode(), digest_size=8)


def _value(digest: Any) -> int:
    return int.from_bytes(digest.digest(), "big") >> 1
