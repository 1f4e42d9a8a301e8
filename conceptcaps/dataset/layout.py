"""The finished dataset on disk: configs, columns, file names, and Parquet tuned for text or for audio."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from conceptcaps import schema
from conceptcaps.config.dataset import DatasetConfig

FOLDER = "dataset"
STATISTICS = "statistics.json"
ROWS = "rows.parquet"
"""Which row went where: id, split, group and subset, for audits and for the next run to keep to."""

_OURS = (
    "seed",
    "pair_id",
    "sampling_rate",
    "duration",
    "clap_score",
    "clap_score_min",
    "alignment_score",
    "attempt",
    "take",
    "verified_aspects",
)
_TAGS = pa.list_(pa.string())


@dataclass(frozen=True)
class Part:
    """One config of the dataset: all rows or a percentage, with or without audio. Names as published."""

    percent: int
    audio: bool

    @property
    def name(self) -> str:
        if self.percent == 100:
            return "audio" if self.audio else "default"
        return f"{self.percent}pct-audio" if self.audio else f"{self.percent}pct"


def parts(config: DatasetConfig, audio: bool | None = None) -> list[Part]:
    """The dataset's configs; those with or without audio where asked."""
    kinds = (False, True) if audio is None else (audio,)
    return [Part(percent, kind) for kind in kinds for percent in (100, *config.subsets)]


def output_schema(audio_column: str | None) -> pa.Schema:
    """Columns of a config: the published ones with their types, then ours.

    As published, `aspect_list` is the written form of a Python list; `tags` is the same as a list of strings.
    """
    published = [pa.field("id", pa.string()), pa.field("caption", pa.string()), pa.field("aspect_list", pa.string())]
    published += [pa.field(name, _TAGS) for name in schema.ASPECT_COLUMNS[1:]]
    if audio_column:
        published.append(pa.field(audio_column, schema.AUDIO))
    ours = [pa.field("tags", _TAGS), *(schema.SHARD.field(name) for name in _OURS), pa.field("group", pa.string())]
    return pa.schema([*published, *(pa.field(f.name, f.type) for f in ours)])


def shard_columns(audio: bool) -> list[str]:
    """What must be read from the shards for the text or the audio configs."""
    return ["id", "caption", *schema.ASPECT_COLUMNS, *(["audio"] if audio else []), *_OURS]


def to_output(table: pa.Table, wanted: pa.Schema, audio_column: str | None) -> pa.Table:
    """Shard rows, with their `group` column, as rows of a config."""
    columns: dict[str, Any] = {name: table[name] for name in table.column_names}
    columns["tags"] = columns["aspect_list"]
    columns["aspect_list"] = pa.array([str(tags) for tags in table["aspect_list"].to_pylist()], pa.string())
    if audio_column:
        columns[audio_column] = columns["audio"]
    return pa.table([columns[name] for name in wanted.names], schema=wanted)


def file_name(part: str, split: str, index: int, total: int) -> str:
    """A data file's path within the dataset, e.g. 'default/train-00000-of-00002.parquet'."""
    return f"{part}/{split}-{index:05d}-of-{total:05d}.parquet"


@dataclass
class RowGroupWriter:
    """A Parquet file written in row groups of a bounded size, whatever the size of the tables that come.

    Args:
        path: as `fs` wants it.
        rows: most rows of a row group.
        megabytes: most MiB of a row group.
    """

    fs: pafs.FileSystem
    path: str
    schema: pa.Schema
    audio_column: str | None
    rows: int
    megabytes: int
    num_rows: int = 0
    num_bytes: int = 0
    _waiting: list[pa.Table] = field(default_factory=list)

    def __enter__(self) -> RowGroupWriter:
        self.fs.create_dir(self.path.rsplit("/", 1)[0], recursive=True)
        self._file = self.fs.open_output_stream(self.path)
        try:
            self._writer = pq.ParquetWriter(self._file, self.schema, **parquet_options(self.schema, self.audio_column))
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush(everything=True)
        self._writer.close()
        self._file.close()

    def write(self, table: pa.Table) -> None:
        """Append rows."""
        if len(table):
            self._waiting.append(table)
            self.num_rows += len(table)
            self.num_bytes += table.get_total_buffer_size() if self.audio_column is None else table.nbytes
            self._flush()

    def _flush(self, everything: bool = False) -> None:
        waiting = sum(map(len, self._waiting))
        if not waiting:
            return
        size = sum(t.nbytes for t in self._waiting) / 2**20
        if not everything and waiting < self.rows and size < self.megabytes:
            return
        table = pa.concat_tables(self._waiting)
        step = max(1, min(self.rows, int(waiting * self.megabytes / max(size, 1e-9))))
        end = waiting if everything else max(step, waiting - waiting % step)
        for start in range(0, end, step):
            self._writer.write_table(table.slice(start, min(step, end - start)), row_group_size=step)
        # A copy, so that what is left does not keep the whole table alive.
        self._waiting = [table.slice(end).take(list(range(waiting - end)))] if end < waiting else []


def parquet_options(wanted: pa.Schema, audio_column: str | None) -> dict[str, Any]:
    """zstd for text, none for audio (it is compressed already), a page index, and no dictionary of audio bytes."""
    compression: dict[str, str] = {}
    for column in wanted:
        if column.name == audio_column:
            compression |= {f"{column.name}.bytes": "none", f"{column.name}.path": "zstd"}
        elif pa.types.is_list(column.type):
            compression[f"{column.name}.list.element"] = "zstd"
        else:
            compression[column.name] = "zstd"
    plain = {f"{audio_column}.bytes", f"{audio_column}.path"}
    return {
        "compression": compression,
        "use_dictionary": [name for name in compression if name not in plain],
        "write_page_index": True,
        "use_content_defined_chunking": True,  # so that the hub uploads only what changed
    }
