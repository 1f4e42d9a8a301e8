"""One task of the dataset job: read its rows from the shards and write its file of each config and split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from conceptcaps.config.dataset import DatasetConfig
from conceptcaps.dataset.layout import Part, RowGroupWriter, output_schema, shard_columns, to_output
from conceptcaps.dataset.plan import Chunk, mask
from conceptcaps.errors import describe
from conceptcaps.rundir import RunDir

_AUDIO_ROWS = 100  # most rows of a row group with audio: the hub's viewer reads whole row groups
_TEXT_MB = 64

WRITTEN = pa.schema(
    [
        pa.field("file", pa.string()),  # within the dataset, or the shard at fault
        pa.field("rows", pa.int64()),
        pa.field("bytes", pa.int64()),  # as held in memory
        pa.field("error", pa.string()),
    ]
)


def write_chunk(
    run: RunDir,
    folder: str,
    chunk: Chunk,
    paths: Sequence[str],
    config: DatasetConfig,
    metadata: dict[bytes, bytes],
    audio: bool,
) -> pa.Table:
    """Write the files of a chunk below `folder` of the run; a `WRITTEN` row per file, and per shard gone bad."""
    audio_column = config.audio_column if audio else None
    wanted = output_schema(audio_column).with_metadata(metadata)
    bounds = (_AUDIO_ROWS, config.audio_row_group_mb) if audio else (config.text_row_group, _TEXT_MB)
    bad: list[dict[str, object]] = []
    with ExitStack() as stack:
        writers: dict[tuple[Part, str], RowGroupWriter] = {
            key: stack.enter_context(RowGroupWriter(run.fs, run.path(folder, name), wanted, audio_column, *bounds))
            for key, name in chunk.outputs.items()
        }
        for table in _batches(run, chunk, paths, audio, bounds, bad):
            rows = to_output(table, wanted, audio_column)
            for (part, split), writer in writers.items():
                writer.write(rows.filter(mask(table, part, split)))
    done = [
        {"file": name, "rows": writers[key].num_rows, "bytes": writers[key].num_bytes}
        for key, name in chunk.outputs.items()
    ]
    return pa.Table.from_pylist([*done, *bad], schema=WRITTEN)


def _batches(
    run: RunDir,
    chunk: Chunk,
    paths: Sequence[str],
    audio: bool,
    bounds: tuple[int, int],
    bad: list[dict[str, object]],
) -> Iterator[pa.Table]:
    """The chunk's rows with their columns, split, subset and group, gathered over small shard files."""
    waiting: list[pa.Table] = []
    for table in _selected(run, chunk, paths, shard_columns(audio), bounds[0], bad):
        waiting.append(table)
        if sum(map(len, waiting)) >= bounds[0] or sum(t.nbytes for t in waiting) >= bounds[1] * 2**20:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def _selected(
    run: RunDir, chunk: Chunk, paths: Sequence[str], columns: list[str], batch_rows: int, bad: list[dict[str, object]]
) -> Iterator[pa.Table]:
    file = chunk.rows["file"].to_numpy()
    row = chunk.rows["row"].to_numpy()
    borders = np.r_[np.flatnonzero(np.r_[True, file[1:] != file[:-1]]), len(file)]
    for start, end in pairwise(borders):
        path = paths[file[start]]
        place = chunk.rows.select(["split", "subset", "group"]).slice(start, end - start)
        try:
            yield from _of_file(run, path, row[start:end], place, columns, batch_rows)
        except (OSError, pa.ArrowException) as error:
            bad.append({"file": path, "error": describe(error)})


def _of_file(
    run: RunDir, path: str, rows: np.ndarray, place: pa.Table, columns: list[str], batch_rows: int
) -> Iterator[pa.Table]:
    """The rows at the sorted positions `rows` of one shard, a batch at a time."""
    at = 0
    with pq.ParquetFile(path, filesystem=run.fs) as reader:
        for batch in reader.iter_batches(batch_rows, columns=columns):
            low, high = np.searchsorted(rows, [at, at + len(batch)])
            if low < high:
                table = pa.Table.from_batches([batch]).take(pa.array(rows[low:high] - at))
                for name in place.column_names:
                    table = table.append_column(name, place[name].slice(low, high - low))
                yield table
            at += len(batch)
