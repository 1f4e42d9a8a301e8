"""What the pipeline's machinery costs: rows per second with engines that do nearly nothing, and peak memory.

The peer is a plain Python loop over the same steps, in one process, writing the same shards. Memory is what this
process and all of Ray's hold (shared pages counted once), at two run lengths: it should not grow with the rows.

    python benchmarks/pipeline.py [--rows 4000] [--memory-rows 1000 20000] [--megabytes 1]
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from machine import PeakMemory, describe_machine
from trivial import ENGINES, RATE

from conceptcaps import schema, seeding
from conceptcaps.alignment.threshold import Threshold
from conceptcaps.config import Config, load
from conceptcaps.pipelines.generate import _begin, run_generate
from conceptcaps.pipelines.source import Slice, read_slice
from conceptcaps.pipelines.steps import Align, Caption, Synthesise
from conceptcaps.rundir import RunDir
from conceptcaps.runtime import connect


def config_of(folder: Path, num_rows: int, megabytes: float) -> Config:
    """WAV clips of about `megabytes` MiB: no codec between the rows and the machinery."""
    small = {"num_cpus": 0.2, "batch_size": 16}
    stages = [f"{s}.resources={json.dumps(small)}" for s in ("captions", "audio", "alignment")]
    duration = max(megabytes * 2**20 / 2 / RATE, 0.01)
    return load(
        None,
        [
            f"run_dir={folder}", f"audio.duration={duration}", "audio.format=wav", "ray.rows_per_block=64",
            "audio.checks.enabled=false",  # machinery, not measurements
            "alignment.threshold.method=none", f"specs.num_samples={num_rows}", *stages,
        ],
    )  # fmt: skip


def write_specs(run: RunDir, num_rows: int) -> None:
    rows = []
    for index in range(num_rows):
        row_id, seed = seeding.row_identity(0, index)
        tags = {c: ["rock"] if c in ("aspect_list", "genre_aspects") else [] for c in schema.ASPECT_COLUMNS}
        rows.append({"id": row_id, "seed": seed, "pair_id": None} | tags)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema.SPECS), sink)
    run.write_bytes(sink.getvalue().to_pybytes(), "specs", "part-0.parquet")


def plain_loop(config: Config, run: RunDir, num_rows: int) -> float:
    """Seconds of the same steps called one after the other."""
    steps = [
        Caption(config.captions, ENGINES),
        Synthesise(config.audio, ENGINES),
        Align(config.alignment, ENGINES, config.audio, Threshold("none", -1.0)),
    ]
    run.fs.create_dir(run.path("plain"))
    started = time.perf_counter()
    for start in range(0, num_rows, 64):
        piece = Slice(run.path("specs", "part-0.parquet"), start, min(64, num_rows - start))
        (table,) = read_slice(run.fs, piece)
        table = _begin(table, 0)
        for step in steps:
            table = step(table)
        pq.write_table(table, run.path("plain", f"{start}.parquet"))
    return time.perf_counter() - started


def streaming(num_rows: int, megabytes: float) -> tuple[float, float, Config, RunDir]:
    """(seconds, peak MiB) of the streaming plan."""
    folder = Path(tempfile.mkdtemp(prefix="pipeline-"))
    config, run = config_of(folder, num_rows, megabytes), RunDir(folder)
    write_specs(run, num_rows)
    with PeakMemory() as memory:
        started = time.perf_counter()
        facts = run_generate(config, run, ENGINES)
        seconds = time.perf_counter() - started
    assert facts["counts"]["accepted"] == num_rows, facts
    return seconds, memory.peak / 2**20, config, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--memory-rows", type=int, nargs="*", default=[1000, 20_000])
    parser.add_argument("--megabytes", type=float, default=1.0)
    parser.add_argument("--out", default=str(Path(__file__).parent / "results" / "pipeline.json"))
    options = parser.parse_args()
    connect(load(None, ["ray.num_cpus=2", "ray.object_store_mb=1000"]).ray, quiet=True)

    streaming(64, 0.01)  # Ray's own start-up is not what is measured
    seconds, _, config, run = streaming(options.rows, 0.01)
    plain = plain_loop(config, run, options.rows)
    shutil.rmtree(run.root)
    result = {
        "machine": describe_machine(),
        "rows": options.rows,
        "streaming_rows_per_s": options.rows / seconds,
        "plain_loop_rows_per_s": options.rows / plain,
        "streaming_over_plain": plain / seconds,
        "memory": [],
    }
    for num_rows in options.memory_rows:
        seconds, peak, _, run = streaming(num_rows, options.megabytes)
        shutil.rmtree(run.root)
        result["memory"].append(
            {
                "rows": num_rows,
                "mib_per_clip": options.megabytes,
                "peak_mib": round(peak),
                "rows_per_s": num_rows / seconds,
            }
        )
    Path(options.out).write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
