"""Read and check annotations: CSV, Parquet, JSON lines, the hub; one malformed row never stops the others.

A source is split into parts that can be read anywhere; reading a part streams Arrow tables of raw rows, and parsing a
table finds each row's tags or what is wrong with it.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from conceptcaps.errors import InputError
from conceptcaps.taxonomy.aspects import parse_aspects

EMBEDDED = "embedded"
EMBEDDED_CORPUS, EMBEDDED_TAXONOMY = "corpus.csv.gz", "concepts_to_tags.json"
NEEDED = ("caption", "aspect_list")
FREQUENCY_COLUMNS = ("Tag", "Count")
PARSED = pa.schema(
    [
        pa.field("row", pa.int64()),  # 1 is the first row after the header
        pa.field("file", pa.string()),
        pa.field("caption", pa.string()),
        pa.field("tags", pa.list_(pa.string())),  # as written
        pa.field("problem", pa.string()),  # null for a good row
    ]
)

_ROWS_PER_TABLE = 4096
_SUFFIXES = {"csv": "csv", "parquet": "parquet", "jsonl": "jsonl", "ndjson": "jsonl", "json": "jsonl"}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LONGEST_FIELD = 2**20
_ADVICE = f"Annotations need the columns {' and '.join(NEEDED)}"


@dataclass(frozen=True)
class Part:
    """What one read task reads: a file, or some row groups of a Parquet file."""

    location: str
    kind: str
    first_row: int = 1
    row_groups: tuple[int, ...] = ()


def find_parts(annotations: str) -> list[Part]:
    """The parts of a source, columns checked; [] for a hub id, which `load_hub` reads.

    Args:
        annotations: 'embedded', a path or URI of a file or a folder, or a hub id.

    Raises:
        InputError: nothing is there, the kind is unknown, or columns are missing (names file, missing and found).
    """
    if annotations == EMBEDDED:
        part = Part(EMBEDDED, "csv")
        if not resources.files("conceptcaps.assets").joinpath(EMBEDDED_CORPUS).is_file():
            raise InputError("taxonomy.annotations 'embedded'", "the corpus is not in this package", "Reinstall it")
        check_columns(columns_of(part), EMBEDDED)
        return [part]
    files = _files(annotations)
    if not files:
        if is_hub_id(annotations):
            return []
        raise InputError(annotations, "does not exist", "Give a CSV, Parquet or JSON lines file, or a hub id")
    parts = [part for location in files for part in _parts_of_file(location)]
    for part in {p.location: p for p in parts}.values():
        if not is_frequencies(part):
            check_columns(columns_of(part), part.location)
    return parts


def is_hub_id(annotations: str) -> bool:
    """Whether the text looks like 'owner/name' and not like a file."""
    return bool(_HUB_ID.fullmatch(annotations)) and _suffix(annotations) not in _SUFFIXES


def is_frequencies(part: Part) -> bool:
    """Whether a part is a table of tags and counts rather than annotated rows."""
    return part.kind == "csv" and set(FREQUENCY_COLUMNS) <= set(columns_of(part))


def check_columns(found: Iterable[str], where: str) -> None:
    """Refuse a table without the needed columns.

    Raises:
        InputError: naming the source, the missing columns and those found.
    """
    names = list(found)
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise InputError(where, f"lacks the column{'s' * (len(missing) > 1)} {missing}; it has {names}", _ADVICE)


def columns_of(part: Part) -> list[str]:
    """The column names of a part's file.

    Raises:
        InputError: the file is empty or not of its kind.
    """
    with _opened(part) as stream:
        if part.kind == "parquet":
            return list(_parquet(stream, part).schema_arrow.names)
        first = next(_lines(stream), "")
        if part.kind == "csv":
            return [name.strip() for name in next(csv.reader([first]), [])]
        try:
            record = json.loads(first)
        except ValueError as error:
            raise InputError(f"{part.location}, row 1", f"is not JSON ({error})", "Write one object a line") from error
        return list(record) if isinstance(record, dict) else []


def read_part(part: Part) -> Iterator[pa.Table]:
    """Stream a part's rows as tables of row, file, caption, aspect_list (text or list) and problem."""
    readers: dict[str, Callable[[Part], Iterator[dict[str, Any]]]] = {
        "csv": _read_csv,
        "jsonl": _read_jsonl,
        "parquet": _read_parquet,
    }
    chunk: list[dict[str, Any]] = []
    for record in readers[part.kind](part):
        chunk.append(record)
        if len(chunk) == _ROWS_PER_TABLE:
            yield _raw_table(chunk, part)
            chunk = []
    if chunk:
        yield _raw_table(chunk, part)


