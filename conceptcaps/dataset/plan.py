"""Where every accepted row goes: its group, split and subsets, the output files, and who writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conceptcaps.config.dataset import DatasetConfig
from conceptcaps.dataset.groups import group_rows
from conceptcaps.dataset.index import Rows
from conceptcaps.dataset.layout import Part, file_name, parts
from conceptcaps.dataset.splits import SPLITS, Unstratified, stratify, unstratified
from conceptcaps.errors import InputError

_TEXT_ROWS = 200_000  # per chunk; text is some hundred bytes a row


@dataclass(frozen=True)
class Placement:
    """The split of a run's accepted rows."""

    rows: Rows
    groups: np.ndarray
    """int64 (num_rows,): position of the first row of each row's group."""
    splits: np.ndarray
    """int8 (num_rows,): position in `SPLITS`."""
    subset: np.ndarray
    """int8 (num_rows,): the smallest percentage that the row is part of, 100 where in none but the whole."""
    unstratified: list[Unstratified]
    num_moved: int
    """Rows whose split differs from the earlier one."""

    def table(self) -> pa.Table:
        """Columns file, row, id, split, subset, group, in the order of ids."""
        ids = self.rows.ids
        return pa.table(
            {
                "file": self.rows.file,
                "row": self.rows.row,
                "id": ids,
                "split": pa.DictionaryArray.from_arrays(pa.array(self.splits), pa.array(SPLITS)),
                "subset": self.subset,
                "group": ids.take(pa.array(self.groups)),
            }
        )

    def statistics(self) -> dict[str, Any]:
        """Counts for the card and the manifest."""
        tags = self.rows.tags
        by_tag = tags.counts(self.splits, len(SPLITS))
        sizes = np.bincount(self.groups)
        return {
            "rows": len(self.rows),
            "splits": dict(zip(SPLITS, np.bincount(self.splits, minlength=len(SPLITS)).tolist(), strict=True)),
            "groups": int((sizes > 0).sum()),
            "largest_group": int(sizes.max()),
            "rows_moved": self.num_moved,
            "unstratified": [str(u) for u in self.unstratified],
            "tags": {
                name: dict(zip(SPLITS, row, strict=True)) for name, row in zip(tags.names, by_tag.tolist(), strict=True)
            },
        }


def place(rows: Rows, config: DatasetConfig, previous: pa.Table | None = None) -> Placement:
    """Group, split and subset the rows.

    Args:
        previous: columns id and split of an earlier run on fewer rows, whose splits are kept.

    Raises:
        InputError: no rows; fewer groups than splits; concepts that lack positives where the config refuses that.
    """
    if not len(rows):
        raise InputError("the shards", "hold no accepted row", "See `conceptcaps status`; lower alignment.threshold")
    groups = np.arange(len(rows))
    if config.group:
        groups = group_rows(rows.keys, rows.signatures, config.near_duplicate)
    before = _splits_before(rows, previous)
    fractions = (config.train, config.validation, config.test)
    splits = stratify(groups, rows.tags, fractions, rows.draws, before, config.min_concept_rows)
    lacking = unstratified(splits, groups, rows.tags, config.min_concept_rows)
    if lacking and config.unstratified == "refuse":
        raise InputError(
            "the splits",
            "; ".join(map(str, lacking[:10])) + (f"; and {len(lacking) - 10} more" if len(lacking) > 10 else ""),
            "Make more rows, raise dataset.min_concept_rows, or set dataset.unstratified=warn",
        )
    moved = int(((before >= 0) & (before != splits)).sum()) if before is not None else 0
    return Placement(rows, groups, splits, _subsets(rows.rank, splits, config.subsets), lacking, moved)


def _splits_before(rows: Rows, previous: pa.Table | None) -> np.ndarray | None:
    if previous is None:
        return None
    codes = pc.index_in(previous["split"].cast(pa.string()), pa.array(SPLITS)).to_numpy()
    at = pc.fill_null(pc.index_in(rows.ids, previous["id"].combine_chunks()), -1).to_numpy(zero_copy_only=False)
    return np.where(at >= 0, codes[at], -1).astype(np.int8)


def _subsets(rank: np.ndarray, splits: np.ndarray, percents: Sequence[int]) -> np.ndarray:
    """The smallest percentage of each row, with at least one row of each percentage in each split that has any."""
    subset = np.full(len(rank), 100, np.int8)
    for percent in sorted(percents, reverse=True):
        subset[rank * 100 < percent] = percent
    for split in np.unique(splits) if percents else ():
        own = np.flatnonzero(splits == split)
        subset[own[np.argmin(rank[own])]] = min(percents)
    return subset


@dataclass(frozen=True)
class Chunk:
    """What one task reads and writes: rows of consecutive shard files, into at most one file per config and split."""

    rows: pa.Table
    """Columns file, row, split, subset, group; in the order of (file, row)."""
    outputs: dict[tuple[Part, str], str]
    """(config, split) -> the path of its file within the dataset."""


def chunks(placement: Placement, config: DatasetConfig, sizes: Sequence[int], audio: bool) -> list[Chunk]:
    """Cut the rows into tasks, at shard file borders, and name the files that each writes.

    Args:
        sizes: bytes of each shard file.
    """
    table = placement.table().drop_columns("id").sort_by([("file", "ascending"), ("row", "ascending")])
    file = table["file"].to_numpy()
    weight = np.full(len(file), 1 / _TEXT_ROWS)
    if audio:
        own = np.asarray(sizes)[file] / np.bincount(file)[file]
        weight = np.maximum(weight, own / (config.shard_mb * 2**20))
    borders = _borders(file, weight)
    slices = [table.slice(start, end - start) for start, end in pairwise(borders)]
    outputs: list[dict[tuple[Part, str], str]] = [{} for _ in slices]
    for part in parts(config, audio):
        for split in SPLITS:
            # A split without rows still gets one file, so that every config loads.
            holding = [i for i, s in enumerate(slices) if _holds(s, part, split)] or [0]
            for number, i in enumerate(holding):
                outputs[i][part, split] = file_name(part.name, split, number, len(holding))
    return [Chunk(rows, names) for rows, names in zip(slices, outputs, strict=True)]


def _borders(file: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Row positions at which chunks begin and end: whole files, about a weight of 1 each."""
    starts = np.flatnonzero(np.r_[True, file[1:] != file[:-1]])
    ends_at = np.r_[starts[1:], len(file)]
    which = (np.cumsum(weight)[ends_at - 1] - 1e-9) // 1
    first = starts[np.r_[True, which[1:] != which[:-1]]]
    return np.r_[first, len(file)]


def _holds(rows: pa.Table, part: Part, split: str) -> bool:
    return bool(pc.any(mask(rows, part, split)).as_py())


def mask(rows: pa.Table, part: Part, split: str) -> pa.ChunkedArray:
    """bool (num_rows,): the rows of one config and split."""
    return pc.and_(pc.equal(rows["split"].cast(pa.string()), split), pc.less_equal(rows["subset"], part.percent))
