from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conceptcaps.errors import InputError
from conceptcaps.taxonomy import annotations
from conceptcaps.taxonomy.aspects import parse_aspects

EXPECTED = ["slow tempo", "it's fine", "piano"]


@pytest.mark.parametrize(
    "text",
    [
        """['slow tempo', "it's fine", 'piano']""",
        '["slow tempo", "it\'s fine", "piano"]',
        """['slow tempo' "it's fine"\n 'piano']""",
        "slow tempo, it's fine,piano",
        EXPECTED,
    ],
)
def test_every_spelling_of_a_list(text):
    assert parse_aspects(text) == EXPECTED


def test_escapes_and_emptiness():
    assert parse_aspects(r"['it\'s', 'caf\u00e9']") == ["it's", "café"]
    assert parse_aspects("[]") == []
    assert parse_aspects("['a', '', ' ']") == ["a"]


@pytest.mark.parametrize(
    "value", ["", "  ", None, "['a', 'b'", "[1, 2]", "['a', 2]", '["a", null]', "['a' + 'b']", [1]]
)
def test_what_is_no_list_is_refused(value):
    with pytest.raises(ValueError, match="aspect_list"):
        parse_aspects(value)


def parsed(location) -> pa.Table:
    tables = [
        annotations.parse_table(raw) for p in annotations.find_parts(str(location)) for raw in annotations.read_part(p)
    ]
    return pa.concat_tables(tables)


def write_csv(path, *lines):
    path.write_text("\n".join(["caption,aspect_list", *lines]) + "\n", encoding="utf-8")
    return path


def test_malformed_rows_are_listed_with_their_numbers_and_stop_no_other(tmp_path):
    lines = ['"A, b","[\'x\']"', "only one field", '"","[\'x\']"', '"C","[\'x\'"', '"two\nlines","x, y"']
    table = parsed(write_csv(tmp_path / "a.csv", *lines))
    assert table["row"].to_pylist() == [1, 2, 3, 4, 5]
    assert table["tags"].to_pylist() == [["x"], [], [], [], ["x", "y"]]
    problems = table["problem"].to_pylist()
    assert problems[0] is problems[4] is None
    assert "1 fields" in problems[1]
    assert "caption is empty" in problems[2]
    assert "not closed" in problems[3]


def test_bytes_that_are_not_utf8_mark_their_row_only(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfcaption,aspect_list\ncaf\xe9,x\nfine,x\n")
    assert parsed(tmp_path / "a.csv")["problem"].to_pylist() == ["is not UTF-8", None]


def test_csv_compressed_jsonl_and_parquet_read_alike(tmp_path):
    rows = [{"caption": f"Caption {i}", "aspect_list": ["slow tempo", "piano"]} for i in range(5)]
    (tmp_path / "j").mkdir()
    (tmp_path / "j/a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\nnot json\n[1]\n")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=2)
    text = "caption,aspect_list\n" + "".join(f"Caption {i},\"['slow tempo', 'piano']\"\n" for i in range(5))
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("a.parquet", "a.csv.gz"):
        table = parsed(tmp_path / name)
        assert table["row"].to_pylist() == [1, 2, 3, 4, 5]
        assert table["tags"].to_pylist() == [["slow tempo", "piano"]] * 5
    table = parsed(tmp_path / "j")
    assert [p is None for p in table["problem"].to_pylist()] == [True] * 5 + [False] * 2


def test_missing_columns_name_the_file_and_what_it_has(tmp_path):
    (tmp_path / "a.csv").write_text("ytid,caption\nx,y\n")
    with pytest.raises(InputError, match=r"a\.csv.*aspect_list.*ytid") as error:
        annotations.find_parts(str(tmp_path / "a.csv"))
    assert "caption and aspect_list" in str(error.value)


@pytest.mark.parametrize(("name", "content"), [("a.xlsx", b"x"), ("a.parquet", b"no parquet"), ("a.jsonl", b"{")])
def test_files_of_another_kind_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=r"a\."):
        annotations.find_parts(str(tmp_path / name))


def test_what_is_not_there_is_refused_and_a_hub_id_is_none_of_that(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        annotations.find_parts(str(tmp_path / "none.csv"))
    assert annotations.find_parts("google/MusicCaps") == []


def test_a_hub_that_cannot_be_reached_says_so(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def unreachable(*_args, **_kwargs):
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(InputError, match=r"google/MusicCaps.*hub.*offline"):
        annotations.load_hub("google/MusicCaps", "train")


def test_frequencies_are_recognised_and_checked(tmp_path):
    (tmp_path / "f.csv").write_text("Tag,Count\nrock,3\nrock,2\n")
    (part,) = annotations.find_parts(str(tmp_path / "f.csv"))
    assert annotations.is_frequencies(part)
    assert annotations.read_frequencies(part) == {"rock": 5}
    (tmp_path / "f.csv").write_text("Tag,Count\nrock,many\n")
    with pytest.raises(InputError, match="row 1"):
        annotations.read_frequencies(part)


def test_real_rows_parse_without_a_problem(musiccaps):
    for name, number in (("raw.csv", 1115), ("distilled.csv", 1323)):
        table = parsed(musiccaps / name)
        assert table.num_rows == number
        assert table["problem"].null_count == number
