"""Parquet rows in blocks of a chosen number of rows: what a kill can cost is a block.

Ray's own `read_parquet` makes one block of many small files, and its `repartition(target_num_rows_per_block=...)` adds
an operator that holds a whole CPU, which a two-CPU cluster of standing pools does not have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import ray.data
from ray.data import Dataset
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from conceptcaps.errors import InputError
from conceptcaps.retrying import with_retries
from conceptcaps.rundir import RunDir
from conceptcaps.runtime import TASK_CPUS


@dataclass(frozen=True)
class Slice:
    """What one read task reads."""

    path: str
    start: int
    num_rows: int
    wanted: bytes | None = None
    """Which of these rows, as packed bits; None: all."""

    @property
    def count(self) -> int:
        """Rows that come out."""
        return self.num_rows if self.wanted is None else int(_unpack(self.wanted, self.num_rows).sum())


def read_blocks(run: RunDir, *parts: str, rows_per_block: int, limit: int | None = None) -> Dataset:
    """The rows of all Parquet files below a folder of the run, in order of file and row.

    Args:
        limit: read only the first rows.

    Raises:
        InputError: the folder holds no rows.
    """
    found = list(slices(run.fs, run.files(*parts, suffix=".parquet"), rows_per_block, limit))
    if not found:
        raise InputError(run.uri(*parts), "holds no rows", "Run the stage that writes them first")
    return read(run, found)


def read(run: RunDir, wanted: list[Slice]) -> Dataset:
    """One block per slice."""
    return ray.data.read_datasource(ParquetRows(run.fs, wanted), override_num_blocks=len(wanted), num_cpus=TASK_CPUS)


def missing(run: RunDir, *parts: str, done: pa.Array, rows_per_block: int) -> list[Slice]:
    """The slices of all Parquet files below a folder, without the rows whose ids are in `done`.

    Slices are cut as if nothing were done, so that a row stays with its neighbours over any number of starts.
    """
    found: list[Slice] = []
    for path in run.files(*parts, suffix=".parquet"):
        whole = list(slices(run.fs, [path], rows_per_block))
        if not len(done):
            found += whole
            continue
        ids = with_retries(partial(_read_ids, run.fs, path), f"reading {path}")
        left = pc.invert(pc.is_in(ids, value_set=done)).to_numpy(zero_copy_only=False)
        for piece in whole:
            own = left[piece.start : piece.start + piece.num_rows]
            if own.all():
                found.append(piece)
            elif own.any():
                found.append(replace(piece, wanted=np.packbits(own).tobytes()))
    return found


def _read_ids(fs: pafs.FileSystem, path: str) -> pa.Array:
    return pq.read_table(path, columns=["id"], filesystem=fs, partitioning=None)["id"].combine_chunks()


class ParquetRows(Datasource):
    """One read task per slice."""

    def __init__(self, fs: pafs.FileSystem, wanted: list[Slice]):
        super().__init__()
        self.fs, self.slices = fs, wanted

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        return [
            ReadTask(partial(read_slice, self.fs, piece), _metadata(piece), per_task_row_limit=per_task_row_limit)
            for piece in self.slices
        ]


def slices(fs: pafs.FileSystem, paths: Iterable[str], rows_per_block: int, limit: int | None = None) -> Iterator[Slice]:
    """Every `rows_per_block` rows of each file; the first `limit` rows in all."""
    left = limit
    for path in paths:
        num_rows = with_retries(partial(_num_rows, fs, path), f"reading {path}")
        if left is not None:
            num_rows = min(num_rows, left)
            left -= num_rows
        for start in range(0, num_rows, rows_per_block):
            yield Slice(path, start, min(rows_per_block, num_rows - start))


def _num_rows(fs: pafs.FileSystem, path: str) -> int:
    return pq.read_metadata(path, filesystem=fs).num_rows


def _metadata(piece: Slice) -> BlockMetadata:
    return BlockMetadata(num_rows=piece.count, size_bytes=None, input_files=(piece.path,), exec_stats=None)


def read_slice(fs: pafs.FileSystem, piece: Slice) -> Iterable[pa.Table]:
    """The rows of a slice; only the row groups that hold them are read."""
    table = with_retries(partial(_read, fs, piece.path, piece.start, piece.num_rows), f"reading {piece.path}")
    if piece.wanted is not None:
        table = table.filter(pa.array(_unpack(piece.wanted, piece.num_rows)))
    yield table.combine_chunks()


def _read(fs: pafs.FileSystem, path: str, start: int, num_rows: int) -> pa.Table:
    with fs.open_input_file(path) as handle, pq.ParquetFile(handle) as file:
        groups: list[int] = []
        first = offset = 0
        for index in range(file.num_row_groups):
            length = file.metadata.row_group(index).num_rows
            if offset < start + num_rows and offset + length > start:
                if not groups:
                    first = offset
                groups.append(index)
            offset += length
        return file.read_row_groups(groups).slice(start - first, num_rows)


def _unpack(bits: bytes, num_rows: int) -> np.ndarray:
    return np.unpackbits(np.frombuffer(bits, np.uint8), count=num_rows).astype(bool)
