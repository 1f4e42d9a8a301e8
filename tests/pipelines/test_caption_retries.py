"""Captions that were refused are written anew; captions that are too like another's are refused."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import small_config, write_specs
from trivial_engines import TRIVIAL

from conceptcaps import schema, shards
from conceptcaps.captions.duplicates import caption_checks
from conceptcaps.pipelines import attempts
from conceptcaps.pipelines.caption_retries import reject_near_duplicates, without_bad_captions
from conceptcaps.pipelines.generate import run_generate
from conceptcaps.rundir import RunDir

ONE = "This is a slow rock song in which a female voice sings over acoustic drums, and the mood is calm and warm."
OTHER = "Loud synthesizers and a quick beat drive an energetic dance track with a male singer and many claps."


def write_shards(run: RunDir, captions: list[str], num_files: int) -> None:
    rows = [
        {"id": f"{i:03d}", "caption": c, "status": "accepted", "attempt": 0, **caption_checks(c, ["rock"])}
        for i, c in enumerate(captions)
    ]
    for k in range(num_files):
        folder = run.path("shards", "attempt-0")
        run.fs.create_dir(folder, recursive=True)
        pq.write_table(pa.Table.from_pylist(rows[k::num_files], schema=schema.SHARD), f"{folder}/{k}.parquet")


@pytest.mark.parametrize("num_files", [1, 3])
def test_near_duplicates_are_rejected_whatever_the_files_and_once(tmp_path, num_files):
    run = RunDir(tmp_path)
    write_shards(run, [ONE, OTHER, ONE.replace("song", "songs"), OTHER, ONE], num_files)
    assert reject_near_duplicates(run, None, 1) == 0
    assert reject_near_duplicates(run, 0, 1) == 3
    assert reject_near_duplicates(run, 0, 1) == 0
    rows = sorted(pa.concat_tables(shards.latest(run, schema.SHARD.names)).to_pylist(), key=lambda row: row["id"])
    assert [row["reason"] for row in rows] == [
        None,
        None,
        "captions.near_duplicate: 000",
        "captions.near_duplicate: 001",
        "captions.near_duplicate: 000",
    ]
    assert [row["status"] for row in rows] == ["accepted", "accepted", "rejected", "rejected", "rejected"]


def test_only_refused_captions_are_forgotten(tmp_path):
    rows = [
        {"id": "a", "caption": ONE, "reason": "captions.coverage: rock", "status": "rejected", "tag_coverage": 0.5},
        {"id": "b", "caption": ONE, "reason": "alignment.below_threshold", "status": "rejected", "tag_coverage": 1.0},
    ]
    table = pa.Table.from_pylist([row | {"attempt": 0} for row in rows], schema=schema.SHARD)
    kept = without_bad_captions(table)
    assert kept["caption"].to_pylist() == [None, ONE]
    assert kept["tag_coverage"].to_pylist() == [None, 1.0]
    assert kept.schema == table.schema
    run = RunDir(tmp_path)
    for attempt, part in ((1, kept), (2, kept.slice(1))):
        folder = run.path(*attempts.source(attempt))
        run.fs.create_dir(folder, recursive=True)
        pq.write_table(part, f"{folder}/rows.parquet")
    assert attempts.wants_captions(run, 1)
    assert not attempts.wants_captions(run, 2)


def test_a_run_ends_without_near_duplicates_and_every_row_once(cluster, tmp_path):
    run = RunDir(tmp_path)
    ids = write_specs(run, 12)
    settings = ("captions.checks.near_duplicates=3", "audio.rounds=2", "alignment.threshold.value=-1")
    for _ in range(2):
        # The trivial captioner writes but two captions, however often it is asked.
        counts = run_generate(small_config(tmp_path, *settings), run, TRIVIAL)["counts"]
        assert (counts["accepted"], counts["reasons"]) == (2, {"captions.near_duplicate": 10})
    rows = sorted(pa.concat_tables(shards.latest(run, ["id", "attempt", "status"])).to_pylist(), key=lambda r: r["id"])
    assert [row["id"] for row in rows] == ids
    assert {row["attempt"] for row in rows if row["status"] == "rejected"} == {2}