def read_frequencies(part: Part) -> dict[str, int]:
    """tag -> count of a CSV with columns Tag and Count.

    Raises:
        InputError: a count that is no whole number, naming its row.
    """
    counts: dict[str, int] = {}
    with _opened(part) as stream:
        for row, record in enumerate(csv.DictReader(_lines(stream)), start=1):
            tag, count = record[FREQUENCY_COLUMNS[0]], record[FREQUENCY_COLUMNS[1]]
            if not count.isdigit():
                raise InputError(f"{part.location}, row {row}", f"Count is {count!r}", "Give a whole number")
            counts[tag] = counts.get(tag, 0) + int(count)
    return counts


def load_hub(name: str, split: str) -> pa.Table:
    """A hub dataset's rows as one table like those of `read_part`.

    Raises:
        InputError: the hub cannot be reached, or it has no such dataset, split or columns.
    """
    import datasets

    try:
        dataset = datasets.load_dataset(name, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetNotFoundError) as error:
        text = " ".join(str(error).split())[:300]
        raise InputError(name, f"cannot be loaded from the hub ({text})", "Check id, split and network") from error
    check_columns(dataset.column_names, name)
    rows = enumerate(dataset.select_columns(list(NEEDED)), start=1)
    records = [_good(i, row["caption"], row["aspect_list"]) for i, row in rows]
    return _raw_table(records, Part(name, "hub"))


def parse_table(raw: pa.Table) -> pa.Table:
    """Raw rows to rows of schema `PARSED`: tags, or the problem in words."""
    tags: list[list[str]] = []
    problems: list[str | None] = []
    captions = raw["caption"].to_pylist()
    for caption, aspects, problem in zip(
        captions, raw["aspect_list"].to_pylist(), raw["problem"].to_pylist(), strict=True
    ):
        found, trouble = _checked(caption, aspects, problem)
        tags.append(found)
        problems.append(trouble)
    columns = {"row": raw["row"], "file": raw["file"], "caption": captions, "tags": tags, "problem": problems}
    return pa.table(columns, schema=PARSED)


def _checked(caption: Any, aspects: Any, problem: str | None) -> tuple[list[str], str | None]:
    if problem is not None:
        return [], problem
    if not isinstance(caption, str) or not caption.strip():
        return [], "caption is empty"
    if "\ufffd" in caption or "\ufffd" in str(aspects):
        return [], "is not UTF-8"
    try:
        return parse_aspects(aspects), None
    except (ValueError, SyntaxError) as error:
        return [], str(error)


def _files(annotations: str) -> list[str]:
    """The files at a path or URI; of a folder, those of a known kind. Empty if there are none."""
    fs, path = _filesystem(annotations)
    info = fs.get_file_info(path)
    if info.type == pafs.FileType.File:
        return [annotations]
    if info.type != pafs.FileType.Directory:
        return []
    found = fs.get_file_info(pafs.FileSelector(path, recursive=True))
    base = annotations.rstrip("/")
    names = sorted(posixpath.relpath(i.path, path) for i in found if i.type == pafs.FileType.File)
    return [posixpath.join(base, name) for name in names if _suffix(name) in _SUFFIXES]


def _filesystem(location: str) -> tuple[pafs.FileSystem, str]:
    try:
        if "://" in location:
            return pafs.FileSystem.from_uri(location)
    except (OSError, ValueError) as error:
        raise InputError(location, f"cannot be opened ({error})", "Give a local path or a URI") from error
    return pafs.LocalFileSystem(), str(Path(location).expanduser().absolute())


def _suffix(location: str) -> str:
    return location.lower().removesuffix(".gz").rpartition(".")[2]


