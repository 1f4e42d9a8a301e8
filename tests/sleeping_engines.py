"""Engines that sleep instead of working, and write down when: what a plan can be held against."""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np

from conceptcaps.pipelines.steps import Engines


class Sleeper:
    """Sleeps `seconds` per row; each worker writes a line when it is ready and one per call."""

    sampling_rate = 8000

    def __init__(self, config, stage, seconds, folder):
        self.seconds, self.log = seconds, Path(folder) / f"{stage}-{os.getpid()}-{time.monotonic_ns()}"
        self._write({"ready": time.time()})

    def _write(self, line):
        with self.log.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _sleep(self, rows):
        start = time.time()
        time.sleep(rows * self.seconds)
        self._write({"rows": rows, "start": start, "end": time.time()})


class SleepingCaptioner(Sleeper):
    def __call__(self, batch):
        self._sleep(len(batch["id"]))
        return ["a caption"] * len(batch["id"])


class SleepingSynthesiser(Sleeper):
    def __call__(self, batch):
        self._sleep(len(batch["id"]))
        return [np.full((1, 80), 0.1, np.float32)] * len(batch["id"])


class SleepingAligner(Sleeper):
    def embed_audio(self, waveforms, sampling_rate):
        self._sleep(len(waveforms))
        return np.tile(np.array([1.0, 0.0], np.float32), (len(waveforms), 1))

    def embed_text(self, texts):
        return np.tile(np.array([1.0, 0.0], np.float32), (len(texts), 1))


def sleeping_engines(folder, captions, audio, alignment):
    """Engines of these seconds per row, which write into `folder`."""
    return Engines(
        partial(SleepingCaptioner, stage="captions", seconds=captions, folder=folder),
        partial(SleepingSynthesiser, stage="audio", seconds=audio, folder=folder),
        partial(SleepingAligner, stage="alignment", seconds=alignment, folder=folder),
    )


def read_logs(folder):
    """By stage: the lines of all its workers."""
    lines = defaultdict(list)
    for path in Path(folder).iterdir():
        lines[path.name.split("-")[0]] += [json.loads(line) for line in path.read_text().splitlines()]
    return lines
