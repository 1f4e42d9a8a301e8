"""A plan made from the rates of a small run, against a larger run with the same sleeping engine."""

from __future__ import annotations

import time

import pytest
from runs import small_config, write_specs
from trivial_engines import SLEEPING, SleepingSynthesiser

from conceptcaps.pipelines.generate import run_generate
from conceptcaps.planning import plan
from conceptcaps.planning.rates import measured_rates
from conceptcaps.rundir import CONFIG, Manifest, RunDir

SECONDS = SleepingSynthesiser.SECONDS


def run_of(folder, num_rows):
    """A finished run, its config and its wall time in seconds."""
    config, run = small_config(folder, "alignment.threshold.method=none"), RunDir(folder)
    write_specs(run, num_rows)
    run.write_bytes(b"{}", CONFIG)
    manifest = Manifest(run)
    manifest.begin("generate", {})
    begun = time.perf_counter()
    facts = run_generate(config, run, SLEEPING)
    took = time.perf_counter() - begun
    manifest.finish("generate", **facts)
    return run, config, took


def test_a_finished_run_tells_the_rates_of_the_next(cluster, tmp_path):
    run, _, took = run_of(tmp_path, 30)
    rates = measured_rates(run)
    assert rates.stages["audio"].seconds == pytest.approx(SECONDS, rel=0.1)
    assert rates.stages["captions"].seconds < SECONDS / 10
    assert 0 < rates.plan_startup < took - 10 * SECONDS, "the first block is published before the last is begun"


@pytest.mark.served
def test_the_wall_time_of_a_larger_run_is_as_planned(cluster, tmp_path):
    # Two jobs start two Rays; here both runs share one, whose first plan starts slower than those after it.
    run_of(tmp_path / "first", 10)
    small, _, _ = run_of(tmp_path / "small", 100)
    _, config, took = run_of(tmp_path / "large", 500)
    planned = plan(config, 500, rates=measured_rates(small)).wall_seconds
    assert planned == pytest.approx(took, rel=0.1)
