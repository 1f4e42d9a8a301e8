"""A million text rows through the dataset stage: rows per second, and the most memory that the driver and Ray take.

`python benchmarks/dataset.py [NUM_ROWS]`. The shards are made first, in the pipeline's own schema, with captions and
tag sets of which some repeat. The ratio is to reading the same shards once with pyarrow and writing them again.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from machine import PeakMemory, describe_machine

from conceptcaps import schema, seeding
from conceptcaps.config import load
from conceptcaps.config.ray import RayConfig
from conceptcaps.pipelines.dataset import run_dataset
from conceptcaps.rundir import RunDir
from conceptcaps.runtime import connect
from conceptcaps.vocabulary import CATEGORIES, Vocabulary

ROWS_PER_FILE = 10_000
RESULTS = Path(__file__).parent / "results" / "dataset.json"
_TAGS_PER_CATEGORY = 50
_SYLLABLES = np.array(
    ["ba", "do", "ki", "lu", "me", "na", "po", "ri", "sa", "te", "vo", "wi", "xa", "yu", "zo", "gle", "tra"]
)


def make_vocabulary() -> Vocabulary:
    """200 tags of two syllable words."""
    words = [a + b for a in _SYLLABLES for b in _SYLLABLES]
    at = range(0, len(CATEGORIES) * _TAGS_PER_CATEGORY, _TAGS_PER_CATEGORY)
    return Vocabulary.from_mapping({c: words[i : i + _TAGS_PER_CATEGORY] for c, i in zip(CATEGORIES, at, strict=True)})


def make_shard(vocabulary: Vocabulary, begin: int, end: int) -> pa.Table:
    """Rows of Zipf-distributed tags; one in twenty repeats another row's caption but for a word."""
    rng = seeding.generator(0, "benchmark", begin)
    popularity = 1 / np.arange(1, _TAGS_PER_CATEGORY + 1)
    ranks = [rng.choice(_TAGS_PER_CATEGORY, (end - begin, 2), p=popularity / popularity.sum()) for _ in CATEGORIES]
    words = rng.choice(_SYLLABLES, (end - begin, 40))
    rows = []
    for k, index in enumerate(range(begin, end)):
        row_id, seed = seeding.row_identity(0, index)
        tags = {vocabulary.tags_by_category[c][r] for c, pair in zip(CATEGORIES, ranks, strict=True) for r in pair[k]}
        text = words[k - 1] if k % 20 == 19 else words[k]
        caption = " ".join([*text[:-1], words[k, -1]])
        row = {"id": row_id, "seed": seed, "attempt": 0, "take": 0, "caption": caption, "duration": 10.0}
        row |= {"status": schema.ACCEPTED, "clap_score": 0.5, "sampling_rate": 32000, **vocabulary.columns(tags)}
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=schema.SHARD)


def copy_once(run: RunDir, target: Path) -> float:
    """Seconds to read the shards and write them again, nothing else."""
    started = time.perf_counter()
    source = pads.dataset(run.path("shards"), format="parquet")
    with pq.ParquetWriter(target, schema.SHARD, compression="zstd") as writer:
        for batch in source.to_batches():
            writer.write_batch(batch.cast(schema.SHARD) if batch.schema != schema.SHARD else batch)
    return time.perf_counter() - started


def main(num_rows: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="dataset-benchmark-"))
    try:
        run = RunDir(folder / "run")
        vocabulary = make_vocabulary()
        run.fs.create_dir(run.path("shards", "attempt-0"), recursive=True)
        for begin in range(0, num_rows, ROWS_PER_FILE):
            table = make_shard(vocabulary, begin, min(begin + ROWS_PER_FILE, num_rows))
            pq.write_table(table, run.path("shards", "attempt-0", f"{begin:09d}.parquet"), compression="zstd")
        copied = copy_once(run, folder / "copy.parquet")
        connect(RayConfig(num_cpus=2, object_store_mb=1000), quiet=True)
        with PeakMemory() as memory:
            started = time.perf_counter()
            facts = run_dataset(load(None), run)
            seconds = time.perf_counter() - started
        assert facts["counts"]["rows"] == num_rows
        report(num_rows, seconds, copied, memory.peak, facts)
    finally:
        shutil.rmtree(folder)


def report(num_rows: int, seconds: float, copied: float, peak: int, facts: dict) -> None:
    result = {
        "machine": describe_machine(),
        "rows": num_rows,
        "groups": facts["groups"],
        "seconds": round(seconds, 1),
        "rows_per_second": round(num_rows / seconds),
        "times_a_plain_copy": round(seconds / copied, 1),
        "peak_memory_gb": round(peak / 1e9, 2),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
