"""Signal checks: each fault that can be put into a good clip is found and named; good clips pass."""

from __future__ import annotations

import numpy as np
import pytest

from conceptcaps.audio.checks import Measures, problem
from conceptcaps.audio.procedural import ProceduralSynthesiser
from conceptcaps.config.audio import AudioConfig
from conceptcaps.config.quality import SignalChecksConfig

SECONDS = 4.0
TAGS = [["rock", "electric guitar"], ["ambient", "no percussion"], ["techno", "fast tempo"], ["soft", "piano", "calm"]]


@pytest.fixture(scope="module")
def clips() -> tuple[list[np.ndarray], int]:
    engine = ProceduralSynthesiser(AudioConfig(duration=SECONDS))
    return engine({"seed": [1, 2, 3, 4], "aspect_list": TAGS}), engine.sampling_rate


def code(waveform: np.ndarray, rate: int, **limits) -> str | None:
    config = SignalChecksConfig(**limits)
    found = problem(Measures.of(waveform, rate), waveform.shape[1] / rate, SECONDS, config)
    return found and found[0]


def test_good_clips_pass(clips):
    waveforms, rate = clips
    assert [code(w, rate) for w in waveforms] == [None] * 4


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (lambda w: np.zeros_like(w), "silent"),
        (lambda w: w * 1e-3, "quiet"),
        (lambda w: np.clip(w * 20, -1, 1), "clipped"),
        (lambda w: w * 0.5 + 0.2, "dc"),
        (lambda w: np.random.default_rng(0).normal(0, 0.1, w.shape).astype(np.float32), "noise"),
        (lambda w: w[:, : w.shape[1] // 2], "duration"),
    ],
)
def test_each_fault_is_named(clips, fault, name):
    waveforms, rate = clips
    found = {code(fault(w).astype(np.float32), rate) for w in waveforms}
    # A quiet clip may be silent, frame by frame.
    assert found <= ({name, "silent"} if name == "quiet" else {name})


def test_loops_are_refused_on_request(clips):
    waveforms, rate = clips
    loop = np.tile(waveforms[0][:, :rate], (1, 4))
    assert code(loop, rate) is None
    assert code(loop, rate, max_repetition=0.98) == "loop"
