"""One job of `scale.py`, to be watched and killed from outside: `python scale_job.py RUN_DIR [key=value ...]`."""

from __future__ import annotations

import json
import sys

from trivial import ENGINES

from conceptcaps.config import Config, load
from conceptcaps.pipelines.generate import run_generate
from conceptcaps.rundir import RunDir
from conceptcaps.runtime import connect


def config_of(folder: str, *overrides: str, rows_per_block: int = 1000) -> Config:
    """Clips of 80 samples, as WAV: what is measured is how rows travel."""
    small = json.dumps({"num_cpus": 0.25, "batch_size": min(500, rows_per_block)})
    pools = [f"{stage}.resources={small}" for stage in ("captions", "audio", "alignment")]
    fixed = [
        "audio.duration=0.0025",
        "audio.checks.enabled=false",
        "audio.format=wav",
        f"ray.rows_per_block={rows_per_block}",
        "ray.num_cpus=2",
        "ray.object_store_mb=500",
    ]
    return load(None, [f"run_dir={folder}", *fixed, "alignment.threshold.method=none", *pools, *overrides])


if __name__ == "__main__":
    config = config_of(sys.argv[1], *sys.argv[2:])
    connect(config.ray, quiet=True)
    print(json.dumps(run_generate(config, RunDir(sys.argv[1]), ENGINES)))
