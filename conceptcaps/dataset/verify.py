"""Read every shard back, file by file, and name the exact offender."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from conceptcaps import schema, signal
from conceptcaps.errors import InputError, describe
from conceptcaps.rundir import Manifest, RunDir

_ROWS_PER_READ = 16  # of up to some MB of audio each
_MOST_NAMED = 20  # ids named one by one before the rest is counted
_DURATION_TOLERANCE = 0.06  # seconds; MP3 and Ogg pad to whole frames
_READ = ("id", "caption", "aspect_list", "audio", "sampling_rate", "duration", "status", "reason", "attempt")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: the file, the row's id (empty where it is the whole file's) and what is wrong."""

    file: str
    row: str
    problem: str

    def __str__(self) -> str:
        return f"{self.file}, row {self.row}: {self.problem}" if self.row else f"{self.file}: {self.problem}"


@dataclass
class _Seen:
    """What is kept of the rows read so far: a few bytes each, never their audio."""

    latest: dict[str, tuple[int, str]] = field(default_factory=dict)
    """id -> (highest attempt, its status)."""
    place: dict[tuple[str, int], str] = field(default_factory=dict)
    """(id, attempt) -> the file that holds it."""


def verify(run: RunDir) -> list[Problem]:
    """Everything that is wrong with a run's shards; an empty list says all is well.

    Checks each file's schema, each row's status, reason and audio (decodable, of the stated rate and duration), that
    (id, attempt) is unique, that each spec ends as exactly one latest row, and the counts against the manifest.

    Raises:
        InputError: the run has no shards.
    """
    files = run.files("shards", suffix=".parquet")
    if not files:
        raise InputError(run.uri("shards"), "holds no Parquet files", "Run `conceptcaps generate` first")
    seen = _Seen()
    problems: list[Problem] = []
    for path in files:
        problems += _verify_file(run, path, seen)
    return [*problems, *_against_specs(run, seen), *_against_manifest(run, seen), *_verify_dataset(run)]


def relative(run: RunDir, path: str) -> str:
    """A file's path within the run directory."""
    return path.removeprefix(run.root).lstrip("/")


def _verify_file(run: RunDir, path: str, seen: _Seen) -> Iterator[Problem]:
    name = relative(run, path)
    try:
        with pq.ParquetFile(path, filesystem=run.fs) as file:
            schema.check(file.schema_arrow, schema.SHARD, name)
            for batch in file.iter_batches(_ROWS_PER_READ, columns=list(_READ)):
                for row in batch.to_pylist():
                    yield from (Problem(name, row["id"], text) for text in _verify_row(row))
                    yield from _record(row, name, seen)
    except InputError as error:
        yield Problem(name, "", error.problem)
    except (OSError, pa.ArrowException) as error:
        yield Problem(name, "", f"cannot be read ({describe(error)})")


def _record(row: dict[str, Any], name: str, seen: _Seen) -> Iterator[Problem]:
    key = (row["id"], row["attempt"])
    if key in seen.place:
        yield Problem(name, row["id"], f"attempt {row['attempt']} stands in {seen.place[key]} too")
    seen.place.setdefault(key, name)
    if row["attempt"] >= seen.latest.get(row["id"], (-1, ""))[0]:
        seen.latest[row["id"]] = (row["attempt"], row["status"])


def _verify_row(row: dict[str, Any]) -> Iterator[str]:
    if row["status"] not in schema.STATUSES:
        yield f"status is {row['status']!r}, not one of {', '.join(schema.STATUSES)}"
    elif row["status"] == schema.ACCEPTED:
        if row["reason"] is not None:
            yield f"accepted, yet has a reason: {row['reason']!r}"
        yield from (f"accepted without {name}" for name in ("caption", "aspect_list") if not row[name])
    elif not row["reason"]:
        yield f"{row['status']} without a reason"
    data = (row["audio"] or {}).get("bytes")
    if data:
        yield from _verify_audio(row, data)
    elif row["status"] == schema.ACCEPTED:
        yield "accepted without audio bytes"


def _verify_audio(row: dict[str, Any], data: bytes) -> Iterator[str]:
    try:
        waveform, rate = signal.decode(data)
    except soundfile.LibsndfileError as error:
        yield f"audio cannot be decoded ({describe(error)})"
        return
    if rate != row["sampling_rate"]:
        yield f"audio has {rate} Hz, the row says {row['sampling_rate']}"
    seconds = waveform.shape[1] / rate
    if row["duration"] is None or abs(seconds - row["duration"]) > _DURATION_TOLERANCE:
        yield f"audio lasts {seconds:.3f} s, the row says {row['duration']}"


def _against_specs(run: RunDir, seen: _Seen) -> Iterator[Problem]:
    files = run.files("specs", suffix=".parquet")
    wanted: dict[str, str] = {}
    for path in files:
        for batch in pq.ParquetFile(path, filesystem=run.fs).iter_batches(columns=["id"]):
            wanted.update(dict.fromkeys(batch.column("id").to_pylist(), relative(run, path)))
    missing = [Problem(wanted[i], i, "has no row in the shards") for i in sorted(wanted.keys() - seen.latest.keys())]
    yield from _capped(missing, "specs", "without a row in the shards")
    if files:
        unknown = sorted(seen.latest.keys() - wanted.keys())
        strange = [Problem(seen.place[i, seen.latest[i][0]], i, "is in no spec") for i in unknown]
        yield from _capped(strange, "shards", "that are in no spec")


def _capped(problems: list[Problem], where: str, what: str) -> Iterator[Problem]:
    yield from problems[:_MOST_NAMED]
    if len(problems) > _MOST_NAMED:
        yield Problem(where, "", f"{len(problems) - _MOST_NAMED} more rows {what}")


def _against_manifest(run: RunDir, seen: _Seen) -> Iterator[Problem]:
    stage = Manifest(run).stage("generate")
    counted = Counter(status for _, status in seen.latest.values())
    for status, stated in stage.get("counts", {}).items():
        if status in schema.STATUSES and stated != counted[status]:
            yield Problem("manifest.json", "", f"says {stated} {status} rows, the shards hold {counted[status]}")


def _verify_dataset(run: RunDir) -> Iterator[Problem]:
    """The finished dataset's files against its statistics: present, readable, with the rows that they should have."""
    if not run.exists("dataset", "statistics.json"):
        return
    for name, num_rows in run.read_json("dataset", "statistics.json")["files"].items():
        try:
            found = pq.read_metadata(run.path("dataset", name), filesystem=run.fs).num_rows
        except (OSError, pa.ArrowException) as error:
            yield Problem(f"dataset/{name}", "", f"cannot be read ({describe(error)})")
            continue
        if found != num_rows:
            yield Problem(f"dataset/{name}", "", f"has {found} rows, not {num_rows}")
