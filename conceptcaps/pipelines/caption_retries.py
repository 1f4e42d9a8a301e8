"""Which rows of a further round are captioned anew, and captions that are too like another's.

A clip that was rejected is made again from its caption; a caption that was rejected is written again.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from conceptcaps import schema
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


def wants_captions(run: RunDir, source: tuple[str, ...]) -> bool:
    """Whether some row below a folder of the run has no caption yet."""
    for path in run.files(*source, suffix=".parquet"):
        if "caption" not in pq.read_schema(path, filesystem=run.fs).names:
            return True
        if pq.read_table(path, columns=["caption"], filesystem=run.fs, partitioning=None)["caption"].null_count:
            return True
    return False
