"""The whole job as a user runs it: annotations in, a verified dataset out; the same with the real engines."""

from __future__ import annotations

import json
import os
import shutil
import signal as signals
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from conceptcaps import schema, shards, signal
from conceptcaps.config import load
from conceptcaps.dataset.verify import verify
from conceptcaps.pipelines.stages import run_stages
from conceptcaps.rundir import Manifest, RunDir

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "configs" / "demo.yaml"
MADE = ("taxonomy", "vae", "specs", "generate", "dataset")
SMALL = (
    "vae.mixture.members=1",
    "vae.mixture.epochs=5",
    "specs.num_samples=40",
    "ray.rows_per_block=10",
    "audio.duration=4",
    "audio.rounds=1",
    "alignment.threshold.num_calibration=12",
    "alignment.threshold.quantile=0.5",
)
GRAMMAR = ("captions.engine=grammar",)


def rows_of(run: RunDir) -> list[dict]:
    tables = list(shards.latest(run, schema.SHARD.names))
    return sorted(pa.concat_tables(tables).to_pylist(), key=lambda row: row["id"])


def run_demo(folder: Path, *overrides: str, stages: tuple[str, ...] = MADE) -> RunDir:
    return run_stages(load(DEMO, [f"run_dir={folder}", *SMALL, *overrides]), stages)


@pytest.fixture(scope="module")
def demo(cluster, tmp_path_factory) -> RunDir:
    """The demo with the instant captioner."""
    pairs = ("specs.counterfactual=[claps]", "specs.counterfactual_pairs=4")
    return run_demo(tmp_path_factory.mktemp("demo"), *GRAMMAR, *pairs, "audio.keep_rejected_audio=true")


def test_the_run_verifies_and_its_counts_add_up(demo):
    assert list(verify(demo)) == []
    counts = Manifest(demo).stage("generate")["counts"]
    assert counts["rows"] == 40 + 8
    assert counts["accepted"] + counts["rejected"] + counts["failed"] == 48
    assert counts["accepted"] >= 10


def test_accepted_audio_has_the_length_asked_for(demo):
    for row in rows_of(demo):
        if row["status"] == schema.ACCEPTED:
            waveform, rate = signal.decode(row["audio"]["bytes"])
            assert waveform.shape[1] == 4 * rate == 4 * row["sampling_rate"]
            assert row["duration"] == 4.0
            assert row["alignment_score"] >= Manifest(demo).stage("generate")["threshold"]


def test_a_counterfactual_pair_shares_all_that_is_not_its_tag(demo):
    """The caption is the twin's and a sentence more, the audio the twin's with claps."""
    rows = [row for row in rows_of(demo) if row["pair_id"]]
    assert len(rows) == 8
    for has, lacks in zip(rows[::2], rows[1::2], strict=True):
        assert has["pair_id"] == lacks["pair_id"]
        assert has["caption"].startswith(lacks["caption"])
        assert "claps" in has["caption"].removeprefix(lacks["caption"])
        assert "claps" not in lacks["caption"]
        sounds = [signal.decode(row["audio"]["bytes"])[0] for row in (has, lacks)]
        correlation = np.corrcoef(sounds[0][0], sounds[1][0])[0, 1]
        assert 0.3 < correlation < 1 - 1e-6


def test_splits_open_with_datasets_and_add_up(demo, tmp_path):
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(demo.path("dataset"), "default", cache_dir=str(tmp_path))
    counts = Manifest(demo).stage("generate")["counts"]
    assert sum(part.num_rows for part in loaded.values()) == counts["accepted"]
    ids = [row_id for part in loaded.values() for row_id in part["id"]]
    assert len(set(ids)) == len(ids)


def test_real_musiccaps_rows_with_the_published_taxonomy(cluster, musiccaps, tmp_path):
    run = run_demo(
        tmp_path,
        *GRAMMAR,
        f"taxonomy.annotations={musiccaps / 'raw.csv'}",
        f"taxonomy.taxonomy={musiccaps / 'concepts_to_tags.published.json'}",
        "specs.num_samples=24",
    )
    assert list(verify(run)) == []
    published = {
        t for tags in json.loads((musiccaps / "concepts_to_tags.published.json").read_text()).values() for t in tags
    }
    used = {tag for row in rows_of(run) for tag in row["aspect_list"]}
    assert used
    assert used <= published


