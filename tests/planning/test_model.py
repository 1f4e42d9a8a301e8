from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from conceptcaps.config import load
from conceptcaps.errors import InputError
from conceptcaps.planning import Pool, Prices, Rate, Rates, plan, simulate, stated_rates
from conceptcaps.planning.pools import balance, fits, makespan
from conceptcaps.runtime import RESERVED_CPUS

RATES = Rates({"captions": Rate(0.004, 60), "audio": Rate(0.24, 40), "alignment": Rate(0.008, 10)}, rejected=0.2)
AT_ONCE = replace(RATES, stages={name: replace(rate, startup=0.0) for name, rate in RATES.stages.items()})
PLAIN = ["alignment.threshold.method=none", "ray.rows_per_block=10", "audio.resources.batch_size=10"]


def pool(seconds, workers=1, *, gpus=0.0, cpus=1.0, task_rows=10, startup=0.0, key="p"):
    return Pool(key, workers, cpus, gpus, task_rows, seconds, startup)


LINES = {
    "last is slow": [pool(0.1), pool(0.1), pool(1.0, 3)],
    "first is slow": [pool(1.0), pool(0.3), pool(0.1)],
    "middle is slow, many workers": [pool(0.1, 2), pool(4.0, 16), pool(0.1)],
    "balanced": [pool(0.2, 1), pool(1.6, 8), pool(0.2, 1)],
    "models load": [pool(0.2, startup=90), pool(0.8, 4, startup=200), pool(0.1, startup=10)],
    "batches of several blocks": [pool(0.1, task_rows=20), pool(1.0, 5), pool(0.05, task_rows=40)],
}


@pytest.mark.parametrize("pools", LINES.values(), ids=LINES.keys())
@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_formula_agrees_with_the_simulation(pools, spread):
    rows = 4000
    trace = simulate(pools, rows, block_rows=10, spread=spread, seed=3)
    assert makespan(pools, rows) == pytest.approx(trace.seconds, rel=0.10)


@pytest.mark.parametrize("rows", [1, 7, 10, 11, 95])
def test_formula_is_exact_for_few_rows_in_one_worker_each(rows):
    pools = [pool(0.5), pool(1.0), pool(0.25)]
    trace = simulate(pools, rows, block_rows=10)
    assert makespan(pools, rows) == pytest.approx(trace.seconds)


def test_simulation_does_all_the_work_once_and_holds_few_rows():
    pools = [pool(0.1), pool(1.0, 2), pool(0.1)]
    trace = simulate(pools, 1003, block_rows=10)
    assert trace.busy == pytest.approx([1003 * p.seconds for p in pools])
    assert all(peak <= p.workers * 2 * p.task_rows for peak, p in zip(trace.peak_rows, pools, strict=True))


def test_balance_is_the_best_of_all_sizes():
    pools = [pool(0.3, gpus=1), pool(1.7, gpus=1), pool(0.4, gpus=0.5)]
    cpus, gpus = 40.0, 9.0
    found = balance(pools, cpus, gpus)

    def slowest(sizes):
        return max(p.seconds / n for p, n in zip(pools, sizes, strict=True))

    possible = [
        sizes
        for sizes in itertools.product(range(1, 10), repeat=3)
        if fits([replace(p, workers=n) for p, n in zip(pools, sizes, strict=True)], cpus, gpus)
    ]
    assert slowest([p.workers for p in found]) == pytest.approx(min(map(slowest, possible)))


def test_balance_is_bound_by_cpus_where_there_are_no_gpus():
    found = balance([pool(1.0), pool(3.0), pool(1.5)], cpus=6 + RESERVED_CPUS, gpus=0)
    assert [p.workers for p in found] == [1, 3, 2], "a fourth worker for the second pool could only wait"


def test_plan_of_a_large_run_is_bound_by_audio():
    config = load("configs/cluster.yaml")
    found = plan(config, 1_000_000, rates=RATES, prices=Prices(gpu_hour=2.0))
    gpus = 2 + 64 + 4 * 0.5
    audio_hours = 1_000_000 * (1 + 0.2 + 0.04) * 0.24 / 3600
    assert found.bottleneck == "audio.resources"
    assert found.wall_seconds / 3600 == pytest.approx(audio_hours / 64, rel=0.10), "and three starts, one to calibrate"
    assert found.gpu_hours == pytest.approx(found.wall_seconds / 3600 * gpus)
    assert found.money == pytest.approx(found.gpu_hours * 2.0)
    assert found.busy_gpu_hours < found.gpu_hours
    assert found.accepted == 992_000
    assert found.balanced_wall_seconds <= found.wall_seconds * 1.001
    audio = next(p for p in found.pools if p.key == "audio.resources")
    assert 0.9 < audio.busy <= 1.0
    told = dict(found.lines())
    assert told["bottleneck"] == "audio.resources"
    assert told["wall time"] == f"{found.wall_seconds / 3600:.2f} h"


