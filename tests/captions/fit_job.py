"""A small fit on two Ray Train workers, as a job that a test can kill: python fit_job.py RUN_DIR."""

from __future__ import annotations

import sys

from conceptcaps.captions.train import train_on_ray
from conceptcaps.config.captions import CaptionsConfig
from conceptcaps.config.lora import LoraConfig
from conceptcaps.config.ray import RayConfig
from conceptcaps.rundir import RunDir
from conceptcaps.runtime import connect

PAIRS = [
    {"genre_aspects": [genre], "mood_aspects": [mood], "caption": f"It is {mood} {genre}{' and more' * (i % 5)}."}
    for i, (genre, mood) in enumerate((g, m) for g in ("rock", "pop", "jazz", "folk") for m in ("sad", "calm", "warm"))
]
EPOCHS = 16


def config(workers: int) -> LoraConfig:
    """The same fit on any number of workers; no dropout, whose masks depend on the worker."""
    settings = {"r": 4, "alpha": 8, "dropout": 0.0, "epochs": EPOCHS, "patience": EPOCHS, "learning_rate": 3e-3}
    settings |= {"batch_size": 4, "micro_batch_size": 2}
    return LoraConfig.model_validate(settings | {"resources": {"workers": workers, "num_cpus": 0.4}})


def fit_on(workers: int, folder: str) -> dict:
    """Fit, or go on with a fit; the curves."""
    return train_on_ray(PAIRS, PAIRS[:3], config(workers), CaptionsConfig(engine="vllm"), RunDir(folder), 0, {})


if __name__ == "__main__":
    connect(RayConfig(num_cpus=2, object_store_mb=200), quiet=True)
    fit_on(2, sys.argv[1])
