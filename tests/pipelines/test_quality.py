"""Measures of a run's audio: counts by concept add up, a reference is embedded once, bad reference files are named."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from runs import small_config, write_specs
from trivial_engines import TRIVIAL

from conceptcaps import signal
from conceptcaps.errors import InputError
from conceptcaps.pipelines import quality
from conceptcaps.pipelines.generate import run_generate
from conceptcaps.rundir import RunDir


@pytest.fixture(scope="module")
def run(cluster, tmp_path_factory) -> RunDir:
    folder = tmp_path_factory.mktemp("quality")
    run = RunDir(folder)
    write_specs(run, 40, special={3: "raise-audio"})
    run_generate(small_config(folder, "alignment.threshold.value=0.5"), run, TRIVIAL)
    return run


def test_concepts_are_counted_and_signals_summarised(run):
    facts = quality.run_quality(small_config(run.root), run)
    rows = {row["tag"]: row for row in pq.read_table(run.path(*quality.CONCEPTS)).to_pylist()}
    assert rows["rock"]["rows"] == rows["jazz"]["rows"] == 20
    assert rows["sad"]["rows"] == 40
    assert rows["rock"]["accepted"] + rows["jazz"]["accepted"] == rows["sad"]["accepted"]
    assert 0 < rows["sad"]["accepted"] < 39
    assert -1 <= rows["sad"]["mean_score"] <= 1
    assert rows["raise-audio"]["accepted"] == 0
    assert facts == {"concepts": 6, "verified_tags": None, "distance": None}


def test_a_reference_folder_gives_distances_and_bad_files_are_named(run, tmp_path, monkeypatch, caplog):
    from trivial_engines import RATE

    for k in range(12):
        noise = np.random.default_rng(k).uniform(-0.5, 0.5, (1, RATE // 10)).astype(np.float32)
        (tmp_path / f"{k}.wav").write_bytes(signal.encode(noise, RATE, "wav"))
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    monkeypatch.setattr(quality, "Engines", lambda: TRIVIAL)
    facts = quality.run_quality(small_config(run.root, f"quality.reference={tmp_path}"), run)
    assert facts["distance"]["clips"] == min(12, facts["distance"]["clips"])
    assert facts["distance"]["fad"] >= 0
    assert "broken.wav is left out" in caplog.text
    assert pq.read_metadata(run.path(*quality.REFERENCE)).num_rows == 13


def test_a_reference_without_audio_is_refused(run, tmp_path):
    run.delete(*quality.REFERENCE)
    with pytest.raises(InputError, match="holds no audio files"):
        quality.run_quality(small_config(run.root, f"quality.reference={tmp_path}"), run)
