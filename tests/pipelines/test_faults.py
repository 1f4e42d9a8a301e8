"""What a job survives: rows that raise or kill their worker, lost shards, storage that errs, retries and growth."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from faulty import FAULTY, SLOW
from flaky_storage import FlakyFileSystem
from runs import small_config, write_specs
from trivial_engines import TRIVIAL, TrivialSynthesiser

from conceptcaps import schema, seeding, shards, signal
from conceptcaps.errors import InputError
from conceptcaps.pipelines import attempts, reopen
from conceptcaps.pipelines.drain import STATE, Drained
from conceptcaps.pipelines.generate import run_generate
from conceptcaps.pipelines.stages import BY_NAME
from conceptcaps.rundir import Manifest, RunDir


def rows_of(run: RunDir) -> dict[str, dict]:
    tables = list(shards.latest(run, schema.SHARD.names))
    return {row["id"]: row for row in pa.concat_tables(tables).to_pylist()}


def without(rows: dict[str, dict], names: set[str]) -> dict[str, dict]:
    return {row_id: row for row_id, row in rows.items() if row_id not in names}


@pytest.mark.served
def test_rows_that_kill_their_worker_are_given_up_and_the_others_are_as_ever(cluster, tmp_path):
    special = {4: "kill-audio", 11: "raise-audio", 23: "kill-caption"}
    run, config = RunDir(tmp_path), small_config(tmp_path, "ray.max_worker_deaths=1")
    ids = write_specs(run, 30, special)
    run_generate(config, run, FAULTY)
    rows = rows_of(run)
    assert sorted(rows) == ids
    failed = {ids.index(i): row["reason"] for i, row in rows.items() if row["status"] == schema.FAILED}
    assert failed == {
        4: "audio.worker_died: 1 times with this row alone",
        11: "audio.error: RuntimeError: this row cannot be played",
        23: "captions.worker_died: 1 times with this row alone",
    }
    synthesiser = TrivialSynthesiser(config.audio)
    for index, row_id in enumerate(ids):
        row = rows[row_id]
        if index not in special and row["audio"]:
            seed = seeding.derive(row["seed"], "audio", 0, 0)
            (undisturbed,) = synthesiser({"seed": [seed], "aspect_list": [row["aspect_list"]]})
            assert row["audio"]["bytes"] == signal.encode(undisturbed, 8000, "flac")
    assert not run.files("begun")


def test_a_broken_model_stops_the_job_with_its_reasons(cluster, tmp_path):
    run = RunDir(tmp_path)
    write_specs(run, 160, dict.fromkeys(range(160), "raise-audio"))
    with pytest.raises(InputError, match=r"of \d+ rows failed.*max_failed_fraction \(\d+ audio\.error\)"):
        run_generate(small_config(tmp_path), run, SLOW)
    assert shards.count(run).rows < 160


@pytest.mark.served
def test_rows_of_a_lost_shard_are_made_again_and_no_others(cluster, tmp_path):
    run = RunDir(tmp_path)
    ids = write_specs(run, 30)
    run_generate(small_config(tmp_path), run, TRIVIAL)
    before = rows_of(run)
    paths = run.files("shards")
    lost = pq.read_metadata(paths[1]).num_rows
    run.fs.delete_file(paths[1])
    facts = run_generate(small_config(tmp_path, "ray.rows_per_block=7"), run, TRIVIAL)
    assert rows_of(run) == before
    assert set(before) == set(ids)
    assert set(run.files("shards")) > set(paths) - {paths[1]}
    assert facts["rates"]["audio"]["rows"] == lost < 30


def test_a_row_in_two_shards_is_dropped_from_one(tmp_path):
    run = RunDir(tmp_path)
    rows = [{"id": str(i), "status": schema.FAILED, "reason": "x.y", "attempt": 0} for i in range(6)]
    for some in (rows[:4], rows[2:], rows[2:4]):
        shards.publish(run, pa.Table.from_pylist(some, schema=schema.SHARD), 0)
    assert shards.mend(run, 0, shards.ids(run, 0)) == 4
    assert sorted(shards.ids(run, 0).to_pylist()) == [str(i) for i in range(6)]
    assert shards.mend(run, 0, shards.ids(run, 0)) == 0


@pytest.mark.served
def test_storage_that_errs_now_and_then_costs_nothing_but_time(cluster, tmp_path):
    run = RunDir(tmp_path)
    run.fs = FlakyFileSystem.wrap(pafs.LocalFileSystem(), every=7)
    ids = write_specs(run, 30)
    run_generate(small_config(tmp_path), run, TRIVIAL)
    assert sorted(rows_of(RunDir(tmp_path))) == ids


@pytest.mark.served
def test_a_full_disk_stops_the_job_with_one_message_and_no_half_shard(cluster, tmp_path):
    from conceptcaps.errors import input_error_in

    write_specs(RunDir(tmp_path), 20)
    full = RunDir(tmp_path)
    full.fs = FlakyFileSystem.wrap(pafs.LocalFileSystem(), every=1, full=True)
    with pytest.raises(Exception, match="No space left") as caught:
        run_generate(small_config(tmp_path), full, TRIVIAL)
    assert input_error_in(caught.value) is not None
    assert not full.files("shards")


@pytest.mark.served
def test_a_job_that_is_asked_to_stop_ends_what_is_in_its_workers_and_no_more(cluster, tmp_path, monkeypatch):
    run = RunDir(tmp_path)
    write_specs(run, 200)
    count = shards.count  # called at the very end: never reached by a drained job
    monkeypatch.setattr(shards, "count", lambda run: pytest.fail("went on to the end"))
    monkeypatch.setattr("conceptcaps.pipelines.publishing.Tally.add", lambda tally, table: STATE.ask(grace=30))
    try:
        with pytest.raises(Drained):
            run_generate(small_config(tmp_path), run, SLOW)
    finally:
        STATE.asked = None
    monkeypatch.undo()
    assert 10 <= count(run).rows <= 100, "what was in the workers, and not what waited for them"


@pytest.fixture
def finished(cluster, tmp_path) -> RunDir:
    """A run with rows of each status."""
    run = RunDir(tmp_path)
    write_specs(run, 30, {3: "raise-audio", 8: "raise-caption"})
    config = small_config(tmp_path, "alignment.threshold.value=0.5", "specs.num_samples=30")
    manifest = Manifest(run)
    from conceptcaps.pipelines.stages import settings_of

    for name in ("specs", "generate", "dataset"):
        manifest.begin(name, settings_of(BY_NAME[name], config))
        manifest.finish(name)
    run_generate(config, run, TRIVIAL)
    return run


@pytest.mark.served
def test_retry_makes_just_those_rows_again_and_keeps_their_history(finished, tmp_path):
    config = small_config(tmp_path, "alignment.threshold.value=0.5")
    before = rows_of(finished)
    wanted = {i for i, row in before.items() if row["status"] != schema.ACCEPTED}
    assert reopen.retry(finished, ["failed", "rejected"], config) == (1, len(wanted))
    assert not Manifest(finished).is_finished("generate")
    assert not Manifest(finished).is_finished("dataset")
    assert Manifest(finished).is_finished("specs")
    run_generate(config, finished, TRIVIAL)
    after = rows_of(finished)
    assert {i for i, row in after.items() if row["attempt"] == 1} == wanted
    assert without(after, wanted) == without(before, wanted)
    for i in wanted:
        if before[i]["status"] == schema.REJECTED:
            assert after[i]["caption"] == before[i]["caption"]
            assert after[i]["clap_score"] != before[i]["clap_score"], "a fresh seed"
    history = pa.concat_tables(pq.read_table(p) for p in finished.files("shards", "attempt-0", suffix=".parquet"))
    assert history.num_rows == 30


def test_retry_refuses_what_it_cannot_do(tmp_path):
    run, config = RunDir(tmp_path), small_config(tmp_path)
    with pytest.raises(InputError, match=r"no status 'fail'.*failed"):
        reopen.retry(run, ["fail"], config)
    Manifest(run).begin("generate", {})
    with pytest.raises(InputError, match="not made yet"):
        reopen.retry(run, ["failed"], config)


@pytest.mark.served
def test_a_run_grows_without_touching_what_it_has(finished, tmp_path):
    config = small_config(tmp_path, "alignment.threshold.value=0.5", "specs.num_samples=30", "audio.rounds=2")
    run_generate(config, finished, TRIVIAL)  # rejected rows are listed for a second attempt and made
    before = rows_of(finished)
    files = {path: finished.fs.get_file_info(path).mtime_ns for path in finished.files("shards")}
    listed = finished.files("retries")
    larger = reopen.extend(finished, 50, config)
    assert larger.specs.num_samples == 50
    assert Manifest(finished).stage("specs")["settings"]["specs"]["num_samples"] == 50
    assert [Manifest(finished).is_finished(name) for name in ("specs", "generate", "dataset")] == [False] * 3
    ids = write_specs(finished, 50, {3: "raise-audio", 8: "raise-caption"})
    run_generate(larger, finished, TRIVIAL)
    after = rows_of(finished)
    assert sorted(after) == ids
    assert {i: after[i] for i in before} == before
    assert all(finished.fs.get_file_info(path).mtime_ns == at for path, at in files.items())
    assert set(listed) < set(finished.files("retries")), "new rejected rows got their second attempt too"
    assert attempts.listed(finished) == [1]
    with pytest.raises(InputError, match="fewer than the 50"):
        reopen.extend(finished, 40, larger)
