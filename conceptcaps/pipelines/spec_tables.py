"""Multi-hot rows as tables in `schema.SPECS`: every row with its id and its own seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from conceptcaps import pairs, schema
from conceptcaps.seeding import derive, row_identities
from conceptcaps.vocabulary import CATEGORIES, Vocabulary, aspects_column


def specs_table(matrix: np.ndarray, vocabulary: Vocabulary, run_seed: int, begin: int) -> pa.Table:
    """A table in `schema.SPECS` of multi-hot rows whose indices start at `begin`."""
    ids, seeds = zip(*row_identities(run_seed, begin, begin + len(matrix)), strict=True)
    return _table_of_sets(matrix, vocabulary, ids, seeds, [None] * len(matrix))


def rare_table(rows: np.ndarray, tag: str, vocabulary: Vocabulary, run_seed: int) -> pa.Table:
    """A table in `schema.SPECS` of uint8 (num_rows, num_tags) rows drawn given `tag`, by their number alone."""
    seeds = [derive(run_seed, "rare", tag, number) for number in range(len(rows))]
    return _table_of_sets(rows, vocabulary, [f"rare-{seed:016x}" for seed in seeds], seeds, [None] * len(rows))


def pairs_table(rows: np.ndarray, tag: str, vocabulary: Vocabulary, run_seed: int) -> pa.Table:
    """A table in `schema.SPECS` of uint8 (num_pairs, num_tags) rows that have `tag`, each followed by its twin."""
    matrix = np.repeat(rows, 2, axis=0)
    matrix[1::2, vocabulary.index[tag]] = 0
    names = [pairs.pair_id(tag, number) for number in range(len(rows))]
    seeds = [pairs.pair_seed(run_seed, name) for name in names]
    identities = [
        (row_id, seed, name) for name, seed in zip(names, seeds, strict=True) for row_id in pairs.row_ids(seed)
    ]
    return _table_of_sets(matrix, vocabulary, *map(list, zip(*identities, strict=True)))


def _table_of_sets(
    matrix: np.ndarray, vocabulary: Vocabulary, ids: Sequence[str], seeds: Sequence[int], pair_ids: Sequence[str | None]
) -> pa.Table:
    columns: dict[str, Any] = {"id": pa.array(ids), "seed": pa.array(seeds, pa.int64())}
    columns["aspect_list"] = _lists(matrix, vocabulary.tags)
    for k, category in enumerate(CATEGORIES):
        chosen = vocabulary.category_indices == k
        columns[aspects_column(category)] = _lists(matrix[:, chosen], vocabulary.tags_by_category[category])
    columns["pair_id"] = pa.array(pair_ids, pa.string())
    return pa.table(columns).select(schema.SPECS.names).cast(schema.SPECS)


def _lists(matrix: np.ndarray, tags: tuple[str, ...]) -> pa.ListArray:
    offsets = np.concatenate([[0], np.cumsum(matrix.sum(1, dtype=np.int64))]).astype(np.int32)
    values = pa.array(tags, pa.string()).take(pa.array(np.nonzero(matrix)[1]))
    return pa.ListArray.from_arrays(pa.array(offsets), values)
