"""A synthetic corpus distilled on Ray Data: rows per second, and the most memory that the driver and Ray take.

`python benchmarks/taxonomy.py [NUM_ROWS] [--folder DIR]`. Rows have tags of the lexicon, Zipf-distributed, spelt in
several ways, with modifiers that make thousands of distinct tags. The ratio is to a plain loop in one process that
only reads, parses and counts the same rows, once; distilling passes over them five times.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from machine import describe_machine

from conceptcaps import seeding
from conceptcaps.config import load
from conceptcaps.config.ray import RayConfig
from conceptcaps.pipelines.taxonomy import run_taxonomy
from conceptcaps.rundir import RunDir
from conceptcaps.runtime import connect
from conceptcaps.taxonomy import annotations
from conceptcaps.taxonomy.counting import Totals
from conceptcaps.taxonomy.lexicon import Lexicon
from conceptcaps.taxonomy.matching import Matcher
from conceptcaps.vocabulary import CATEGORIES, Vocabulary

ROWS_PER_FILE = 50_000
PLAIN_ROWS = 50_000
RESULTS = Path(__file__).parent / "results" / "taxonomy.json"
_MODIFIERS = ["", "", "", "", "soft ", "Wide ", "echoing ", "simple ", "distant "]


def make_tags() -> np.ndarray:
    """Some ten thousand tags: every phrase of the lexicon with every modifier, in a seeded order."""
    phrases = sorted(Lexicon.load().classes)
    tags = np.array(sorted({m + p for m in _MODIFIERS for p in phrases}), dtype=object)
    return tags[seeding.generator(0, "benchmark", "tags").permutation(len(tags))]


def make_part(tags: np.ndarray, begin: int, end: int) -> pa.Table:
    """Rows of 4 to 14 tags; one aspect list in a thousand does not parse."""
    rng = seeding.generator(0, "benchmark", begin)
    sizes = rng.integers(4, 15, end - begin)
    ranks = np.minimum(rng.zipf(1.3, sizes.sum()) - 1, len(tags) - 1)
    lists = [row.tolist() for row in np.split(tags[ranks], np.cumsum(sizes)[:-1])]
    aspects = ["['broken" if i % 1000 == 999 else str(row) for i, row in enumerate(lists)]
    captions = [f"The low quality recording features {', '.join(row)}. It sounds calm." for row in lists]
    return pa.table({"caption": captions, "aspect_list": aspects})


class PeakMemory:
    """The most memory, in bytes, that this process and all it started held at once (proportional set size)."""

    def __enter__(self) -> PeakMemory:
        self.peak, self.stop = 0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self.stop.wait(1.0):
            self.peak = max(self.peak, sum(map(_memory, [me, *me.children(recursive=True)])))


def _memory(process: psutil.Process) -> int:
    try:
        return process.memory_full_info().pss
    except psutil.Error:  # it has ended
        return 0


def plain_loop(corpus: Path) -> float:
    """Rows per second of reading, parsing and counting in this process alone."""
    matcher = Matcher.of(Vocabulary(dict.fromkeys(CATEGORIES, ())))
    totals, started = Totals.zero(0), time.perf_counter()
    for part in annotations.find_parts(str(corpus)):
        for raw in annotations.read_part(part):
            totals += Totals.of(annotations.parse_table(raw), matcher, 3)
        if totals.num_good >= PLAIN_ROWS / 2:
            break
    return (totals.num_good + totals.num_bad) / (time.perf_counter() - started)


def main(num_rows: int, folder: Path) -> None:
    corpus = folder / "corpus"
    corpus.mkdir(parents=True)
    tags = make_tags()
    for begin in range(0, num_rows, ROWS_PER_FILE):
        part = make_part(tags, begin, min(begin + ROWS_PER_FILE, num_rows))
        pq.write_table(part, corpus / f"{begin:09d}.parquet", compression="zstd")
    plain = plain_loop(corpus)
    connect(RayConfig(num_cpus=2, object_store_mb=1000), quiet=True)
    with PeakMemory() as memory:
        started = time.perf_counter()
        facts = run_taxonomy(load(None, [f"taxonomy.annotations={corpus}"]), RunDir(folder / "run"))
        seconds = time.perf_counter() - started
    assert facts["rows_read"] == num_rows
    result = {
        "machine": describe_machine() | {"load": os.getloadavg()},
        "rows": num_rows,
        "rows_kept": facts["rows_kept"],
        "distinct_tags": facts["distinct_tags_read"],
        "seconds": round(seconds, 1),
        "rows_per_second": round(num_rows / seconds),
        "of_a_plain_counting_loop": round(num_rows / seconds / plain, 3),
        "peak_memory_gb": round(memory.peak / 1e9, 2),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("num_rows", nargs="?", type=int, default=5_000_000)
    parser.add_argument("--folder", type=Path, help="for the corpus and the run; a temporary one otherwise")
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="taxonomy-benchmark-", dir=arguments.folder))
    try:
        main(arguments.num_rows, place)
    finally:
        shutil.rmtree(place)
