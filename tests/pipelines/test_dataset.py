"""The dataset stage on synthetic shards: every config loads, nothing leaks, counts add up, faults are named."""

from pathlib import Path

import datasets
import duckdb
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic import VOCABULARY, caption_of, rows, write_run, write_shards

from conceptcaps import schema
from conceptcaps.config import load
from conceptcaps.dataset.groups import jaccard
from conceptcaps.dataset.layout import RowGroupWriter
from conceptcaps.dataset.verify import verify
from conceptcaps.errors import InputError
from conceptcaps.pipelines.dataset import run_dataset
from conceptcaps.rundir import Manifest, RunDir

CONFIGS = ("default", "25pct", "10pct", "audio", "25pct-audio", "10pct-audio")
PUBLISHED = {
    "id": datasets.Value("string"),
    "caption": datasets.Value("string"),
    "aspect_list": datasets.Value("string"),
    "genre_aspects": datasets.List(datasets.Value("string")),
    "mood_aspects": datasets.List(datasets.Value("string")),
    "instrument_aspects": datasets.List(datasets.Value("string")),
    "tempo_aspects": datasets.List(datasets.Value("string")),
}


@pytest.fixture(scope="module")
def made(cluster, tmp_path_factory):
    """A finished dataset of 320 specs, and what the stage returned."""
    run = write_run(tmp_path_factory.mktemp("dataset") / "run", 320)
    return run, run_dataset(load(None), run)


def placed(run: RunDir) -> dict[str, str]:
    table = pq.read_table(run.path("dataset", "rows.parquet"))
    return dict(zip(table["id"].to_pylist(), table["split"].to_pylist(), strict=True))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_loads(made, name, tmp_path):
    run, _ = made
    loaded = datasets.load_dataset(run.path("dataset"), name, cache_dir=str(tmp_path))
    statistics = run.read_json("dataset", "statistics.json")
    assert {split: len(rows) for split, rows in loaded.items()} == {
        split: facts["rows"] for split, facts in statistics["configs"][name].items()
    }
    features = loaded["train"].features
    assert list(features)[:7] == list(PUBLISHED)
    assert all(features[column] == kind for column, kind in PUBLISHED.items())
    if name.endswith("audio"):
        assert list(features)[7] == "file_name"
        assert features["file_name"] == datasets.Audio()
    streamed = datasets.load_dataset(run.path("dataset"), name, split="train", streaming=True)
    if name.endswith("audio"):
        streamed = streamed.cast_column("file_name", datasets.Audio(decode=False))
    seen = list(streamed)
    assert [row["id"] for row in seen] == loaded["train"]["id"][:]
    if name.endswith("audio"):
        assert all(row["file_name"]["bytes"].startswith(b"fLaC") for row in seen)


def test_rows_add_up_to_the_manifest(made):
    run, facts = made
    accepted = Manifest(run).stage("generate")["counts"]["accepted"]
    assert facts["counts"]["rows"] == accepted == len(placed(run))
    assert sum(facts["counts"][split] for split in ("train", "validation", "test")) == accepted
    for name in ("default", "audio"):
        files = run.files("dataset", name, suffix=".parquet")
        assert sum(pq.read_metadata(path).num_rows for path in files) == accepted
    assert verify(run) == []


def test_values_are_those_of_the_shards(made):
    run, _ = made
    wanted = {row["id"]: row for row in rows(320) if row["status"] == schema.ACCEPTED}
    table = pa.concat_tables(pq.read_table(path) for path in run.files("dataset", "audio", suffix=".parquet"))
    for row in table.to_pylist():
        source = wanted.pop(row["id"])
        assert row["caption"] == source["caption"]
        assert row["aspect_list"] == str(source["aspect_list"])
        assert row["tags"] == source["aspect_list"]
        assert row["file_name"] == source["audio"]
        assert row["seed"] == source["seed"]
    assert not wanted


