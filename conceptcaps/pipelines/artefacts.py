"""What stages leave in a run, read as arrays: the vocabulary, the contradictions, rows as multi-hot vectors."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from conceptcaps import schema
from conceptcaps.contradictions import Contradictions
from conceptcaps.errors import InputError
from conceptcaps.rundir import RunDir
from conceptcaps.vocabulary import Vocabulary

ROW_GROUP = 1024
"""Rows per row group: the least that a read task of the streaming plan reads."""


def read_vocabulary(run: RunDir) -> Vocabulary:
    """The taxonomy stage's vocabulary."""
    parts = ("taxonomy", "concepts_to_tags.json")
    return Vocabulary.from_json(run.read_bytes(*parts), run.uri(*parts))


def read_contradictions(run: RunDir) -> Contradictions:
    """The taxonomy stage's table of contradictions."""
    parts = ("taxonomy", "contradictions.json")
    return Contradictions.from_json(run.read_bytes(*parts), run.uri(*parts))


def read_matrix(run: RunDir, vocabulary: Vocabulary) -> np.ndarray:
    """uint8 (num_rows, num_tags): the taxonomy stage's rows, multi-hot.

    Raises:
        InputError: there are no rows, or their files lack `aspect_list`.
    """
    files = run.files("taxonomy", "rows", suffix=".parquet")
    parts = [encode_lists(column, vocabulary) for path in files for column in aspect_lists(run, path)]
    matrix = np.concatenate(parts) if parts else np.zeros((0, len(vocabulary)), np.uint8)
    if not len(matrix):
        raise InputError(
            run.uri("taxonomy", "rows"), "holds no rows", "Run the taxonomy stage on annotations that match"
        )
    return matrix


def aspect_lists(run: RunDir, path: str) -> Iterator[pa.Array]:
    """The `aspect_list` column of one Parquet file, batch by batch."""
    wanted = pa.schema([schema.SPECS.field("aspect_list")])
    with run.fs.open_input_file(path) as source:
        file = pq.ParquetFile(source)
        schema.check(file.schema_arrow, wanted, path)
        for batch in file.iter_batches(columns=["aspect_list"]):
            yield batch.column(0)


def encode_lists(lists: pa.ListArray, vocabulary: Vocabulary) -> np.ndarray:
    """uint8 (num_rows, num_tags) of an Arrow list<string> array; tags outside the vocabulary are left out."""
    lists = lists.fill_null(pa.scalar([], lists.type)) if lists.null_count else lists
    rows = np.repeat(np.arange(len(lists)), np.diff(lists.offsets.to_numpy()))
    columns = pc.index_in(lists.flatten(), value_set=pa.array(vocabulary.tags)).fill_null(-1).to_numpy()
    matrix = np.zeros((len(lists), len(vocabulary)), np.uint8)
    matrix[rows[columns >= 0], columns[columns >= 0]] = 1
    return matrix


def write_table(table: pa.Table, run: RunDir, *parts: str) -> None:
    """Write a table as one Parquet file, whole or not at all."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=ROW_GROUP)
    run.write_bytes(sink.getvalue(), *parts)