def _parts_of_file(location: str) -> list[Part]:
    kind = _SUFFIXES.get(_suffix(location))
    if kind is None:
        raise InputError(location, "is of an unknown kind", f"Give a file ending in {sorted(_SUFFIXES)} (or .gz)")
    location = location if "://" in location else str(Path(location).expanduser().absolute())
    whole = Part(location, kind)
    if kind != "parquet":
        return [whole]
    parts, first = [], 1
    with _opened(whole) as stream:
        metadata = _parquet(stream, whole).metadata
        for group in range(metadata.num_row_groups):
            parts.append(Part(location, kind, first, (group,)))
            first += metadata.row_group(group).num_rows
    return parts or [whole]


def _opened(part: Part) -> Any:
    """The part's bytes: random access for Parquet, else a stream, decompressed where the name ends in .gz."""
    try:
        if part.location == EMBEDDED:
            data = resources.files("conceptcaps.assets").joinpath(EMBEDDED_CORPUS).read_bytes()
            return pa.CompressedInputStream(pa.BufferReader(data), "gzip")
        fs, path = _filesystem(part.location)
        return fs.open_input_file(path) if part.kind == "parquet" else fs.open_input_stream(path)
    except OSError as error:
        raise InputError(part.location, f"cannot be read ({error})", "Check the path and its permissions") from error


def _parquet(stream: Any, part: Part) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(stream)
    except pa.ArrowInvalid as error:
        raise InputError(part.location, f"is not Parquet ({error})", "Mend the file or give another one") from error


def _lines(stream: Any) -> Iterator[str]:
    # Bytes that are not UTF-8 become U+FFFD, by which their row is reported.
    yield from io.TextIOWrapper(io.BufferedReader(_RawReader(stream)), "utf-8-sig", errors="replace", newline="")


class _RawReader(io.RawIOBase):
    """An Arrow stream as the raw file that Python's text layer wants; Arrow's own lacks `read1`."""

    def __init__(self, stream: Any):
        self.stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _read_csv(part: Part) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(_LONGEST_FIELD)
    with _opened(part) as stream:
        reader = csv.reader(_lines(stream))
        header = [name.strip() for name in next(reader, [])]
        at_caption, at_aspects = (header.index(name) for name in NEEDED)
        row = 0
        while True:
            row += 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield _bad(row, f"is not CSV ({error})")
                continue
            if len(fields) == len(header):
                yield _good(row, fields[at_caption], fields[at_aspects])
            elif fields:
                yield _bad(row, f"has {len(fields)} fields, the header has {len(header)}")


def _read_jsonl(part: Part) -> Iterator[dict[str, Any]]:
    with _opened(part) as stream:
        for row, line in enumerate(_lines(stream), start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                yield _bad(row, f"is not JSON ({error})")
                continue
            if not isinstance(record, Mapping):
                yield _bad(row, "is not a JSON object")
                continue
            yield _good(row, record.get("caption"), record.get("aspect_list"))


def _read_parquet(part: Part) -> Iterator[dict[str, Any]]:
    with _opened(part) as stream:
        file = _parquet(stream, part)
        row = part.first_row
        for batch in file.iter_batches(_ROWS_PER_TABLE, row_groups=list(part.row_groups), columns=list(NEEDED)):
            for caption, aspects in zip(batch["caption"].to_pylist(), batch["aspect_list"].to_pylist(), strict=True):
                yield _good(row, caption, aspects)
                row += 1


def _good(row: int, caption: Any, aspects: Any) -> dict[str, Any]:
    # One Arrow type for lists and texts alike: a list travels as JSON.
    text = aspects if aspects is None or isinstance(aspects, str) else json.dumps(aspects, default=str)
    return {"row": row, "caption": _valid(caption), "aspect_list": _valid(text), "problem": None}


def _valid(text: Any) -> str | None:
    """The text with what Arrow cannot hold (lone surrogates of JSON escapes) marked; None for what is no text."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace") if isinstance(text, str) else None


def _bad(row: int, problem: str) -> dict[str, Any]:
    return {"row": row, "caption": None, "aspect_list": None, "problem": problem}


def _raw_table(records: list[dict[str, Any]], part: Part) -> pa.Table:
    schema = pa.schema(
        [("row", pa.int64()), ("caption", pa.string()), ("aspect_list", pa.string()), ("problem", pa.string())]
    )
    table = pa.Table.from_pylist(records, schema=schema)
    return table.append_column("file", pa.array([part.location] * len(records), pa.string()))