def leaks(run: RunDir) -> list[tuple[str, str]]:
    """Pairs of rows in different splits with the same tags or near-duplicate captions, by brute force."""
    split = placed(run)
    accepted = [row for row in rows(320) if row["status"] == schema.ACCEPTED]
    return [
        (a["id"], b["id"])
        for at, a in enumerate(accepted)
        for b in accepted[:at]
        if split[a["id"]] != split[b["id"]]
        and (a["aspect_list"] == b["aspect_list"] or jaccard(a["caption"], b["caption"]) >= 0.75)
    ]


def test_nothing_leaks(made):
    assert leaks(made[0]) == []


def test_without_groups_it_leaks(cluster, tmp_path):
    """The check above is able to fail."""
    run = write_run(tmp_path / "run", 320, audio=True)
    run_dataset(load(None, ["dataset.group=false"]), run)
    assert leaks(run)


def test_subsets_nest(made):
    run, _ = made
    ids = {
        name: set(
            pa.concat_tables(pq.read_table(p, columns=["id"]) for p in run.files("dataset", name))["id"].to_pylist()
        )
        for name in CONFIGS
    }
    assert ids["10pct"] == ids["10pct-audio"] < ids["25pct"] == ids["25pct-audio"] < ids["default"] == ids["audio"]


def test_parquet_is_tuned(made):
    run, _ = made
    [path] = run.files("dataset", "audio", suffix="train-00000-of-00001.parquet")
    footer = pq.read_metadata(path)
    columns = {footer.row_group(0).column(i).path_in_schema: footer.row_group(0).column(i) for i in range(9)}
    assert columns["file_name.bytes"].compression == "UNCOMPRESSED"
    assert columns["caption"].compression == "ZSTD"
    assert columns["genre_aspects.list.element"].compression == "ZSTD"
    assert columns["caption"].has_offset_index
    assert footer.row_group(0).num_rows <= 100


def test_duckdb_and_polars_read_it(made):
    run, facts = made
    pattern = run.path("dataset", "default", "*.parquet")
    [counted] = duckdb.sql(f"select count(*), count(distinct id) from '{pattern}' where len(tags) > 0").fetchall()
    assert counted == (facts["counts"]["rows"],) * 2
    frame = polars.read_parquet(run.path("dataset", "audio", "*.parquet"))
    assert len(frame) == facts["counts"]["rows"]
    assert frame["file_name"].struct.field("bytes").bin.starts_with(b"fLaC").all()


def test_more_rows_move_none(cluster, tmp_path):
    run = write_run(tmp_path / "run", 200)
    config = load(None)
    run_dataset(config, run)
    before = placed(run)
    write_shards(run, rows(300), per_file=64)
    run.delete("shards", "attempt-0", "part_000005.parquet")  # left from the smaller run
    for path in run.files("shards", suffix=".parquet")[5:]:
        Path(path).unlink()
    run_dataset(config, run)
    after = placed(run)
    assert len(after) > len(before)
    moved = {i for i in before if after[i] != before[i]}
    assert len(moved) == run.read_json("dataset", "statistics.json")["rows_moved"]
    assert len(moved) <= 0.02 * len(before)  # only where a new row joins two groups


def test_the_latest_attempt_counts(cluster, tmp_path):
    run = write_run(tmp_path / "run", 120)
    first = rows(120)
    retried = [
        row for row in rows(120, attempt=1, rejected=0.0) if first[int(row["id"][:9])]["status"] == schema.REJECTED
    ]
    write_shards(run, retried, attempt=1)
    facts = run_dataset(load(None), run)
    accepted = {r["id"] for r in [*first, *retried] if r["status"] == schema.ACCEPTED}
    assert facts["counts"]["rows"] == len(accepted)
    table = pa.concat_tables(pq.read_table(p) for p in run.files("dataset", "default", suffix=".parquet"))
    assert set(table["id"].to_pylist()) == accepted
    assert set(table["attempt"].to_pylist()) == {0, 1}


