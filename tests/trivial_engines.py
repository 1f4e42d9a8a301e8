"""Engines that do nearly nothing, for tests of the machinery around them."""

from __future__ import annotations

import time

import numpy as np

from conceptcaps.pipelines.steps import Engines

RATE = 8000


class TrivialCaptioner:
    def __init__(self, config):
        pass

    def __call__(self, batch):
        if any("raise-caption" in tags for tags in batch["aspect_list"]):
            raise RuntimeError("this row cannot be captioned")
        return [", ".join(tags) + "." for tags in batch["aspect_list"]]


class TrivialSynthesiser:
    sampling_rate = RATE

    def __init__(self, config):
        self.samples = round(config.duration * RATE)

    def __call__(self, batch):
        if any("raise-audio" in tags for tags in batch["aspect_list"]):
            raise RuntimeError("this row cannot be played")
        return [self._clip(seed, tags) for seed, tags in zip(batch["seed"], batch["aspect_list"], strict=True)]

    def _clip(self, seed, tags):
        noise = np.random.default_rng(seed).uniform(-0.5, 0.5, (1, self.samples)).astype(np.float32)
        return noise * np.float32(np.nan) if "nan-audio" in tags else noise


class SleepingSynthesiser(TrivialSynthesiser):
    """Takes `SECONDS` per clip, and no core."""

    SECONDS = 0.1

    def __call__(self, batch):
        time.sleep(self.SECONDS * len(batch["seed"]))
        return super().__call__(batch)


class LoggedCaptioner(TrivialCaptioner):
    """Writes how many rows it has done into a log."""

    def __init__(self, log, config):
        super().__init__(config)
        self.log = log

    def __call__(self, batch):
        _write(self.log, len(batch["seed"]))
        return super().__call__(batch)


class LoggedSynthesiser(SleepingSynthesiser):
    """Writes how many rows it has done into a log, as a negative number."""

    SECONDS = 0.05

    def __init__(self, log, config):
        super().__init__(config)
        self.log = log

    def __call__(self, batch):
        _write(self.log, -len(batch["seed"]))
        return super().__call__(batch)


def _write(log, number):
    with log.open("a") as file:
        file.write(f"{number}\n")


class TrivialAligner:
    """Embeds audio by a hash of its samples and text as one fixed direction: scores in [-1, 1], fixed per clip."""

    def __init__(self, config):
        pass

    def embed_windows(self, waveforms, sampling_rate):
        angles = np.array([abs(float(w[0, :100].sum())) for w in waveforms])
        return list(np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)[:, None])

    def embed_text(self, texts):
        return np.tile(np.array([1.0, 0.0], dtype=np.float32), (len(texts), 1))


class TwoWindowsAligner(TrivialAligner):
    """Hears every clip in two windows, the second of which has nothing of the text."""

    def embed_windows(self, waveforms, sampling_rate):
        other = np.array([[0.0, 1.0]], dtype=np.float32)
        return [np.concatenate([window, other]) for window in super().embed_windows(waveforms, sampling_rate)]


class LikeTextsAligner(TrivialAligner):
    """Texts that differ, but not much: most of each is the one direction of `TrivialAligner`."""

    def embed_text(self, texts):
        angles = np.array([(sum(text.encode()) % 17) / 17 for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


TRIVIAL = Engines(TrivialCaptioner, TrivialSynthesiser, TrivialAligner)
SLEEPING = Engines(TrivialCaptioner, SleepingSynthesiser, TrivialAligner)
