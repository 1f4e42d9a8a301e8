"""The limit on rows of one tag set."""

import numpy as np
import pytest

from conceptcaps.errors import InputError
from conceptcaps.vae.limits import SetLimit, hash_rows


def rows_of(*numbers: int) -> np.ndarray:
    return ((np.array(numbers)[:, None] >> np.arange(6)) & 1).astype(np.uint8)


def numbers(rows: np.ndarray) -> list[int]:
    return (rows @ (1 << np.arange(6))).tolist()


def test_replaces_what_is_over_the_limit_in_order():
    limit = SetLimit(2)
    made = limit.apply(rows_of(1, 1, 1, 2), lambda n: rows_of(1, 2, 2, 3))
    assert numbers(made) == [1, 1, 2, 2]
    made = limit.apply(rows_of(1, 4, 2), lambda n: rows_of(2, n, n + 1))
    assert numbers(made) == [3, 4, 3]


def test_refuses_what_cannot_be():
    with pytest.raises(InputError, match="max_per_set"):
        SetLimit(1).apply(rows_of(1, 1), lambda n: rows_of(1))


def test_keys_tell_sets_apart():
    every = rows_of(*range(64))
    assert len(np.unique(hash_rows(every))) == 64
    np.testing.assert_array_equal(hash_rows(every[::-1]), hash_rows(every)[::-1])
