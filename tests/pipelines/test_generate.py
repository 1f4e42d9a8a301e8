"""The streaming plan: every spec ends as one row, whatever the batches, workers and bad rows it meets."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from runs import small_config, write_specs
from trivial_engines import TRIVIAL, LikeTextsAligner, TrivialCaptioner, TrivialSynthesiser, TwoWindowsAligner

from conceptcaps import schema, shards, signal
from conceptcaps.alignment.windows import unit
from conceptcaps.errors import InputError
from conceptcaps.pipelines.generate import run_generate
from conceptcaps.pipelines.steps import Engines
from conceptcaps.rundir import RunDir


def rows_of(run, columns=tuple(schema.SHARD.names)):
    tables = list(shards.latest(run, columns))
    return sorted(pa.concat_tables(tables).to_pylist(), key=lambda row: row["id"])


def generate(folder, num_rows, *overrides, special=None):
    run = RunDir(folder)
    ids = write_specs(run, num_rows, special)
    facts = run_generate(small_config(folder, *overrides), run, TRIVIAL)
    return run, ids, facts


def test_every_spec_ends_as_one_row_in_the_schema(cluster, tmp_path):
    run, ids, facts = generate(tmp_path, 35)
    rows = rows_of(run)
    assert [row["id"] for row in rows] == ids
    assert facts["counts"]["rows"] == 35
    assert sum(facts["counts"][s] for s in schema.STATUSES) == 35
    for row in rows:
        assert row["status"] in (schema.ACCEPTED, schema.REJECTED)
        assert (row["audio"] is not None) == (row["status"] == schema.ACCEPTED)
        assert row["caption"] == ", ".join(row["aspect_list"]) + "."
    waveform, rate = signal.decode(next(r for r in rows if r["audio"])["audio"]["bytes"])
    assert (waveform.shape, rate) == ((1, 800), 8000)
    assert {r["sampling_rate"] for r in rows} == {8000}


def test_rejected_rows_say_why_and_accepted_ones_say_nothing(cluster, tmp_path):
    run, _, _ = generate(tmp_path, 40, "alignment.threshold.value=0.5")
    rows = rows_of(run)
    assert {r["reason"] for r in rows if r["status"] == schema.ACCEPTED} == {None}
    assert {r["reason"] for r in rows if r["status"] == schema.REJECTED} == {"alignment.below_threshold"}
    assert all((r["clap_score"] >= 0.5) == (r["status"] == schema.ACCEPTED) for r in rows)
    assert all(r["clap_score_min"] == pytest.approx(r["clap_score"], abs=1e-6) for r in rows), "one window each"
    assert 0 < sum(r["status"] == schema.REJECTED for r in rows) < 40


def test_a_long_clip_keeps_the_score_of_its_worst_window(cluster, tmp_path):
    run = RunDir(tmp_path / "run")
    write_specs(run, 10)
    engines = Engines(TrivialCaptioner, TrivialSynthesiser, TwoWindowsAligner)
    run_generate(small_config(tmp_path / "run", "alignment.threshold.method=none"), run, engines)
    for row in rows_of(run):
        assert row["clap_score_min"] < row["clap_score"] or row["clap_score"] < 0
        assert row["clap_score_min"] == 0 or row["clap_score"] < 0, "the second window has nothing of the text"
        assert np.linalg.norm(row["audio_embedding"]) == pytest.approx(1, abs=1e-5)


def test_a_bad_row_costs_one_row(cluster, tmp_path):
    special = {3: "raise-caption", 11: "raise-audio", 17: "nan-audio"}
    run, ids, facts = generate(tmp_path, 25, special=special)
    rows = {row["id"]: row for row in rows_of(run)}
    assert set(rows) == set(ids)
    failed = {i: rows[ids[i]]["reason"] for i in range(25) if rows[ids[i]]["status"] == schema.FAILED}
    assert failed == {
        3: "captions.error: RuntimeError: this row cannot be captioned",
        11: "audio.error: RuntimeError: this row cannot be played",
        17: "audio.error: ValueError: waveform has samples that are not finite",
    }
    assert facts["counts"]["reasons"] == {"audio.error": 2, "captions.error": 1} | {
        k: v for k, v in facts["counts"]["reasons"].items() if k == "alignment.below_threshold"
    }


def test_rows_are_the_same_in_other_batches_and_pools(cluster, tmp_path):
    run, *_ = generate(tmp_path / "a", 30, "audio.candidates=2")
    other, *_ = generate(
        tmp_path / "b",
        30,
        "audio.candidates=2",
        "audio.resources.batch_size=3",
        "audio.resources.workers=2",
        "audio.resources.num_cpus=0.1",
        "alignment.resources.batch_size=7",
        "captions.resources.batch_size=1",
        "ray.rows_per_block=4",
    )
    assert rows_of(run) == rows_of(other)


def test_the_best_of_several_takes_is_kept(cluster, tmp_path):
    one, *_ = generate(tmp_path / "one", 30)
    four, *_ = generate(tmp_path / "four", 30, "audio.candidates=4")
    before, after = rows_of(one), rows_of(four)
    assert all(b["clap_score"] <= a["clap_score"] for b, a in zip(before, after, strict=True))
    assert len({row["take"] for row in after}) > 1


def test_rejected_rows_are_made_again_with_fresh_seeds_and_the_same_caption(cluster, tmp_path):
    run, ids, facts = generate(tmp_path, 40, "audio.rounds=3")
    assert len(shards.attempts(run)) > 1
    rows = rows_of(run)
    assert [row["id"] for row in rows] == ids
    again = [row for row in rows if row["attempt"] > 0]
    assert again
    first = {}
    for path in run.files("shards", "attempt-0", suffix=".parquet"):
        first |= {r["id"]: r for r in pa.parquet.read_table(path).to_pylist()}
    assert all(first[r["id"]]["status"] == schema.REJECTED for r in again)
    assert all(first[r["id"]]["caption"] == r["caption"] for r in again)
    assert all(first[r["id"]]["clap_score"] != r["clap_score"] for r in again)
    assert facts["counts"]["rows"] == 40


def test_a_second_start_makes_nothing_twice(cluster, tmp_path):
    run, _, _ = generate(tmp_path, 30)
    before = {path: run.fs.get_file_info(path).mtime_ns for path in run.files("shards")}
    run_generate(small_config(tmp_path), run, TRIVIAL)
    assert {path: run.fs.get_file_info(path).mtime_ns for path in run.files("shards")} == before


def test_only_missing_rows_are_made_after_a_shard_is_lost_to_a_larger_request(cluster, tmp_path):
    run, ids, _ = generate(tmp_path, 20)
    before = run.files("shards")
    more = write_specs(run, 30)
    run_generate(small_config(tmp_path), run, TRIVIAL)
    assert set(before) < set(run.files("shards"))
    assert [row["id"] for row in rows_of(run)] == more
    assert more[:20] == ids


def test_the_calibrated_threshold_is_a_quantile_of_mismatched_scores(cluster, tmp_path):
    overrides = ("alignment.threshold.method=null_quantile", "alignment.threshold.num_calibration=16")
    run, _, facts = generate(tmp_path, 40, *overrides, "alignment.threshold.quantile=0.5")
    kept = run.read_json("alignment", "calibration.json")
    assert kept["num_rows"] == 16
    assert kept["threshold"] == pytest.approx(np.quantile(kept["null_scores"], 0.5), abs=1e-6)
    assert facts["threshold"] == kept["threshold"]
    statuses = {row["status"] == schema.ACCEPTED: None for row in rows_of(run)}
    assert set(statuses) == {True, False}


@pytest.mark.parametrize(("centre", "number"), [(True, 32), (True, 20), (False, 32)])
def test_enough_calibration_rows_centre_what_the_threshold_judges(cluster, tmp_path, centre, number):
    run = RunDir(tmp_path)
    write_specs(run, 40)
    overrides = ("alignment.threshold.method=null_quantile", f"alignment.threshold.centre={centre}")
    config = small_config(tmp_path, *overrides, f"alignment.threshold.num_calibration={number}")
    facts = run_generate(config, run, Engines(TrivialCaptioner, TrivialSynthesiser, LikeTextsAligner))
    kept = run.read_json("alignment", "calibration.json")
    assert kept["centred"] == (centre and number == 32)
    for row in rows_of(run):
        audio, text = np.array(row["audio_embedding"]), LikeTextsAligner(None).embed_text([row["caption"]])[0]
        assert row["clap_score"] == pytest.approx(audio @ text, abs=1e-5)
        if kept["centred"]:
            audio, text = (unit(side - kept[f"{name}_mean"]) for name, side in (("audio", audio), ("text", text)))
        assert row["alignment_score"] == pytest.approx(audio @ text, abs=1e-4)
        assert (row["status"] == schema.ACCEPTED) == (row["alignment_score"] >= facts["threshold"])


def test_a_calibration_without_a_row_left_says_why(cluster, tmp_path):
    run = RunDir(tmp_path)
    write_specs(run, 8, dict.fromkeys(range(5), "raise-audio") | dict.fromkeys(range(5, 8), "raise-caption"))
    config = small_config(tmp_path, "alignment.threshold.method=null_quantile")
    with pytest.raises(InputError, match=r"no row left.*5 audio\.error, 3 captions\.error"):
        run_generate(config, run, TRIVIAL)
    assert not run.exists("alignment", "calibration.json")


def test_shards_carry_the_version_that_made_them(cluster, tmp_path):
    run, _, _ = generate(tmp_path, 5)
    metadata = pa.parquet.read_schema(run.files("shards", suffix=".parquet")[0]).metadata
    assert metadata[b"conceptcaps"].startswith(b"0.")


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("audio.resources.num_cpus=50", r"CPUs.*audio\.resources 50"),
        ("audio.resources.num_gpus=1", r"GPUs.*audio\.resources 1"),
        ("audio.resources.accelerator_type=H100", "no node has 'H100'"),
    ],
)
def test_a_cluster_too_small_is_refused_at_once(cluster, tmp_path, override, problem):
    with pytest.raises(InputError, match=problem):
        generate(tmp_path, 5, override)
    assert not RunDir(tmp_path).files("shards")
