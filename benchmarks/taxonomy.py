"""A synthetic corpus distilled on Ray Data: rows per second, and the most memory that the driver and Ray take.

`python benchmarks/taxonomy.py [NUM_ROWS] [--folder DIR] [--make-only]`. The corpus is made first and not timed; with
`--folder` it stays there for the next time. Rows have tags of the lexicon, Zipf-distributed, spelt in
several ways, with modifiers that make thousands of distinct tags. The ratio is to a plain loop in one process that
only reads, parses and counts the same rows, once; distilling passes over them five times.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from machine import PeakMemory, describe_machine

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


def make_corpus(num_rows: int, corpus: Path) -> None:
    """Write the rows that are not there yet."""
    corpus.mkdir(parents=True, exist_ok=True)
    tags = make_tags()
    for begin in range(0, num_rows, ROWS_PER_FILE):
        path = corpus / f"{begin:09d}.parquet"
        if not path.exists():
            part = make_part(tags, begin, min(begin + ROWS_PER_FILE, num_rows))
            pq.write_table(part, path.with_suffix(".part"), compression="zstd")
            path.with_suffix(".part").rename(path)


def measure(num_rows: int, corpus: Path, run: Path) -> dict[str, object]:
    """Distil the corpus once on a Ray of its own."""
    plain = plain_loop(corpus)
    connect(RayConfig(num_cpus=2, object_store_mb=1000), quiet=True)
    with PeakMemory() as memory:
        started = time.perf_counter()
        facts = run_taxonomy(load(None, [f"taxonomy.annotations={corpus}"]), RunDir(run))
        seconds = time.perf_counter() - started
    assert facts["rows_read"] == num_rows
    return {
        "machine": describe_machine() | {"load": os.getloadavg()},
        "rows": num_rows,
        "rows_kept": facts["rows_kept"],
        "distinct_tags": facts["distinct_tags_read"],
        "seconds": round(seconds, 1),
        "rows_per_second": round(num_rows / seconds),
        "of_a_plain_counting_loop": round(num_rows / seconds / plain, 3),
        "peak_memory_gb": round(memory.peak / 1e9, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("num_rows", nargs="?", type=int, default=5_000_000)
    parser.add_argument("--folder", type=Path, help="where the corpus is, or is made; a temporary one otherwise")
    parser.add_argument("--make-only", action="store_true", help="make the corpus and stop")
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="taxonomy-benchmark-"))
    try:
        corpus = (arguments.folder or place) / f"corpus-{arguments.num_rows}"
        make_corpus(arguments.num_rows, corpus)
        if not arguments.make_only:
            result = measure(arguments.num_rows, corpus, place / "run")
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(result, indent=2) + "\n")
            print(json.dumps(result, indent=2))
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
