"""SIGKILL at random moments, over and over: nothing may be lost, made twice or made again once it was published.

A run of the real pipeline (trivial engines that take their time and log every row) is started, and after a random
pause something is killed: the driver, a worker, the raylet, or the whole process group at once. Whatever has ended is
started again at once. After each kill every shard is read back. The engines' append-only log tells what was computed
when; a row that was published before a start and computed after it was made for nothing.

    python benchmarks/chaos.py [--kills 50] [--rows 1200] [--seed 0]
"""

# The engines and rows are those of the tests.
# ruff: noqa: E402
from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from faulty import read_log
from runs import write_specs

from conceptcaps import shards
from conceptcaps.dataset.verify import verify
from conceptcaps.rundir import Manifest, RunDir

KINDS = ("driver", "worker", "raylet", "group")
UNFINISHED = ("has no row in the shards", "more rows without a row")


class Job:
    """One start of the job, a process group of its own."""

    def __init__(self, folder: Path, log: Path, row_seconds: float, overrides: tuple[str, ...]):
        env = os.environ | {"FAULTY_LOG": str(log), "FAULTY_SECONDS": str(row_seconds)}
        env["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        env.pop("RAY_ADDRESS", None)
        words = [sys.executable, str(ROOT / "tests" / "faulty_job.py"), str(folder), *overrides]
        self.output = (folder.parent / "job.log").open("a")
        self.process = subprocess.Popen(
            words, env=env, stdout=self.output, stderr=subprocess.STDOUT, start_new_session=True
        )

    def wait(self, seconds: float) -> bool:
        """Whether it ended by itself within this time."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self, kind: str, rng: random.Random) -> str:
        """Kill something of this kind; what was killed ('nothing' where there is none)."""
        if kind == "driver":
            self.process.kill()
        elif kind == "group":
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            found = self._children("raylet/raylet" if kind == "raylet" else "ray::")
            if not found:
                return "nothing"
            rng.choice(found).kill()
        return kind

    def goes_on(self, seconds: float = 120) -> bool:
        """Whether the driver has a raylet again, as after the first one died while Ray was being started."""
        until = time.monotonic() + seconds
        time.sleep(2)  # by then the one that was killed is gone
        while self.process.poll() is None and time.monotonic() < until:
            if self._children("raylet/raylet"):
                return True
            time.sleep(0.5)
        return False

    def _children(self, name: str) -> list[psutil.Process]:
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if name in " ".join(process.cmdline()[:1]):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def end(self, seconds: float = 120) -> int:
        """Wait until the driver is gone; its exit code. A driver that hangs is an error, told by -100."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.sweep()
            self.process.wait()
            return -100
        finally:
            self.output.close()

    def sweep(self) -> None:
        """Leave nothing of this start behind, for the benchmark's own end."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


def run_chaos(
    folder: Path, *, kills: int, rows: int, row_seconds: float, longest: float, seed: int, limit: float = 1e9
) -> dict:
    """Kill `kills` times, then let the run end; what was lost, doubled or made for nothing.

    Args:
        longest: most seconds from a start, or from a kill that the job survives, to the next kill.
        limit: seconds after which no more is killed and the run is let end.
    """
    rng = random.Random(seed)
    run, log = RunDir(folder), folder.parent / "engines.log"
    ids = write_specs(run, rows)
    manifest = Manifest(run)
    manifest.data["stages"]["specs"] = {"state": "finished"}
    manifest.save()
    overrides = ("ray.rows_per_block=5", "ray.num_cpus=2", "ray.object_store_mb=100", "audio.resources.batch_size=5")
    done: Counter[str] = Counter()
    problems: list[str] = []
    wasted: list[str] = []
    starts = failures = hung = 0
    job = None
    began = time.monotonic()

    def start() -> Job:
        nonlocal starts, published, offset
        starts += 1
        published, offset = published_ids(run), len(read_log(log))
        return Job(folder, log, row_seconds, overrides)

    def look() -> None:
        problems.extend(str(p) for p in verify(run) if not any(text in p.problem for text in UNFINISHED))

    def settle() -> None:
        """After a start has ended: what did it compute that was published before it began?"""
        wasted.extend(f"{step} {row_id}" for step, row_id, _ in read_log(log)[offset:] if row_id in published)

    published: set[str] = set()
    offset = 0
    while sum(done.values()) < kills and time.monotonic() - began < limit:
        job = job or start()
        if job.wait(rng.uniform(0.5, longest)):
            job.end()
            settle()
            job = None
            if len(published_ids(run)) == rows:
                break
            failures += 1
            if failures > 3:
                raise SystemExit("the job ends by itself:\n" + (folder.parent / "job.log").read_text()[-3000:])
            continue
        killed = job.kill(rng.choice(KINDS), rng)
        done[killed] += killed != "nothing"
        if run.files("shards", suffix=".parquet"):
            look()
        if killed == "raylet" and job.goes_on():
            continue
        if killed in ("driver", "group", "raylet"):
            hung += job.end() == -100
            settle()
            job = None
    exit_codes = []
    for _ in range(5):
        job = job or start()
        exit_codes.append(job.end(3600))  # nothing is killed any more, and all that is left is made
        settle()
        if exit_codes[-1] == 0:
            break
        job = None
    if job is not None:
        job.sweep()
    look()
    found = [row_id for table in shards.latest(run, []) for row_id in table["id"].to_pylist()]
    entries = read_log(log)
    return {
        "kills": sum(done.values()),
        "by_kind": dict(done),
        "starts": starts,
        "rows": rows,
        "drivers_that_hung": hung,
        "lost": len(set(ids) - set(found)),
        "duplicated": len(found) - len(set(found)),
        "strange": len(set(found) - set(ids)),
        "computed_again_after_publication": len(wasted),
        "computed_again_in_all": len([e for e in entries if e[0] == "audio"]) - rows,
        "shards_bad_after_some_kill": len(problems),
        "problems": problems[:10] + wasted[:10],
        "verify_at_the_end": [str(p) for p in verify(run)],
        "left_over_files": [p for p in run.files() if p.endswith(".tmp")],
        "exit_codes_at_the_end": exit_codes,
        "statuses": shards.count(run).to_dict(),
        "seconds": round(time.monotonic() - began),
    }


def published_ids(run: RunDir) -> set[str]:
    return {row_id for attempt in shards.attempts(run) for row_id in shards.ids(run, attempt).to_pylist()}


def main() -> None:
    from machine import describe_machine

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--rows", type=int, default=1200)
    parser.add_argument("--row-seconds", type=float, default=0.6)
    parser.add_argument("--longest", type=float, default=20.0)
    parser.add_argument("--limit", type=float, default=1e9, help="seconds of killing")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=str(Path(__file__).parent / "results" / "chaos.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        found = run_chaos(
            Path(folder) / "run",
            kills=options.kills,
            rows=options.rows,
            row_seconds=options.row_seconds,
            longest=options.longest,
            seed=options.seed,
            limit=options.limit,
        )
    result = {"machine": describe_machine(), "seed": options.seed, **found}
    Path(options.out).write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
