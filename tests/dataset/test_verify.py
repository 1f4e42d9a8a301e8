"""verify: says nothing of a sound run and names file, row and fault of an unsound one."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic import rows, write_run, write_shards

from conceptcaps import schema
from conceptcaps.dataset.verify import verify
from conceptcaps.errors import InputError
from conceptcaps.rundir import RunDir


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", 40)


def shard(run: RunDir, number: int = 0) -> Path:
    return Path(run.files("shards", suffix=".parquet")[number])


def change(run: RunDir, row: int, **values) -> str:
    """Change one row of the first shard; its id."""
    path = shard(run)
    made = pq.read_table(path).to_pylist()
    made[row].update(values)
    pq.write_table(pa.Table.from_pylist(made, schema=schema.SHARD), path)
    return made[row]["id"]


def accepted(run: RunDir) -> int:
    return pq.read_table(shard(run))["status"].to_pylist().index(schema.ACCEPTED)


def texts(run: RunDir) -> list[str]:
    return [str(problem) for problem in verify(run)]


def test_a_sound_run_has_no_problems(run):
    assert verify(run) == []


def test_a_later_attempt_replaces_the_row(run):
    again = [row for row in rows(40, attempt=1) if row["status"] != schema.FAILED][:5]
    write_shards(run, again, attempt=1)
    faults = [text for text in texts(run) if "manifest" not in text]
    assert faults == []


def test_no_shards_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="shards"):
        verify(RunDir(tmp_path))


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"status": "fine"}, "status is 'fine'"),
        ({"caption": None}, "accepted without caption"),
        ({"aspect_list": []}, "accepted without aspect_list"),
        ({"audio": None}, "accepted without audio bytes"),
        (
            {"audio": {"bytes": b"no music", "path": "a.flac"}},
            "audio cannot be decoded (LibsndfileError: no audio file: Format not recognised.)",
        ),
        ({"sampling_rate": 16000}, "audio has 8000 Hz, the row says 16000"),
        ({"duration": 10.0}, "audio lasts 0.250 s, the row says 10.0"),
        ({"reason": "alignment.below_threshold"}, "accepted, yet has a reason"),
        ({"status": schema.REJECTED}, "rejected without a reason"),
    ],
)
def test_a_bad_row_is_named(run, values, fault):
    row = change(run, accepted(run), **values)
    found = [text for text in texts(run) if "manifest" not in text]
    assert len(found) == 1
    assert found[0].startswith(f"shards/attempt-0/{shard(run).name}, row {row}: {fault}")


def test_a_row_written_twice_is_named_with_both_files(run):
    made = pq.read_table(shard(run)).slice(3, 1)
    pq.write_table(made, run.path("shards", "attempt-0", "zz.parquet"))
    [found] = texts(run)
    assert found == (
        f"shards/attempt-0/zz.parquet, row {made['id'][0]}: attempt 0 stands in shards/attempt-0/{shard(run).name} too"
    )


def test_missing_and_unknown_rows(run):
    path = shard(run)
    kept = pq.read_table(path)
    pq.write_table(kept.slice(1), path)
    found = texts(run)
    assert f"specs/specs.parquet, row {kept['id'][0]}: has no row in the shards" in found
    assert any(text.startswith("manifest.json: says") for text in found)
    stranger = change(run, 0, id="stranger")
    assert f"shards/attempt-0/{path.name}, row stranger: is in no spec" in texts(run)
    assert stranger == kept["id"][1].as_py() or stranger == "stranger"


def test_many_missing_rows_are_counted(run):
    for path in run.files("shards", suffix=".parquet")[1:]:
        Path(path).unlink()
    found = texts(run)
    assert sum("has no row in the shards" in text for text in found) == 20
    assert "specs: 4 more rows without a row in the shards" in found


def test_unreadable_and_foreign_files(run):
    path = shard(run, 1)
    path.write_bytes(path.read_bytes()[:100])
    pq.write_table(pa.table({"id": ["a"]}), run.path("shards", "attempt-0", "foreign.parquet"))
    found = texts(run)
    assert any(text.startswith(f"shards/attempt-0/{path.name}: cannot be read") for text in found)
    assert any(text.startswith("shards/attempt-0/foreign.parquet: caption is missing") for text in found)
