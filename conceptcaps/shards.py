"""The shards of a run, read column by column: the row that counts for an id, and how rows ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from conceptcaps import schema
from conceptcaps.errors import InputError
from conceptcaps.rundir import RunDir

FOLDER = "shards"


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

    One file's columns are in memory at a time, and the ids seen so far where there is more than one attempt.

    Raises:
        InputError: naming a shard that cannot be read.
    """
    wanted = list(dict.fromkeys(["id", *columns]))
    numbers = attempts(run)
    seen: set[str] = set()
    for attempt in numbers:
        for path in run.files(FOLDER, attempt_folder(attempt), suffix=".parquet"):
            try:
                table = pq.read_table(path, columns=wanted, filesystem=run.fs, partitioning=None)
            except (OSError, pa.ArrowException) as error:
                raise InputError(path, f"cannot be read ({error})", "See `conceptcaps verify`") from error
            if len(numbers) > 1:
                ids = table["id"].to_pylist()
                table = table.filter(pa.array([i not in seen for i in ids]))
                seen.update(ids)
            yield table


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
