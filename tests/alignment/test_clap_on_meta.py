"""The path that a GPU takes, on the meta device: a batch goes there whole and comes back once."""

from __future__ import annotations

from pathlib import Path

import pytest
from meta_device import META, OnlyMeta
from tiny_clap import RATE, TEXTS, tones, write_checkpoint
from transformers import ClapFeatureExtractor

from conceptcaps.alignment import clap
from conceptcaps.alignment.mel import MelFrontEnd
from conceptcaps.config.alignment import AlignmentConfig
from conceptcaps.config.base import Resources


def test_scoring_stays_on_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_checkpoint(tmp_path, fusion=False)
    monkeypatch.setattr(clap, "device_for", lambda *_: META)
    aligner = clap.ClapAligner(AlignmentConfig(model=str(folder), resources=Resources(batch_size=4)))
    with OnlyMeta(read_back=True) as audio:
        windows = aligner.embed_windows(tones(0.5, 1.0, 2.5), RATE)
    with OnlyMeta(read_back=True) as text:
        aligner.embed_text(TEXTS)
    assert [len(own) for own in windows] == [1, 1, 3]
    assert audio.read == 2  # five windows, four at a time
    assert text.read == 2  # transformers looks at the mask once


@pytest.mark.parametrize("seconds", [7.0, 17.0])
def test_fused_features_stay_on_the_device(seconds: float) -> None:
    """The model itself counts there which clips are longer, and waits for that."""
    front_end = MelFrontEnd(ClapFeatureExtractor(truncation="fusion"), META)
    with OnlyMeta():
        features, is_longer = front_end.features(front_end.windows(tones(seconds, rate=48_000)[0][0]))
    assert features.shape == (1, 4, 1001, 64)
    assert is_longer.shape == (1, 1)
