"""Attempts after the first: which rows each of them makes again, listed in `retries/attempt-k` before it begins.

Attempts below `audio.rounds` are made by the job itself, of the rows that the one before rejected; later ones are
asked for with `conceptcaps retry`. Every attempt has shards of its own, so the history of a row stays; the row of the
highest attempt counts. Audio seeds derive from the attempt, and so do the seeds of captions that are made again.
Rows of a counterfactual pair are made once: made again with another seed, they would be no pair.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from conceptcaps import schema, shards
from conceptcaps.config import Config
from conceptcaps.pipelines.caption_retries import near_duplicates, without_bad_captions
from conceptcaps.rundir import RunDir

FOLDER = "retries"
_COLUMNS = (
    *schema.SPECS.names,
    "caption",
    *(field.name for field in schema.CAPTION_CHECKS),
    "status",
    "reason",
    "attempt",
)


def source(attempt: int) -> tuple[str, ...]:
    """The folder that lists the rows of an attempt."""
    return ("specs",) if attempt == 0 else (FOLDER, shards.attempt_folder(attempt))


def listed(run: RunDir) -> list[int]:
    """The attempts after the first whose rows are listed, in their order."""
    names = {path.removeprefix(run.path(FOLDER) + "/").split("/", 1)[0] for path in run.files(FOLDER)}
    return sorted(int(name.removeprefix("attempt-")) for name in names)


def planned(config: Config, run: RunDir) -> Iterator[int]:
    """The attempts to make after the first; each is listed when it is its turn."""
    for attempt in range(1, config.audio.rounds):
        if list_rejected(run, attempt, config.captions.checks.near_duplicates) or attempt in listed(run):
            yield attempt
    for attempt in listed(run):
        if attempt >= config.audio.rounds:
            yield attempt


def list_rejected(run: RunDir, attempt: int, distance: int | None = None) -> int:
    """Add to an attempt the rows whose last one, the attempt before it, rejected them; returns how many are new.

    Rows that are listed already stay as they are: a run that grew (`conceptcaps extend`) adds a file for the others.
    Rows of a counterfactual pair stay rejected: made again with another seed, they would be no pair.

    Args:
        distance: of captions that are near-duplicates, which are refused too; None allows them.
    """
    known = _listed_ids(run, attempt)
    tables = []
    for table in (*shards.latest(run, _COLUMNS), near_duplicates(run, distance).select(_COLUMNS)):
        again = pc.and_(pc.equal(table["status"], schema.REJECTED), pc.equal(table["attempt"], attempt - 1))
        again = pc.and_(again, pc.is_null(table["pair_id"]))
        if len(known):
            again = pc.and_(again, pc.invert(pc.is_in(table["id"], value_set=known)))
        tables.append(table.filter(again))
    return _write(run, attempt, tables)


def list_by_status(run: RunDir, statuses: Collection[str], rounds: int) -> tuple[int, int]:
    """List a new attempt of all rows that ended so; returns its number and how many rows it has.

    A row without a caption that stands gets a new one; others keep theirs and get new audio. Rows of a counterfactual
    pair stay as they are.
    """
    attempt = max([rounds - 1, *listed(run), *shards.attempts(run)]) + 1
    wanted = pa.array(sorted(statuses))
    tables = []
    for table in shards.latest(run, _COLUMNS):
        chosen = pc.and_(pc.is_in(table["status"], value_set=wanted), pc.is_null(table["pair_id"]))
        tables.append(table.filter(chosen))
    return attempt, _write(run, attempt, tables)


def wants_captions(run: RunDir, attempt: int) -> bool:
    """Whether some row of the attempt has no caption yet."""
    if attempt == 0:
        return True
    paths = run.files(*source(attempt), suffix=".parquet")
    return any(pq.read_table(path, columns=["caption"], filesystem=run.fs)["caption"].null_count for path in paths)


def _listed_ids(run: RunDir, attempt: int) -> pa.Array:
    paths = run.files(*source(attempt), suffix=".parquet")
    columns = [pq.read_table(path, columns=["id"], filesystem=run.fs)["id"] for path in paths]
    return pa.concat_arrays([pa.array([], pa.string()), *(chunk for column in columns for chunk in column.chunks)])


def _write(run: RunDir, attempt: int, tables: list[pa.Table]) -> int:
    if not tables:
        return 0
    listed = without_bad_captions(pa.concat_tables(tables, promote_options="permissive"))
    rows = listed.drop_columns(["status", "reason", "attempt"]).sort_by("id")
    if len(rows):
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink, row_group_size=1024)
        number = len(run.files(*source(attempt), suffix=".parquet"))
        run.write_bytes(sink.getvalue(), *source(attempt), f"rows-{number:05d}.parquet")
    return len(rows)
