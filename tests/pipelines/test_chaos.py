"""The job in processes of its own: killed at random, run twice at once, asked to stop, watched from another shell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from runs import small_config, write_specs
from trivial_engines import TrivialSynthesiser

from conceptcaps import schema, seeding, shards
from conceptcaps import signal as sounds
from conceptcaps.dataset.verify import verify
from conceptcaps.rundir import Manifest, RunDir

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

pytestmark = [pytest.mark.served, pytest.mark.timeout(600)]


def test_nothing_is_lost_doubled_or_made_for_nothing_by_sigkill(tmp_path):
    from chaos import run_chaos

    found = run_chaos(tmp_path / "run", kills=3, rows=60, row_seconds=0.15, longest=14.0, seed=3)
    assert found["kills"] == 3, found
    wrong = ("lost", "duplicated", "strange", "computed_again_after_publication", "shards_bad_after_some_kill")
    assert {name: found[name] for name in wrong} == dict.fromkeys(wrong, 0), found
    assert found["verify_at_the_end"] == []
    assert found["left_over_files"] == []
    assert found["exit_codes_at_the_end"][-1] == 0


def with_specs(folder: Path, num_rows: int) -> RunDir:
    """A run whose specs are made."""
    run = RunDir(folder)
    write_specs(run, num_rows)
    manifest = Manifest(run)
    manifest.data["stages"]["specs"] = {"state": "finished"}
    manifest.save()
    return run


def start(folder: Path, *overrides: str) -> subprocess.Popen:
    env = os.environ | {"FAULTY_SECONDS": "0.15", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    env.pop("RAY_ADDRESS", None)
    words = [sys.executable, str(ROOT / "tests" / "faulty_job.py"), str(folder), "ray.rows_per_block=5", *overrides]
    words += ["ray.num_cpus=2", "ray.object_store_mb=100", "audio.resources.batch_size=5"]
    return subprocess.Popen(
        words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


@contextmanager
def publishing(folder: Path, run: RunDir) -> Iterator[subprocess.Popen]:
    """A job that has published its first shard; killed at the end if it still runs."""
    job = start(folder)
    try:
        while not run.files("shards", suffix=".parquet"):
            assert job.poll() is None, job.communicate()[0]
            time.sleep(0.2)
        yield job
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)


def test_one_job_at_a_time_seen_from_another_shell_and_stopped_by_sigterm(tmp_path):
    folder, num_rows = tmp_path / "run", 500  # a minute and more of work: the job must outlast two starts beside it
    run = with_specs(folder, num_rows)
    with publishing(folder, run) as first:
        second = start(folder)
        refusal, _ = second.communicate(timeout=200)
        assert second.returncode != 0
        assert "is in use by another job" in refusal
        assert "Traceback" not in refusal
        seen = subprocess.run(
            [sys.executable, "-m", "conceptcaps.cli", "status", str(folder)], capture_output=True, text=True, check=True
        )
        assert "running" in seen.stdout
        assert "'left':" in seen.stdout
        first.send_signal(signal.SIGTERM)
        said, _ = first.communicate(timeout=200)
        assert first.returncode == 0, said
        assert "stopped as asked" in said
    assert Manifest(run).stage("generate")["state"] == "stopped"
    assert not run.exists("lease.json")
    assert shards.count(run).rows < num_rows
    last = start(folder)
    said, _ = last.communicate(timeout=300)
    assert last.returncode == 0, said
    assert list(verify(run)) == []
    assert Manifest(run).stage("generate")["counts"]["rows"] == num_rows


def test_a_job_whose_node_dies_ends_and_goes_on_when_started_again(tmp_path):
    folder = tmp_path / "run"
    run = with_specs(folder, 150)
    with publishing(folder, run) as first:
        children = psutil.Process(first.pid).children(recursive=True)
        (raylet,) = [child for child in children if "raylet/raylet" in child.cmdline()[0]]
        raylet.kill()
        first.communicate(timeout=100)
        assert first.returncode != 0
    last = start(folder)
    said, _ = last.communicate(timeout=300)
    assert last.returncode == 0, said
    assert len(published_ids(run)) == len(set(published_ids(run))) == 150


def published_ids(run: RunDir) -> list[str]:
    return [row_id for table in shards.latest(run, []) for row_id in table["id"].to_pylist()]


def test_bad_rows_a_lost_node_and_an_added_one_leave_all_other_rows_as_they_would_be(tmp_path):
    sys.path.insert(0, str(ROOT / "tests"))
    from faulty import read_log
    from faulty_nodes import harmful

    folder, num_rows = tmp_path / "run", 300
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    env |= {"FAULTY_SECONDS": "0.2", "FAULTY_LOG": str(tmp_path / "log")}
    env.pop("RAY_ADDRESS", None)
    words = [sys.executable, str(ROOT / "tests" / "faulty_nodes.py"), str(folder), str(num_rows)]
    answer = subprocess.run(words, env=env, capture_output=True, text=True, check=False, timeout=550)
    assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-4000:]
    rows = sorted(
        (r for t in shards.latest(RunDir(folder), schema.SHARD.names) for r in t.to_pylist()), key=lambda r: r["id"]
    )
    assert [row["id"] for row in rows] == [seeding.row_identity(0, i)[0] for i in range(num_rows)]
    failed = {i: row["reason"].split(":")[0] for i, row in enumerate(rows) if row["status"] == schema.FAILED}
    kinds = {"raise-audio": "audio.error", "kill-audio": "audio.worker_died"}
    assert failed == {i: kinds[tag] for i, tag in harmful(num_rows).items()}
    engine = TrivialSynthesiser(small_config(folder).audio)
    for index, row in enumerate(rows):
        if index not in failed and row["audio"]:
            seed = seeding.derive(row["seed"], "audio", 0, 0)
            (undisturbed,) = engine({"seed": [seed], "aspect_list": [row["aspect_list"]]})
            assert row["audio"]["bytes"] == sounds.encode(undisturbed, 8000, "flac")
    nodes = json.loads((tmp_path / "nodes.json").read_text())
    assert nodes["added"] in {node for _, _, node in read_log(tmp_path / "log")}, "the added node got work"
