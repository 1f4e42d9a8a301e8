"""Engines that do nearly nothing, to measure the machinery that moves the rows."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from conceptcaps.pipelines.steps import Engines

RATE = 32_000


class Captioner:
    def __init__(self, config):
        pass

    def __call__(self, batch):
        return [", ".join(tags) for tags in batch["aspect_list"]]


class Synthesiser:
    """The same noise for every row, after TRIVIAL_SECONDS of sleep for each: what is measured is how it travels.

    A worker that is ready says so by a file in the folder TRIVIAL_READY, where that is set.
    """

    sampling_rate = RATE

    def __init__(self, config):
        self.clip = np.random.default_rng(0).uniform(-0.5, 0.5, (1, round(config.duration * RATE))).astype(np.float32)
        self.seconds = float(os.environ.get("TRIVIAL_SECONDS", "0"))
        if folder := os.environ.get("TRIVIAL_READY"):
            Path(folder, str(os.getpid())).touch()

    def __call__(self, batch):
        time.sleep(self.seconds * len(batch["seed"]))
        return [self.clip] * len(batch["seed"])


class Aligner:
    def __init__(self, config):
        pass

    def embed_windows(self, waveforms, sampling_rate):
        return [np.ones((1, 1), dtype=np.float32)] * len(waveforms)

    def embed_text(self, texts):
        return np.ones((len(texts), 1), dtype=np.float32)


ENGINES = Engines(Captioner, Synthesiser, Aligner)
