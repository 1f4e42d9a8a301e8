from __future__ import annotations

import csv
import json

import pyarrow.dataset as ds
import pytest

from conceptcaps.config.load import load
from conceptcaps.errors import InputError
from conceptcaps.rundir import RunDir
from conceptcaps.taxonomy.matching import ROWS

GIVEN = {"genre": ["rock", "jazz"], "mood": ["happy"], "instrument": ["piano"], "tempo": ["slow tempo"]}
LINES = [
    "\"A rock song. The recording is noisy.\",\"['Rock', 'happy ', 'piano', 'low quality']\"",
    'A slow song,"rock, slow tempo"',
    "A broken row,\"['rock'\"",
    "A jazz song,\"['jazz' 'happy' 'slow tempo' 'медленно']\"",
]


@pytest.fixture
def write(tmp_path):
    (tmp_path / "given.json").write_text(json.dumps(GIVEN))

    def write(lines, *keys):
        path = tmp_path / "a.csv"
        path.write_text("\n".join(["caption,aspect_list", *lines]) + "\n", encoding="utf-8")
        return load(None, [f"taxonomy.annotations={path}", *keys])

    return write


@pytest.fixture
def run_taxonomy(cluster):
    from conceptcaps.pipelines.taxonomy import run_taxonomy

    return run_taxonomy


def rows_of(run):
    return ds.dataset(run.path("taxonomy", "rows")).to_table()


def test_a_given_taxonomy_is_applied_as_it_is(write, run_taxonomy, tmp_path):
    run = RunDir(tmp_path / "run")
    facts = run_taxonomy(write(LINES, f"taxonomy.taxonomy={tmp_path}/given.json"), run)
    assert (facts["rows_read"], facts["rows_malformed"], facts["rows_kept"]) == (4, 1, 2)
    rows = rows_of(run)
    assert rows.schema.equals(ROWS)
    assert rows["caption"].to_pylist() == ["A rock song.", "A jazz song"]
    assert rows["aspect_list"].to_pylist() == [["rock", "happy", "piano"], ["jazz", "happy", "slow tempo"]]
    assert rows["tempo_aspects"].to_pylist() == [[], ["slow tempo"]]
    assert json.loads(run.read_bytes("taxonomy", "concepts_to_tags.json")) == GIVEN
    rejects = run.read_json("taxonomy", "rejects.json")
    assert rejects["malformed"] == 1
    assert rejects["listed"][0]["row"] == 3
    frequencies = {
        r["tag"]: r for r in csv.DictReader(run.read_bytes("taxonomy", "frequencies.csv").decode().splitlines())
    }
    assert frequencies["rock"]["count"] == "2"
    assert frequencies["low quality"]["matched"] == ""
    assert run.read_json("taxonomy", "report.json")["in_another_script"] == ["медленно"]
    pairs = {
        (r["tag_a"], r["tag_b"]): r
        for r in ds.dataset(run.path("taxonomy", "cooccurrence.parquet")).to_table().to_pylist()
    }
    assert pairs["rock", "happy"]["count"] == 1
    assert pairs["rock", "jazz"]["pmi"] is None


def test_unusable_input_writes_nothing(write, run_taxonomy, tmp_path):
    run = RunDir(tmp_path / "run")
    given = f"taxonomy.taxonomy={tmp_path}/given.json"
    with pytest.raises(InputError, match=r"matches no tag.*reggae"):
        run_taxonomy(write(['A song,"reggae, banjo"'], given), run)
    with pytest.raises(InputError, match="3 categories"):
        run_taxonomy(write(["A song,rock"], given), run)
    with pytest.raises(InputError, match=r"no good row.*row 1 "):
        run_taxonomy(write(["A song,['"], given), run)
    (tmp_path / "twice.json").write_text(json.dumps({"genre": ["rock"], "mood": ["rock"]}))
    with pytest.raises(InputError, match="'genre' and in 'mood'"):
        run_taxonomy(write(LINES, f"taxonomy.taxonomy={tmp_path}/twice.json"), run)
    assert not run.exists("taxonomy")


def test_a_corpus_of_one_row_is_enough(write, run_taxonomy, tmp_path):
    facts = run_taxonomy(write(LINES[:1], f"taxonomy.taxonomy={tmp_path}/given.json"), RunDir(tmp_path / "run"))
    assert facts["rows_kept"] == 1


def test_distilling_real_rows(run_taxonomy, musiccaps, tmp_path):
    keys = [
        f"taxonomy.annotations={musiccaps}/raw.csv",
        f"taxonomy.compare_with={musiccaps}/concepts_to_tags.published.json",
    ]
    run = RunDir(tmp_path / "run")
    facts = run_taxonomy(load(None, keys), run)
    assert facts["tags"] == 200
    assert facts["tags_unused"] == 0
    assert facts["agreement"] >= 0.9
    assert facts["rows_kept"] > 600  # the published taxonomy keeps 381 of these rows
    chosen = json.loads(run.read_bytes("taxonomy", "concepts_to_tags.json"))
    assert {"slow tempo", "medium tempo", "fast tempo"} <= set(chosen["tempo"])
    folds = {r["tag"]: r for r in csv.DictReader(run.read_bytes("taxonomy", "synonyms.csv").decode().splitlines())}
    assert folds["moderate tempo"]["canonical"] == "medium tempo"
    assert folds["moderate tempo"]["together"] == "0"
    assert len(run.read_bytes("taxonomy", "differences.csv").splitlines()) == 201


def test_distilling_frequencies(run_taxonomy, tmp_path):
    (tmp_path / "f.csv").write_text("Tag,Count\nrock,9\nslow,5\nslow tempo,8\nhappy,4\npiano,4\nnoisy,3\n")
    run = RunDir(tmp_path / "run")
    facts = run_taxonomy(load(None, [f"taxonomy.annotations={tmp_path}/f.csv"]), run)
    assert facts["tags"] == 4
    assert not run.exists("taxonomy", "rows")
    assert json.loads(run.read_bytes("taxonomy", "concepts_to_tags.json"))["tempo"] == ["slow tempo"]