@pytest.mark.served
@pytest.mark.timeout(900)
def test_served_captions_and_audio_depend_on_the_seed_alone(cluster, tmp_path):
    """vLLM, the procedural engine and CLAP, twice, in other batches, blocks and pools."""
    pytest.importorskip("vllm")
    fixed = (
        "alignment.threshold.method=absolute",
        "alignment.threshold.value=-1",
        "alignment.verify_tags=false",  # nothing to calibrate: one engine start less
        "specs.num_samples=16",
    )
    stages = ("taxonomy", "vae", "specs", "generate")
    one = run_demo(tmp_path / "one", *fixed, stages=stages)
    other = run_demo(
        tmp_path / "other",
        *fixed,
        "captions.resources.batch_size=3",
        "captions.vllm.max_num_seqs=5",
        "audio.resources.batch_size=3",
        "audio.resources.workers=2",
        "audio.resources.num_cpus=0.1",
        "alignment.resources.batch_size=5",
        "ray.rows_per_block=7",
        stages=stages,
    )
    before, after = rows_of(one), rows_of(other)
    assert [row["status"] for row in before].count(schema.ACCEPTED) >= 12
    assert len({row["caption"] for row in before}) > 8
    for a, b in zip(before, after, strict=True):
        for measured in (
            "clap_score",
            "clap_score_min",
            "alignment_score",
            "audio_embedding",
        ):  # CLAP's matrix products round with the batch
            assert a.pop(measured) == pytest.approx(b.pop(measured), abs=1e-4)
        assert a == b


@pytest.mark.served
@pytest.mark.timeout(600)
def test_the_job_through_ray_job_submit(tmp_path):
    """`ray start --head`, then `ray job submit`, as the README says it, on a cluster of its own."""
    short = tempfile.mkdtemp(prefix="ray-")  # Ray's sockets must fit in 107 characters
    env = os.environ | {"RAY_TMPDIR": short, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)}
    env.pop("RAY_ADDRESS", None)
    bin_dir = Path(sys.executable).parent
    env["PATH"] = f"{bin_dir}{os.pathsep}{env['PATH']}"
    ports = {"--port": 6411, "--dashboard-port": 8411, "--ray-client-server-port": 9411}
    ports["--dashboard-agent-listen-port"] = 9412
    head = ["ray", "start", "--head", "--block", "--num-cpus=2", "--object-store-memory=300000000"]
    head += ["--disable-usage-stats", *(f"{name}={port}" for name, port in ports.items())]
    log = (tmp_path / "head.log").open("w")
    process = subprocess.Popen(head, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        run = tmp_path / "run"
        words = [
            "ray", "job", "submit", "--address", "http://127.0.0.1:8411", "--working-dir", str(ROOT / "jobs"), "--",
            sys.executable, "run.py", "-c", str(DEMO), "--run-dir", str(run),
        ]  # fmt: skip
        words += ["--stages", ",".join(MADE)]
        for override in (*SMALL, *GRAMMAR, "specs.num_samples=12"):
            words += ["--set", override]
        answer = _submit(words, env, process)
        assert answer.returncode == 0, answer.stdout[-3000:] + answer.stderr[-3000:]
        assert list(verify(RunDir(run))) == []
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signals.SIGTERM)
            process.wait(60)
        shutil.rmtree(short, ignore_errors=True)


def _submit(words, env, head) -> subprocess.CompletedProcess[str]:
    """Submit once the head's job server answers; it takes a while to come up."""
    for _ in range(30):
        answer = subprocess.run(words, env=env, capture_output=True, text=True, check=False, timeout=280)
        if "Failed to connect" not in answer.stdout + answer.stderr:
            return answer
        assert head.poll() is None, "the head node ended"
        time.sleep(2)
    return answer
