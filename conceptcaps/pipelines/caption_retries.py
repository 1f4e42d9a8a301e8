"""Which rows of a further round are captioned anew, and captions that are too like another's.

A clip that was rejected is made again from its caption; a caption that was rejected is written again.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from conceptcaps import schema, shards
from conceptcaps.captions.duplicates import first_alike
from conceptcaps.rundir import RunDir

_OF_CAPTIONS = "captions."
"""How the reason of a row begins whose caption was refused."""


def without_bad_captions(table: pa.Table) -> pa.Table:
    """The rows, less the captions that were refused and what the checks measured on them."""
    bad = pc.fill_null(pc.starts_with(table["reason"], _OF_CAPTIONS), False)
    for name in ("caption", *(field.name for field in schema.CAPTION_CHECKS)):
        at = table.schema.get_field_index(name)
        field = table.schema.field(at)
        table = table.set_column(at, field, pc.if_else(bad, pa.scalar(None, field.type), table[name]))
    return table


def near_duplicates(run: RunDir, distance: int | None) -> pa.Table:
    """The accepted rows whose caption is too like that of an accepted row before them in the order of ids.

    Whether a caption is a near-duplicate depends on all others, so it is decided after the stream, from the hashes
    that the stream left: the same rows whatever the batches and workers were.

    Args:
        run: with shards.
        distance: of SimHashes in bits, up to which captions are near-duplicates; None finds none.

    Returns:
        Rows of `schema.SHARD` without audio, rejected with the reason and the id of the row before.
    """
    columns = [name for name in schema.SHARD.names if name != "audio"]
    # The two rows of a counterfactual pair are meant to be alike.
    considered = (pc.field("status") == schema.ACCEPTED) & pc.field("pair_id").is_null()
    tables = [t.filter(considered) for t in shards.latest(run, columns)]
    if distance is None or not tables:
        return schema.SHARD.empty_table()
    rows = pa.concat_tables(tables).sort_by("id")
    like = first_alike(rows["caption_hash"].to_pylist(), distance)
    ids = rows["id"].to_pylist()
    found = rows.take(pa.array([i for i, first in enumerate(like) if first is not None], pa.int64())).to_pylist()
    for row, first in zip(found, [first for first in like if first is not None], strict=True):
        row["status"], row["reason"] = schema.REJECTED, schema.reason("captions", "near_duplicate", ids[first])
    return pa.Table.from_pylist(found, schema=schema.SHARD)


def reject_near_duplicates(run: RunDir, distance: int | None, rounds: int) -> int:
    """Write the near-duplicates that are left after the last round as rejected rows; returns how many.

    Written shards stay as they are: the rows are written once more as an attempt after all others, which counts. A
    second call finds none left.
    """
    found = near_duplicates(run, distance)
    if len(found):
        attempt = max([rounds, *(number + 1 for number in shards.attempts(run))])
        at = found.schema.get_field_index("attempt")
        found = found.set_column(at, found.schema.field(at), pa.array([attempt] * len(found), pa.int32()))
        shards.publish(run, found, attempt)
    return len(found)
