"""The plan against the streaming plan itself: real Ray, real pools, engines that sleep."""

from __future__ import annotations

import statistics

import pytest
import yaml
from runs import small_config, write_specs
from sleeping_engines import read_logs, sleeping_engines

from conceptcaps.planning import measured_rates, plan
from conceptcaps.rundir import CONFIG, Manifest, RunDir

ROWS = 180


def run_asleep(folder, config):
    """Generate with sleeping engines; returns the run and the logs of its workers."""
    from conceptcaps.pipelines.generate import run_generate

    run = RunDir(folder / "run")
    write_specs(run, ROWS)
    (folder / "logs").mkdir()
    run_generate(config, run, sleeping_engines(folder / "logs", captions=0.01, audio=0.15, alignment=0.02))
    return run, read_logs(folder / "logs")


def record(run, config, logs):
    """What a measured run leaves in its manifest; returns when its first worker was ready."""
    began = min(line["ready"] for lines in logs.values() for line in lines if "ready" in line)
    rates = {}
    for stage, lines in logs.items():
        calls = [line for line in lines if "rows" in line]
        rates[stage] = {
            "rows": sum(line["rows"] for line in calls),
            "busy_seconds": sum(line["end"] - line["start"] for line in calls),
            "startup_seconds": statistics.mean(line["ready"] for line in lines if "ready" in line) - began,
        }
    run.write_bytes(yaml.safe_dump(config.model_dump(mode="json")).encode(), CONFIG)
    manifest = Manifest(run)
    manifest.begin("generate", {})
    manifest.finish("generate", rates=rates)
    return began


@pytest.mark.slow
def test_plan_is_within_a_tenth_of_the_real_pipeline(cluster, tmp_path):
    config = small_config(
        tmp_path / "run",
        "audio.resources.workers=3",
        "audio.resources.num_cpus=0.1",
        *(f"{stage}.resources.batch_size=10" for stage in ("captions", "audio", "alignment")),
    )
    run, logs = run_asleep(tmp_path, config)
    began = record(run, config, logs)
    took = max(line["end"] for lines in logs.values() for line in lines if "end" in line) - began
    rates = measured_rates(run)
    found = plan(config, ROWS, rates=rates)
    assert found.wall_seconds == pytest.approx(took, rel=0.10)
    assert found.bottleneck == "audio.resources"
    assert rates.stages["audio"].seconds == pytest.approx(0.15, rel=0.2)
    assert rates.rejected == 0.0
    assert 0 < rates.clip_bytes < found.storage_bytes
