"""Small runs for tests: specs without a model behind them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from conceptcaps import schema, seeding
from conceptcaps.config import Config, load
from conceptcaps.rundir import RunDir
from conceptcaps.vocabulary import Vocabulary

VOCABULARY = Vocabulary.from_mapping(
    {
        "genre": ["rock", "jazz", "raise-caption", "raise-audio", "nan-audio", "kill-caption", "kill-audio"],
        "mood": ["happy", "sad"],
        "instrument": ["piano", "drums"],
        "tempo": ["slow tempo", "fast tempo"],
    }
)


def small_config(run_dir, *overrides: str) -> Config:
    """A config whose pools fit two logical CPUs, with clips of a tenth of a second."""
    return load(
        None,
        [
            f"run_dir={run_dir}",
            "ray.rows_per_block=10",
            "audio.duration=0.1",
            "audio.checks.enabled=false",
            *(f"{stage}.resources.num_cpus=0.2" for stage in ("captions", "audio", "alignment")),
            "alignment.threshold.method=absolute",
            "alignment.threshold.value=0.0",
            *overrides,
        ],
    )


def write_specs(run: RunDir, num_rows: int, special: dict[int, str] | None = None, seed: int = 0) -> list[str]:
    """Write `num_rows` specs; `special` gives some rows one more tag. Returns the ids."""
    rows = []
    for index in range(num_rows):
        row_id, row_seed = seeding.row_identity(seed, index)
        tags = ["rock" if index % 2 else "jazz", "sad", "drums", "slow tempo"]
        if special and index in special:
            tags.append(special[index])
        rows.append({"id": row_id, "seed": row_seed, "pair_id": None} | VOCABULARY.columns(tags))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema.SPECS), sink)
    run.write_bytes(sink.getvalue().to_pybytes(), "specs", "part-0.parquet")
    return [row["id"] for row in rows]
