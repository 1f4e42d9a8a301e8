"""The served engine's guard: a request that kills it is given up, and overlapping work is timed once."""

from __future__ import annotations

import pyarrow as pa
import pytest
from served_captions import config_of, rows

from conceptcaps import schema
from conceptcaps.pipelines.captions import times
from conceptcaps.pipelines.guard import Watch
from conceptcaps.pipelines.steps import CAPTIONED
from conceptcaps.rundir import RunDir


def test_overlapping_work_is_counted_once():
    pytest.importorskip("vllm")
    from conceptcaps.pipelines.guarded_engine import BusyClock

    clock = BusyClock()
    clock.begin(10.0)
    clock.begin(11.0)
    assert clock.end(14.0) == 4.0
    assert clock.end(15.0) == 1.0
    clock.begin(20.0)
    assert clock.end(22.0) == 2.0


def test_rows_that_passed_the_engine_by_took_no_time():
    assert times({}) == times({"engine_seconds": float("nan")}) == {"captions_seconds": None, "captions_startup": None}
    assert times({"engine_seconds": 0.5, "engine_startup": 0.0}) == {"captions_seconds": 0.5, "captions_startup": None}


@pytest.mark.served
@pytest.mark.timeout(900)
def test_a_request_that_kills_the_engine_is_given_up_and_the_others_are_captioned(cluster, tmp_path, monkeypatch):
    pytest.importorskip("vllm")
    import ray.data
    from killing_engine import KillingEngine

    from conceptcaps.pipelines import captions, guarded_engine

    some = rows()[:8]
    killer = some[1]["id"]
    guard = guarded_engine.guard_engine

    def guard_killing_engine(processor, *arguments):
        guard(processor, *arguments)
        stage = processor.get_stage_by_name("vLLMEngineStage")
        stage.__dict__["fn"] = KillingEngine
        stage.fn_constructor_kwargs["killer"] = killer

    monkeypatch.setattr(guarded_engine, "guard_engine", guard_killing_engine)
    watch = Watch(RunDir(tmp_path), "run", 0, "session", max_deaths=1)
    table = pa.Table.from_pylist(some, schema=CAPTIONED)
    made = captions.build_caption_processor(config_of(batch_size=8), watch)(ray.data.from_arrow(table)).take_all()
    found = {row["id"]: row for row in made}
    assert set(found) == {row["id"] for row in some}
    assert found[killer]["status"] == schema.FAILED
    assert found[killer]["reason"] == "captions.worker_died: 1 times with this row alone"
    others = [row for i, row in enumerate(some) if i not in {1, 3, 5}]
    assert all(found[row["id"]]["caption"] for row in others)
    assert all(found[row["id"]]["captions_seconds"] > 0 for row in others)