def test_plan_counts_what_a_cluster_leaves_idle():
    config = load(None, PLAIN)
    needed = plan(config, 100, rates=RATES)
    larger = plan(config, 100, rates=RATES, cluster=(40, 8), prices=Prices(gpu_hour=3.0))
    assert larger.wall_seconds == needed.wall_seconds
    assert larger.gpu_hours == pytest.approx(larger.wall_seconds * 8 / 3600)
    assert larger.money == pytest.approx(larger.gpu_hours * 3.0)
    assert larger.balanced_wall_seconds < larger.wall_seconds


def test_candidates_rounds_and_calibration_are_paid_for():
    once = plan(load(None, PLAIN), 1000, rates=AT_ONCE)
    candidates = plan(load(None, [*PLAIN, "audio.candidates=2"]), 1000, rates=AT_ONCE)
    assert candidates.wall_seconds == pytest.approx(2 * once.wall_seconds, rel=0.05)
    rejecting = [*PLAIN[1:], "alignment.threshold.method=absolute"]
    rounds = plan(load(None, [*rejecting, "audio.rounds=2"]), 1000, rates=RATES)
    assert rounds.clips == 1200
    assert rounds.accepted == 960
    calibrated = plan(load(None, PLAIN[1:]), 1000, rates=RATES)
    assert calibrated.clips == 1064
    slow = plan(load(None, PLAIN[1:]), 1000, rates=replace(RATES, plan_startup=20.0))
    assert slow.wall_seconds - calibrated.wall_seconds == pytest.approx(2 * 20.0), "one plan calibrates"


def test_storage_is_measured_or_bounded():
    config = load(None, [*PLAIN, "audio.duration=10"])
    bound = plan(config, 1000, rates=replace(RATES, row_bytes=0))
    assert bound.storage_bytes == pytest.approx(2 * 1000 * 10 * 32_000 * 2)
    assert any("upper bound" in note for note in bound.notes)
    measured = plan(config, 1000, rates=replace(RATES, row_bytes=0, clip_bytes=1e5), prices=Prices(storage_gb_month=5))
    assert measured.storage_bytes == pytest.approx(2e8)
    assert measured.money == pytest.approx(1.0)


def test_object_store_holds_what_the_simulation_had_under_way():
    config = load(None, PLAIN)
    rates = replace(RATES, clip_bytes=1e6, row_bytes=0)
    found = plan(config, 2000, rates=rates)
    pools = [pool(0.004), pool(0.24), pool(0.3)]
    peak = simulate(pools, 2000, block_rows=10).peak_rows[2]
    assert peak * 1e6 <= found.object_store_bytes <= 5 * peak * 1e6


def test_a_plan_that_cannot_be_is_refused():
    with pytest.raises(InputError, match="pools need"):
        plan(load("configs/cluster.yaml"), rates=RATES, cluster=(16, 8))
    with pytest.raises(InputError, match="num-samples"):
        plan(load(None), 0, rates=RATES)


def test_stated_rates():
    found = stated_rates(
        ["captions=0.02+60", "audio=0.5", "alignment=1e-2", "rejected=0.1", "clip_bytes=9e5", "plan_startup=9"]
    )
    assert found.stages["captions"] == Rate(0.02, 60)
    assert (found.rejected, found.clip_bytes, found.plan_startup) == (0.1, 9e5, 9)
    assert stated_rates(["audio=1"], base=found).stages == {**found.stages, "audio": Rate(1.0)}


@pytest.mark.parametrize("value", ["audio", "audio=x", "audio=-1", "audio=1+2+3", "rain=1", "rejected=1"])
def test_stated_rates_that_make_no_sense_are_refused(value):
    with pytest.raises(InputError):
        stated_rates(["captions=1", "audio=1", "alignment=1", value])


def test_a_stage_without_a_rate_is_named():
    with pytest.raises(InputError, match="alignment"):
        stated_rates(["captions=1", "audio=1"])