def test_counterfactual_pairs_stay_together(cluster, tmp_path):
    run = RunDir(tmp_path / "run")
    made = [row for row in rows(240, rejected=0.0) if row["status"] == schema.ACCEPTED]
    for at in range(0, len(made) - 1, 2):
        made[at]["pair_id"] = made[at + 1]["pair_id"] = f"pair-{at}"
        other = VOCABULARY.columns({"folk", "calm", *made[at]["aspect_list"]})
        made[at + 1].update(other, caption=caption_of(other["aspect_list"], at))
    write_shards(run, made)
    run_dataset(load(None), run)
    split = placed(run)
    assert all(split[a["id"]] == split[b["id"]] for a, b in zip(made[::2], made[1::2], strict=False))


def test_rows_whose_tags_the_audio_does_not_carry_can_be_left_out(cluster, tmp_path):
    run = RunDir(tmp_path / "run")
    made = [row for row in rows(240, rejected=0.0) if row["status"] == schema.ACCEPTED]
    for i, row in enumerate(made):
        row["verified_aspects"] = row["instrument_aspects"][i % 2 :] + row["genre_aspects"]
    write_shards(run, made)
    run_dataset(load(None, ["dataset.verified=[instrument, genre]"]), run)
    assert set(placed(run)) == {
        row["id"] for row in made if set(row["instrument_aspects"]) <= set(row["verified_aspects"])
    }
    assert 0 < len(placed(run)) < len(made)


class TestBadInput:
    def test_no_shards(self, tmp_path):
        with pytest.raises(InputError, match="holds no Parquet files"):
            run_dataset(load(None), RunDir(tmp_path))

    def test_nothing_accepted(self, cluster, tmp_path):
        run = RunDir(tmp_path)
        write_shards(run, [row for row in rows(40) if row["status"] == schema.REJECTED])
        with pytest.raises(InputError, match="hold no accepted row"):
            run_dataset(load(None), run)

    def test_a_foreign_file_is_not_overwritten(self, cluster, tmp_path):
        run = write_run(tmp_path, 60)
        run.write_bytes(b"mine", "dataset", "thesis.txt")
        with pytest.raises(InputError, match=r"such as thesis\.txt"):
            run_dataset(load(None), run)
        assert run.read_bytes("dataset", "thesis.txt") == b"mine"

    def test_a_bad_shard_is_named_and_can_be_skipped(self, cluster, tmp_path):
        run = write_run(tmp_path, 120)
        bad = Path(run.files("shards", suffix=".parquet")[2])
        bad.write_bytes(bad.read_bytes()[:200])
        with pytest.raises(InputError, match=rf"{bad.name}.*--skip-bad"):
            run_dataset(load(None), run)
        assert not run.exists("dataset")
        facts = run_dataset(load(None, ["dataset.skip_bad=true"]), run)
        assert facts["bad_shards"] == [f"shards/attempt-0/{bad.name}"]
        assert facts["counts"]["rows"] > 0

    def test_a_split_that_cannot_be_stratified(self, cluster, tmp_path):
        run = RunDir(tmp_path)
        made = [row for row in rows(200, rejected=0.0) if row["status"] == schema.ACCEPTED]
        for row in made[:20]:
            row.update(VOCABULARY.columns({"rock", "flute"}))
        for row in made[20:]:
            tags = [t for t in row["aspect_list"] if t != "flute"]
            row.update(VOCABULARY.columns(tags))
        write_shards(run, made)
        with pytest.raises(InputError, match=r"'flute' has no row in .*: its 20 rows form 1 groups"):
            run_dataset(load(None, ["dataset.unstratified=refuse"]), run)


def test_row_groups_are_bounded(tmp_path):
    wanted = pa.schema([("text", pa.string())])
    run = RunDir(tmp_path)
    path = run.path("x.parquet")
    with RowGroupWriter(run.fs, path, wanted, None, rows=10, megabytes=1) as writer:
        for size in (3, 25, 1, 6):
            writer.write(pa.table({"text": [str(i) for i in range(size)]}))
    footer = pq.read_metadata(path)
    assert [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] == [10, 10, 10, 5]
    assert writer.num_rows == 35
