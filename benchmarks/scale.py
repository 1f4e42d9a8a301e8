"""A million rows: flat memory, an even pace, a cheap restart; and sleeping engines on more and more nodes.

Rows go through the real pipeline with engines that do nearly nothing, on two cores. The job is killed when nine tenths
are published, with all its processes, and started again. Memory is private resident memory, sampled once a second.

    python benchmarks/scale.py [--only rows nodes plan] [--rows 1000000] [--nodes 1 2 4 8]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from machine import describe_machine

from conceptcaps import schema, seeding
from conceptcaps.rundir import RunDir

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "scale.json"


def write_specs(run: RunDir, num_rows: int, per_file: int = 64_000) -> None:
    """Specs as the stage writes them, in files of some ten thousand rows."""
    tags = {name: ["rock"] if name in ("aspect_list", "genre_aspects") else [] for name in schema.ASPECT_COLUMNS}
    for file, begin in enumerate(range(0, num_rows, per_file)):
        identities = [seeding.row_identity(0, i) for i in range(begin, min(begin + per_file, num_rows))]
        rows = [{"id": row_id, "seed": seed, "pair_id": None} | tags for row_id, seed in identities]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows, schema=schema.SPECS), sink, row_group_size=1024)
        run.write_bytes(sink.getvalue(), "specs", f"part-{file:05d}.parquet")


class Watched:
    """A job in a process group of its own; its memory and its shards, second by second."""

    def __init__(self, folder: Path, *overrides: str):
        env = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])}
        self.folder, self.started = folder, time.time()
        self.output = (folder.parent / "job.log").open("a")
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "scale_job.py"), str(folder), *overrides],
            env=env, stdout=self.output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self.memory: list[dict[str, float]] = []

    def follow(self, until_files: int | None = None) -> bool:
        """Sample until the job ends, or until so many shards are there and it is killed; whether it ended."""
        while self.process.poll() is None:
            files = self.shards()
            self.memory.append({"at": time.time() - self.started, "shards": len(files), **self._memory()})
            if until_files is not None and len(files) >= until_files:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
                return False
            time.sleep(1)
        self.output.close()
        if self.process.returncode:
            raise SystemExit((self.folder.parent / "job.log").read_text()[-3000:])
        return True

    def shards(self) -> list[Path]:
        return list((self.folder / "shards" / "attempt-0").glob("*.parquet"))

    def _memory(self) -> dict[str, float]:
        """MiB of the driver, and of its largest worker."""
        driver = _private(psutil.Process(self.process.pid))
        workers = [0.0]
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::Map"):
                    workers.append(_private(process))
            except psutil.Error:
                continue
        return {"driver_mib": driver, "largest_worker_mib": max(workers)}


def _private(process: psutil.Process) -> float:
    try:
        info = process.memory_info()
    except psutil.Error:
        return 0.0
    return (info.rss - info.shared) / 2**20


def pace(times: np.ndarray, rows_per_shard: int) -> dict[str, object]:
    """Rows/s over each tenth of a run, from the seconds at which its shards were published; the first in tenths too."""
    rates = rates_by_tenth(times, rows_per_shard)
    found: dict[str, object] = {"by_tenth": rates, "last_over_first": rates[-1] / rates[0]}
    first = np.sort(times)[: len(times) // 10]
    return found | ({"within_the_first": rates_by_tenth(first, rows_per_shard)} if len(first) >= 20 else {})


def rates_by_tenth(times: np.ndarray, rows_per_shard: int) -> list[float]:
    tenths = [part for part in np.array_split(np.sort(times), 10) if len(part)]
    ends = [float(part[-1]) for part in tenths]
    begins = [float(tenths[0][0]), *ends[:-1]]
    # The first shard marks the start of the clock, so it is not counted.
    counts = [len(tenths[0]) - 1, *(len(part) for part in tenths[1:])]
    rates = [n * rows_per_shard / max(e - b, 1e-9) for n, b, e in zip(counts, begins, ends, strict=True)]
    return [round(rate, 1) for rate in rates]


def measure_rows(num_rows: int, folder: Path) -> dict[str, object]:
    """One undisturbed run up to nine tenths, a kill, and the rest."""
    run, block = RunDir(folder), 1000
    write_specs(run, num_rows)
    whole = num_rows // block
    first = Watched(folder)
    first.follow(until_files=whole * 9 // 10)
    times = np.array([path.stat().st_mtime for path in first.shards()]) - first.started
    before = {path.name for path in first.shards()}
    again = Watched(folder)
    again.follow()
    new = [path.stat().st_mtime - again.started for path in again.shards() if path.name not in before]
    counts = json.loads((folder.parent / "job.log").read_text().strip().splitlines()[-1])
    at_tenth = [m for m in first.memory if m["shards"] >= whole // 10]
    return {
        "rows": num_rows,
        "rows_published": counts["counts"]["rows"],
        "rows_per_s": len(before) * block / float(times.max()),
        "pace": pace(times, block),
        "seconds_to_first_shard": float(times.min()),
        "memory_at_a_tenth": at_tenth[0] if at_tenth else None,
        "memory_at_nine_tenths": first.memory[-1],
        "killed_at": len(before) * block,
        "resume_seconds_to_first_new_shard": min(new),
        "resume_seconds": max(new),
        "resume_rows": len(new) * block,
        "resume_seconds_at_the_first_starts_pace": len(new) * block / (len(before) * block / float(times.max())),
    }


def measure_nodes(nodes: list[int], seconds: float, blocks_each: int, rows_per_block: int) -> list[dict[str, float]]:
    """Rows/s with one sleeping synthesiser per simulated node: the steady pace, and from all ready to the last shard.

    All nodes share this machine's cores, so that the time until eight workers are ready says nothing about a cluster.
    Rows begun before that are taken off: as many as the seconds that the workers ready before had. `efficiency` is of
    the steady pace; `efficiency_to_the_end` counts the last blocks too, while which some workers have none left: a
    cost per run, not per row.
    """
    import ray
    from ray.cluster_utils import Cluster
    from scale_job import config_of
    from trivial import ENGINES

    from conceptcaps.pipelines.generate import run_generate

    os.environ["TRIVIAL_SECONDS"] = str(seconds)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), str(HERE)])
    found: list[dict[str, float]] = []
    for number in nodes:
        os.environ["TRIVIAL_READY"] = tempfile.mkdtemp(prefix="ready-")  # before the raylets, which hand it on
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 200 * 2**20})
        for _ in range(number):
            cluster.add_node(num_cpus=1, resources={"synth": 1}, object_store_memory=100 * 2**20)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        cluster.wait_for_nodes()
        folder = Path(tempfile.mkdtemp(prefix="nodes-"))
        rows = number * blocks_each * rows_per_block
        run = RunDir(folder)
        write_specs(run, rows)
        config = config_of(
            str(folder), "audio.resources.num_cpus=1", f"audio.resources.workers={number}",
            f"audio.resources.batch_size={rows_per_block // 5}", rows_per_block=rows_per_block,
        )  # fmt: skip
        begun = time.time()
        facts = run_generate(config, run, ENGINES)
        ready = [path.stat().st_mtime for path in Path(os.environ.pop("TRIVIAL_READY")).iterdir()]
        assert len(ready) == number
        shards = sorted((Path(path).stat().st_mtime, pq.read_metadata(path).num_rows) for path in run.files("shards"))
        last = shards[-1][0]
        before = sum(max(ready) - at for at in ready) / seconds
        took = last - max(ready)
        found.append(
            {
                "nodes": number, "rows": rows, "rows_before_all_were_ready": before,
                "rows_per_s": (rows - before) / took, "steady_rows_per_s": steady_pace(shards),
                "seconds": took, "startup_seconds": max(ready) - begun,
                "busy_seconds": facts["rates"]["audio"]["busy_seconds"],
            }
        )  # fmt: skip
        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(folder)
        print(found[-1], flush=True)
    for row in found:
        for name, pace in (("efficiency", "steady_rows_per_s"), ("efficiency_to_the_end", "rows_per_s")):
            row[name] = row[pace] / row["nodes"] / (found[0][pace] / found[0]["nodes"])
    return found


def steady_pace(shards: list[tuple[float, int]]) -> float:
    """Rows/s: the slope of rows over time that fits the middle four fifths of the shards, given as (time, rows)."""
    times, rows = np.array(shards, float).T
    tenth = len(shards) // 10
    middle = slice(tenth, len(shards) - tenth)
    return float(np.polyfit(times[middle] - times[0], np.cumsum(rows)[middle], 1)[0])


def measure_plan(rows: int, seconds: float) -> dict[str, float]:
    """Wall time of a run with a sleeping synthesiser against its plan, made from the rates of a smaller run."""
    from scale_job import config_of
    from trivial import ENGINES

    from conceptcaps.pipelines.generate import run_generate
    from conceptcaps.planning import Rate, Rates, plan
    from conceptcaps.planning.rates import STAGES
    from conceptcaps.runtime import connect

    os.environ["TRIVIAL_SECONDS"] = str(seconds)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), str(HERE)])

    def run_of(num_rows: int) -> tuple[dict, float, object]:
        folder = Path(tempfile.mkdtemp(prefix="plan-"))
        config = config_of(str(folder), rows_per_block=20)
        connect(config.ray, quiet=True)
        run = RunDir(folder)
        write_specs(run, num_rows)
        begun = time.perf_counter()
        facts = run_generate(config, run, ENGINES)
        took = time.perf_counter() - begun
        shutil.rmtree(folder)
        return facts, took, config

    run_of(20)  # Ray's first plan starts slower than those after it, and these runs share one Ray
    facts, _, _ = run_of(rows // 4)
    seen = facts["rates"]
    stages = {s: Rate(seen[s]["busy_seconds"] / seen[s]["rows"], seen[s]["startup_seconds"]) for s in STAGES}
    _, took, config = run_of(rows)
    rates = Rates(stages, plan_startup=seen["plan"]["startup_seconds"])
    planned = plan(config, rows, rates=rates).wall_seconds
    return {"rows": rows, "seconds": took, "planned_seconds": planned, "planned_over_real": planned / took}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=["rows", "nodes", "plan"], default=["rows", "nodes", "plan"])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--nodes", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--out", default=str(RESULT))
    options = parser.parse_args()
    out = Path(options.out)
    for what in options.only:
        results = json.loads(out.read_text()) if out.exists() else {}
        results[what] = {"machine": describe_machine(), "found": measure(what, options)}
        out.write_text(json.dumps(results, indent=2) + "\n")
        print(what, json.dumps(results[what]["found"], indent=2))


def measure(what: str, options: argparse.Namespace) -> object:
    if what == "rows":
        with tempfile.TemporaryDirectory(prefix="scale-") as folder:
            return measure_rows(options.rows, Path(folder) / "run")
    if what == "nodes":
        # Ten seconds a block: each costs this machine's two cores some 0.7 s to move, whatever node it is on.
        return measure_nodes(options.nodes, seconds=0.4, blocks_each=16, rows_per_block=25)
    return measure_plan(rows=1200, seconds=0.1)


if __name__ == "__main__":
    main()
