"""The shards of a run: published whole, read column by column; the row that counts for an id, and how rows ended."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from conceptcaps import lease, schema
from conceptcaps.errors import InputError
from conceptcaps.retrying import with_retries
from conceptcaps.rundir import RunDir

FOLDER = "shards"
_FILES_AT_ONCE = 256
_ROW_GROUP = 256


def attempt_folder(attempt: int) -> str:
    """Where the shards of one attempt lie below `shards/`."""
    return f"attempt-{attempt}"


def attempts(run: RunDir) -> list[int]:
    """The attempts that have shards, newest first."""
    names = {
        path.removeprefix(run.path(FOLDER) + "/").split("/", 1)[0] for path in run.files(FOLDER, suffix=".parquet")
    }
    return sorted((int(n.removeprefix("attempt-")) for n in names if n.startswith("attempt-")), reverse=True)


def latest(run: RunDir, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Tables of the rows that count: for each id the one of its highest attempt. `id` always comes along.

    The columns of some files are in memory at a time, and the ids seen so far where there is more than one attempt.

    Raises:
        InputError: naming a shard that cannot be read.
    """
    wanted = list(dict.fromkeys(["id", *columns]))
    numbers = attempts(run)
    seen = pa.array([], pa.string())
    for attempt in numbers:
        met = [seen]
        for table in read(run, run.files(FOLDER, attempt_folder(attempt), suffix=".parquet"), wanted):
            ids = table["id"].combine_chunks()
            if len(seen):
                fresh = pc.invert(pc.is_in(ids, value_set=seen))
                table, ids = table.filter(fresh), ids.filter(fresh)
            if attempt != numbers[-1]:
                met.append(ids)
            yield table
        seen = pa.concat_arrays(met)


def read(run: RunDir, paths: Sequence[str], columns: Sequence[str]) -> Iterator[pa.Table]:
    """Some columns of some shards, a table for every few; several files are read at once.

    Raises:
        InputError: naming a shard that cannot be read.
    """
    # Text is small; audio is not.
    step = 1 if "audio" in columns else _FILES_AT_ONCE
    for at in range(0, len(paths), step):
        some = list(paths[at : at + step])
        try:
            yield _read(run, some, columns)
        except (OSError, pa.ArrowException):
            for path in some:  # one by one, to name the offender
                try:
                    yield _read(run, [path], columns)
                except (OSError, pa.ArrowException) as error:
                    mend = "Move it away and run again to have its rows made anew"
                    raise InputError(path, f"cannot be read ({error})", mend) from error


def _read(run: RunDir, paths: list[str], columns: Sequence[str]) -> pa.Table:
    files = ds.dataset(paths, schema=schema.SHARD, format="parquet", filesystem=run.fs)
    return with_retries(lambda: files.to_table(columns=list(columns)), "reading shards")


def ids(run: RunDir, attempt: int) -> pa.Array:
    """string (num_rows,): the ids of the rows that an attempt has published.

    Raises:
        InputError: naming a shard that cannot be read.
    """
    paths = run.files(FOLDER, attempt_folder(attempt), suffix=".parquet")
    found = [pa.array([], pa.string()), *(c for t in read(run, paths, ["id"]) for c in t["id"].chunks)]
    return pa.concat_arrays(found)


def publish(run: RunDir, table: pa.Table, attempt: int) -> str:
    """Write rows as one shard, whole or not at all; returns its URI.

    The name is made of the rows' ids, so that a write that is done twice (Ray tries again where it does not know how
    the first went) leaves one file.

    Raises:
        InputError: another job has taken the run directory, or it cannot be written.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=_ROW_GROUP)
    lease.check(run)
    return run.write_bytes(sink.getvalue(), FOLDER, attempt_folder(attempt), file_name(table["id"]), durable=True)


def file_name(row_ids: pa.ChunkedArray) -> str:
    """Of the shard that holds these rows: the first id, as far as it may stand in a path, and a digest of all."""
    names = row_ids.to_pylist()
    digest = hashlib.blake2b("\x1f".join(names).encode(), digest_size=8).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9-]', '_', names[0])[:40]}-{digest}.parquet"


def mend(run: RunDir, attempt: int, found: pa.Array) -> int:
    """Drop rows that stand in two shards of an attempt from the later one; returns how many.

    Nothing in this package writes such rows; a writer that was cut off from its cluster and came back might.

    Args:
        found: `ids` of the attempt.
    """
    if len(pc.unique(found)) == len(found):
        return 0
    seen: set[str] = set()
    dropped = 0
    for path in run.files(FOLDER, attempt_folder(attempt), suffix=".parquet"):
        table = pq.read_table(path, filesystem=run.fs, partitioning=None)
        names = table["id"].to_pylist()
        keep = [name not in seen for name in names]
        seen.update(names)
        if not all(keep):
            kept = table.filter(pa.array(keep))
            if len(kept):
                publish(run, kept, attempt)
            run.fs.delete_file(path)
            dropped += len(table) - len(kept)
    return dropped


@dataclass
class Counts:
    """How the rows of a run ended."""

    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    """By the code of the reason; accepted rows have none."""

    @property
    def rows(self) -> int:
        return sum(self.statuses.values())

    def to_dict(self) -> dict[str, object]:
        found = {status: self.statuses.get(status, 0) for status in schema.STATUSES}
        return {"rows": self.rows, **found, "reasons": dict(self.reasons.most_common())}


def count(run: RunDir) -> Counts:
    """Count the rows that count by status and reason."""
    counts = Counts()
    for table in latest(run, ["status", "reason"]):
        counts.statuses.update(table["status"].to_pylist())
        counts.reasons.update(schema.reason_code(r) for r in table["reason"].to_pylist() if r)
    return counts


def count_specs(run: RunDir) -> int:
    """How many rows the run is to make."""
    return sum(pq.read_metadata(path, filesystem=run.fs).num_rows for path in run.files("specs", suffix=".parquet"))
