"""Parquet rows in blocks of a chosen number of rows: what a kill can cost is a block.

Ray's own `read_parquet` makes one block of many small files, and its `repartition(target_num_rows_per_block=...)` adds
an operator that holds a whole CPU, which a two-CPU cluster of standing pools does not have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import ray.data
from ray.data import Dataset
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from conceptcaps.errors import InputError
from conceptcaps.rundir import RunDir
from conceptcaps.runtime import TASK_CPUS


def read_blocks(run: RunDir, *parts: str, rows_per_block: int, limit: int | None = None) -> Dataset:
    """The rows of all Parquet files below a folder of the run, in order of file and row.

    Args:
        limit: read only the first rows.

    Raises:
        InputError: the folder holds no rows.
    """
    source = ParquetRows(run.fs, run.files(*parts, suffix=".parquet"), rows_per_block, limit)
    if not source.slices:
        raise InputError(run.uri(*parts), "holds no rows", "Run the stage that writes them first")
    return ray.data.read_datasource(source, override_num_blocks=len(source.slices), num_cpus=TASK_CPUS)


class ParquetRows(Datasource):
    """One read task for each `rows_per_block` rows of each file."""

    def __init__(self, fs: pafs.FileSystem, paths: list[str], rows_per_block: int, limit: int | None = None):
        super().__init__()
        self.fs = fs
        self.slices = list(_slices(fs, paths, rows_per_block, limit))

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        return [
            ReadTask(partial(read_slice, self.fs, *piece), _metadata(piece), per_task_row_limit=per_task_row_limit)
            for piece in self.slices
        ]


Slice = tuple[str, int, int]
"""(path, first row, number of rows)"""


def _slices(fs: pafs.FileSystem, paths: list[str], rows_per_block: int, limit: int | None) -> Iterator[Slice]:
    left = limit
    for path in paths:
        num_rows = pq.read_metadata(path, filesystem=fs).num_rows
        if left is not None:
            num_rows = min(num_rows, left)
            left -= num_rows
        for start in range(0, num_rows, rows_per_block):
            yield path, start, min(rows_per_block, num_rows - start)


def _metadata(piece: Slice) -> BlockMetadata:
    path, _, num_rows = piece
    return BlockMetadata(num_rows=num_rows, size_bytes=None, input_files=(path,), exec_stats=None)


def read_slice(fs: pafs.FileSystem, path: str, start: int, num_rows: int) -> Iterable[pa.Table]:
    """Rows [start, start + num_rows) of a Parquet file; only the row groups that hold them are read."""
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
        yield file.read_row_groups(groups).slice(start - first, num_rows).combine_chunks()
