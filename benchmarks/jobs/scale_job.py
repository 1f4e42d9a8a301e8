"""One job of `scale.py`, to be watched and killed from outside: `python scale_job.py RUN_DIR [key=value ...]`."""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np

from conceptcaps.config import Config, load
from conceptcaps.pipelines.generate import run_generate
from conceptcaps.pipelines.steps import Engines
from conceptcaps.rundir import RunDir
from conceptcaps.runtime import connect

RATE = 8000


class Captioner:
    def __init__(self, config):
        pass

    def __call__(self, batch):
        return [", ".join(tags) for tags in batch["aspect_list"]]


class Synthesiser:
    """The same short noise for every row, after SCALE_SECONDS of sleep for each."""

    sampling_rate = RATE

    def __init__(self, config):
        self.clip = np.random.default_rng(0).uniform(-0.5, 0.5, (1, round(config.duration * RATE))).astype(np.float32)
        self.seconds = float(os.environ.get("SCALE_SECONDS", "0"))

    def __call__(self, batch):
        time.sleep(self.seconds * len(batch["seed"]))
        return [self.clip] * len(batch["seed"])


class Aligner:
    def __init__(self, config):
        pass

    def embed_audio(self, waveforms, sampling_rate):
        return np.ones((len(waveforms), 1), dtype=np.float32)

    def embed_text(self, texts):
        return np.ones((len(texts), 1), dtype=np.float32)


ENGINES = Engines(Captioner, Synthesiser, Aligner)


def config_of(folder: str, *overrides: str) -> Config:
    """Clips of a hundredth of a second, as WAV: what is measured is how rows travel."""
    small = json.dumps({"num_cpus": 0.25, "batch_size": 500})
    pools = [f"{stage}.resources={small}" for stage in ("captions", "audio", "alignment")]
    fixed = [
        "audio.duration=0.01",
        "audio.format=wav",
        "ray.rows_per_block=1000",
        "ray.num_cpus=2",
        "ray.object_store_mb=500",
    ]
    return load(None, [f"run_dir={folder}", *fixed, "alignment.threshold.method=none", *pools, *overrides])


if __name__ == "__main__":
    config = config_of(sys.argv[1], *sys.argv[2:])
    connect(config.ray, quiet=True)
    print(json.dumps(run_generate(config, RunDir(sys.argv[1]), ENGINES)))
