"""Engine `audiocraft` in its own environment: the tokens of our engine, and rows of a job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from runs import small_config, write_specs
from tiny_musicgen import build_musicgen, save_musicgen

from conceptcaps import environments, schema, shards, signal
from conceptcaps.audio.audiocraft import AudiocraftSynthesiser
from conceptcaps.audio.musicgen import MusicgenSynthesiser
from conceptcaps.config.audio import AudioConfig
from conceptcaps.errors import InputError
from conceptcaps.pipelines.generate import run_generate
from conceptcaps.pipelines.steps import Engines
from conceptcaps.rundir import RunDir

TESTS = Path(__file__).resolve().parents[1]
CAPTIONS = ["slow calm piano", "fast techno with drums and a loud guitar", "jazz"]


def test_without_its_package_the_engine_names_the_command_that_brings_it():
    with pytest.raises(InputError, match=r"conceptcaps env build audiocraft.*audio\.resources\.python"):
        AudiocraftSynthesiser(AudioConfig(engine="audiocraft"))


def test_an_unknown_environment_is_refused(tmp_path):
    with pytest.raises(InputError, match="Choose among audiocraft"):
        environments.build("audiocroft", tmp_path)


def test_an_interpreter_that_cannot_run_workers_says_why(tmp_path):
    assert environments.fault(sys.executable) == ""
    assert "cannot be started" in environments.fault(str(tmp_path / "python"))
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    assert "No module named 'ray'" in environments.fault(str(bare / "bin" / "python"))


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory) -> Path:
    """One that is there already, named by CONCEPTCAPS_AUDIOCRAFT_PYTHON, or one built from the lock file."""
    if given := os.environ.get("CONCEPTCAPS_AUDIOCRAFT_PYTHON"):
        return Path(given)
    return environments.build("audiocraft", tmp_path_factory.mktemp("audiocraft") / "env")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[int, Path]:
    """Random checkpoints, mono and stereo, that transformers 4 can read."""
    root, found = tmp_path_factory.mktemp("checkpoints"), {}
    for channels in (1, 2):
        # Codes of ten bits: transformers 4 counts EnCodec's codebooks as if they all had that.
        found[channels] = save_musicgen(root / str(channels), build_musicgen(channels, entries=1024))
        path = found[channels] / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    return found


@pytest.mark.isolated
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seconds", [0.4, 1.1], ids=["one window", "windows"])
@pytest.mark.parametrize("channels", [1, 2], ids=["mono", "stereo"])
def test_greedy_tokens_are_those_of_our_engine(interpreter, checkpoints, channels, seconds):
    words = [str(interpreter), str(TESTS / "audiocraft_tokens.py"), str(checkpoints[channels]), str(seconds), *CAPTIONS]
    env = os.environ | {"PYTHONPATH": str(TESTS.parent)}
    answer = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr[-3000:]
    theirs = np.array(json.loads(answer.stdout.splitlines()[-1]))
    greedy = {"model": str(checkpoints[channels]), "top_k": 1, "window": 0.5, "extend_stride": 0.3}
    ours = MusicgenSynthesiser(AudioConfig(engine="musicgen", duration=seconds, musicgen=greedy))
    states, mask = ours.encode_text(CAPTIONS)
    codes, finite = ours._decoder.generate(states, mask, torch.arange(len(CAPTIONS)), theirs.shape[2])
    assert finite.all()
    assert len(np.unique(theirs)) > 50
    np.testing.assert_array_equal(codes.numpy(), theirs)


@pytest.mark.isolated
@pytest.mark.timeout(1800)
def test_a_jobs_audio_is_made_in_the_environment(cluster, interpreter, checkpoints, tmp_path):
    from trivial_engines import TrivialAligner, TrivialCaptioner

    from conceptcaps.audio import make_synthesiser

    run = RunDir(tmp_path / "run")
    write_specs(run, 6)
    settings = ["audio.engine=audiocraft", f"audio.musicgen.model={checkpoints[1]}", "audio.musicgen.top_k=50"]
    settings += [f"audio.resources.python={interpreter}", "audio.resources.batch_size=3", "audio.duration=0.25"]
    engines = Engines(TrivialCaptioner, make_synthesiser, TrivialAligner)
    run_generate(small_config(tmp_path / "run", *settings, "alignment.threshold.method=none"), run, engines)
    rows = pa.concat_tables(shards.latest(run, schema.SHARD.names)).to_pylist()
    assert [row["status"] for row in rows] == [schema.ACCEPTED] * 6, [row["reason"] for row in rows]
    clips = [signal.decode(row["audio"]["bytes"]) for row in rows]
    assert {(clip.shape, rate) for clip, rate in clips} == {((1, 400), 1600)}
    assert len({clip.tobytes() for clip, _ in clips}) == 6
