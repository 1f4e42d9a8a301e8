"""Two workers fit as one does, and a killed worker or job goes on where its last epoch ended."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from fit_job import EPOCHS, fit_on

from conceptcaps.captions.train import CHECKPOINT, load_checkpoint
from conceptcaps.rundir import RunDir

PATIENCE_S = 240


@pytest.fixture(scope="module")
def one_worker(tmp_path_factory):
    return fit_on(1, str(tmp_path_factory.mktemp("one")))


def saved_fit(run: RunDir) -> dict:
    """What the fit's checkpoint holds."""
    if not run.exists(*CHECKPOINT):
        return {"history": []}
    return torch.load(io.BytesIO(run.read_bytes(*CHECKPOINT)), weights_only=True)["fit"]


def saved_epochs(run: RunDir) -> int:
    return len(saved_fit(run)["history"])


def start(folder: Path) -> subprocess.Popen:
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "fit_job.py"), str(folder)],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def wait_for(job: subprocess.Popen, run: RunDir, epochs: int) -> None:
    began = time.monotonic()
    while saved_epochs(run) < epochs:
        assert job.poll() is None, Path(run.path("log")).read_text()[-3000:]
        assert time.monotonic() - began < PATIENCE_S, "the fit does not go on"
        time.sleep(0.05)


def workers_of(job: subprocess.Popen) -> list[psutil.Process]:
    """The job's Ray Train workers."""
    return [p for p in psutil.Process(job.pid).children(recursive=True) if "RayTrainWorker" in " ".join(p.cmdline())]


@pytest.mark.served
def test_a_checkpoint_from_a_gpu_is_read_without_one(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    buffer = io.BytesIO()
    torch.save({"fit": {"moments": torch.ones(3)}}, buffer)
    run = RunDir(tmp_path)
    run.write_bytes(buffer.getvalue(), *CHECKPOINT)
    assert load_checkpoint(run)["fit"]["moments"].tolist() == [1, 1, 1]
    with pytest.raises(RuntimeError, match="CUDA"):
        torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)


def test_two_workers_have_the_curve_of_one(cluster, one_worker, tmp_path):
    two = fit_on(2, str(tmp_path))
    curves = [[step["loss"] for step in made["steps"]] for made in (one_worker, two)]
    np.testing.assert_allclose(*curves, rtol=1e-3)
    assert two["best_loss"] == pytest.approx(one_worker["best_loss"], rel=1e-3)


@pytest.mark.served
@pytest.mark.timeout(600)
def test_a_killed_worker_and_a_killed_job_go_on_with_the_same_curve(one_worker, tmp_path):
    run = RunDir(tmp_path)
    job = start(tmp_path)
    try:
        wait_for(job, run, 1)
        victims = workers_of(job)
        assert victims, "no training worker is running"
        os.kill(victims[0].pid, signal.SIGKILL)
        killed_at = saved_epochs(run)
        wait_for(job, run, killed_at + 2)
        family = [psutil.Process(job.pid), *psutil.Process(job.pid).children(recursive=True)]
        for process in family:
            process.kill()
        job.wait()
        killed_at = saved_epochs(run)
        assert 1 < killed_at < EPOCHS
        job = start(tmp_path)
        assert job.wait(PATIENCE_S) == 0, (tmp_path / "log").read_text()[-3000:]
    finally:
        for process in psutil.Process(job.pid).children(recursive=True) if job.poll() is None else ():
            process.kill()
        job.kill()
    resumed = [step["loss"] for step in saved_fit(run)["steps"]]
    np.testing.assert_allclose(resumed, [step["loss"] for step in one_worker["steps"]], rtol=1e-3)
    assert run.exists("lora", "adapter", "adapter_config.json")
