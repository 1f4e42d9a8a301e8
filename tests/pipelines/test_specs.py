"""Taxonomy artefacts to a fitted model to specs, through the run directory."""

import shutil
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conceptcaps import schema
from conceptcaps.config import Config
from conceptcaps.contradictions import Contradictions
from conceptcaps.errors import InputError
from conceptcaps.pairs import added_tag, pair_tag, skeleton
from conceptcaps.pipelines import specs, vae
from conceptcaps.pipelines.artefacts import encode_lists, write_table
from conceptcaps.rundir import RunDir
from conceptcaps.seeding import row_identity
from conceptcaps.vocabulary import Vocabulary

VOCABULARY = Vocabulary.from_mapping(
    {
        "genre": ["rock", "jazz", "pop"],
        "mood": ["happy", "sad"],
        "instrument": ["piano", "violin", "drums"],
        "tempo": ["slow tempo", "fast tempo"],
    }
)


def write_taxonomy(run: RunDir, num_rows: int = 200) -> None:
    rng = np.random.default_rng(0)
    rows = [[str(rng.choice(tags)) for tags in VOCABULARY.tags_by_category.values()] for _ in range(num_rows)]
    columns = [VOCABULARY.columns(tags) for tags in rows]
    table = pa.Table.from_pylist([{"caption": "music", **c} for c in columns])
    run.write_bytes(VOCABULARY.to_json().encode(), "taxonomy", "concepts_to_tags.json")
    run.write_bytes(Contradictions.for_vocabulary(VOCABULARY).to_json().encode(), "taxonomy", "contradictions.json")
    write_table(table, run, "taxonomy", "rows", "part-0.parquet")


def config(**sections) -> Config:
    mixture = {"members": 2, "components": 2, "epochs": 4}
    vae = {
        "model": "beta_vae",
        "epochs": 5,
        "hidden_dim": 16,
        "latent_dim": 2,
        "maps": ["pca", "tsne"],
        **sections.pop("vae", {}),
    }
    vae["mixture"] = mixture
    return Config.model_validate({"vae": vae, "specs": {"num_samples": 500, **sections.pop("specs", {})}, **sections})


def read_specs(run: RunDir) -> pa.Table:
    return pa.concat_tables(pq.read_table(run.fs.open_input_file(f)) for f in run.files("specs", suffix=".parquet"))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> RunDir:
    run = RunDir(tmp_path_factory.mktemp("fitted"))
    write_taxonomy(run)
    vae.run_vae(config(), run)
    return run


@pytest.fixture
def run(fitted, tmp_path) -> RunDir:
    return RunDir(shutil.copytree(fitted.root, tmp_path / "run"))


def test_specs_follow_schema_and_rules(run):
    facts = specs.run_specs(config(), run)
    table = read_specs(run)
    assert table.schema.equals(schema.SPECS)
    assert facts["rows"] == table.num_rows == 500
    matrix = VOCABULARY.encode(table["aspect_list"].to_pylist())
    assert VOCABULARY.num_categories(matrix).min() >= 3
    assert not Contradictions.for_vocabulary(VOCABULARY).violations(matrix).any()
    first = table.slice(0, 1).to_pylist()[0]
    assert (first["id"], first["seed"]) == row_identity(0, 0)
    assert {k: first[k] for k in schema.ASPECT_COLUMNS} == VOCABULARY.columns(first["aspect_list"])


def test_more_samples_extend_the_same_rows(run):
    specs.run_specs(config(), run)
    few = read_specs(run)
    specs.run_specs(config(specs={"num_samples": 5000}), run)
    assert read_specs(run).slice(0, 500).equals(few)


def test_the_default_model_fits_and_samples(run):
    facts = vae.run_vae(config(vae={"model": "mixture"}), run)
    assert facts["model"] == "mixture"
    specs.run_specs(config(), run)
    few = read_specs(run)
    matrix = VOCABULARY.encode(few["aspect_list"].to_pylist())
    assert VOCABULARY.num_categories(matrix).min() >= 3
    specs.run_specs(config(specs={"num_samples": 5000}), run)
    assert read_specs(run).slice(0, 500).equals(few)


def test_a_mixture_has_no_threshold(run):
    vae.run_vae(config(vae={"model": "mixture"}), run)
    with pytest.raises(InputError, match="beta_vae"):
        specs.run_specs(config(specs={"method": "threshold"}), run)


def test_seed_tags_stand_in_every_row(run):
    specs.run_specs(config(specs={"seed_tags": ["jazz", "slow tempo"]}), run)
    assert all({"jazz", "slow tempo"} <= set(tags) for tags in read_specs(run)["aspect_list"].to_pylist())


def test_most_rows_of_one_set(run):
    specs.run_specs(config(specs={"num_samples": 6000}), run)
    free = Counter(map(tuple, read_specs(run)["aspect_list"].to_pylist()))
    assert max(free.values()) > 40
    specs.run_specs(config(specs={"num_samples": 6000, "max_per_set": 40}), run)
    limited = Counter(map(tuple, read_specs(run)["aspect_list"].to_pylist()))
    assert max(limited.values()) == 40
    specs.run_specs(config(specs={"num_samples": 300, "max_per_set": 40}), run)
    assert read_specs(run).num_rows == 300


def test_balancing_lifts_every_tag(run):
    specs.run_specs(config(specs={"num_samples": 4000, "min_share": 0.3}), run)
    matrix = VOCABULARY.encode(read_specs(run)["aspect_list"].to_pylist())
    assert matrix.mean(0).min() > 0.25


def test_every_tag_has_its_fewest_rows(run):
    """Also tags that the model hardly ever makes; the rows asked for stay as they are."""
    specs.run_specs(config(), run)
    plain = read_specs(run)
    facts = specs.run_specs(config(specs={"min_positives": 200}), run)
    table = read_specs(run)
    matrix = VOCABULARY.encode(table["aspect_list"].to_pylist())
    assert plain.slice(0, 500).equals(table.slice(0, 500))
    assert VOCABULARY.encode(plain["aspect_list"].to_pylist()).sum(0).min() < 200
    assert matrix.sum(0).min() >= 200
    assert facts["rows"] == table.num_rows == 500 + facts["rows_for_rare_tags"] == len(set(table["id"].to_pylist()))
    assert facts["tags_with_too_few_rows"] == {}
    assert VOCABULARY.num_categories(matrix).min() >= 3
    assert not Contradictions.for_vocabulary(VOCABULARY).violations(matrix).any()


def test_fewest_rows_keep_to_the_limit_of_a_set(run):
    specs.run_specs(config(specs={"min_positives": 200, "max_per_set": 30}), run)
    sets = Counter(map(tuple, read_specs(run)["aspect_list"].to_pylist()))
    assert max(sets.values()) <= 30
    assert VOCABULARY.encode(sets.elements()).sum(0).min() >= 200


def test_tags_that_cannot_have_enough_rows_are_named(run, caplog):
    """No row may hold both tempi, so one that every row must hold leaves none for the other."""
    wanted = {"seed_tags": ["slow tempo"], "min_positives": 100}
    facts = specs.run_specs(config(specs=wanted), run)
    assert list(facts["tags_with_too_few_rows"]) == ["fast tempo"]
    assert "'fast tempo'" in caplog.text
    matrix = VOCABULARY.encode(read_specs(run)["aspect_list"].to_pylist())
    assert np.delete(matrix.sum(0), VOCABULARY.index["fast tempo"]).min() >= 100


def test_a_longer_run_keeps_the_rows_for_rare_tags(run):
    specs.run_specs(config(specs={"min_positives": 200}), run)
    before = pq.read_table(run.path("specs", "rare.parquet"))
    specs.write_rare(specs.make_sampler(config(), run), config(specs={"min_positives": 220}), run)
    after = pq.read_table(run.path("specs", "rare.parquet"))
    assert after.num_rows > before.num_rows
    assert after.slice(0, before.num_rows).equals(before)
    assert len(set(after["id"].to_pylist())) == after.num_rows


def test_rows_do_not_depend_on_parallelism(run, monkeypatch, cluster):
    """Files made by Ray tasks, in whatever order, are those that one process makes."""
    monkeypatch.setattr(specs, "CHUNKS_PER_FILE", 1)
    wanted = config(specs={"num_samples": 9000})
    sampler = specs.make_sampler(wanted, run)
    jobs = [(file, *bounds) for file, bounds in enumerate(specs.file_bounds(9000))]
    for job in reversed(jobs):
        specs.write_file(sampler, run.location, 0, *job)
    alone = [run.fs.open_input_file(path).read() for path in run.files("specs", suffix=".parquet")]
    assert len(alone) == 3
    specs.run_specs(wanted, run)
    together = [run.fs.open_input_file(path).read() for path in run.files("specs", suffix=".parquet")]
    assert together == alone


def test_seed_changes_rows(run):
    specs.run_specs(config(), run)
    before = read_specs(run)["aspect_list"].to_pylist()
    specs.run_specs(config(seed=1), run)
    assert read_specs(run)["aspect_list"].to_pylist() != before


def test_model_and_metrics_are_written(run):
    metrics = run.read_json("vae", "metrics.json")
    assert metrics["members"][0]["validation_nats_per_row"] > 0
    assert len(run.read_json("vae", "history.json")) == 5
    assert not run.exists("vae", "checkpoint.pt")
    latents = pq.read_table(run.fs.open_input_file(run.path("vae", "latents.parquet")))
    assert latents.num_rows == 200
    assert set(latents["genre"].to_pylist()) == {"rock", "jazz", "pop"}
    assert run.exists("vae", "latents_tsne.png")


def test_sweep_is_written(tmp_path):
    run = RunDir(tmp_path / "run")
    write_taxonomy(run)
    vae.run_vae(config(vae={"betas": [0.5, 2]}), run)
    assert [m["beta"] for m in run.read_json("vae", "metrics.json")["members"]] == [1.0, 0.5, 2.0]
    assert len(run.files("vae", "sweep")) == 2
    latents = pq.read_table(run.fs.open_input_file(run.path("vae", "latents.parquet")))
    assert Counter(latents["beta"].to_pylist()) == {1.0: 200, 0.5: 200, 2.0: 200}


def test_without_umap_the_map_is_tsne(run, monkeypatch, caplog):
    monkeypatch.setattr(vae, "find_spec", lambda name: None)
    with caplog.at_level("INFO"):
        vae.run_vae(config(vae={"maps": ["umap"]}), run)
    assert run.exists("vae", "latents_tsne.png")
    assert "conceptcaps[metrics]" in caplog.text


def test_without_rows(tmp_path):
    run = RunDir(tmp_path / "run")
    run.write_bytes(VOCABULARY.to_json().encode(), "taxonomy", "concepts_to_tags.json")
    with pytest.raises(InputError, match="no rows"):
        vae.run_vae(config(), run)


def test_without_taxonomy(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        vae.run_vae(config(), RunDir(tmp_path / "run"))


def test_damaged_model_is_named(run):
    run.write_bytes(b"no model", "vae", "model.safetensors")
    with pytest.raises(InputError, match=r"model\.safetensors"):
        specs.run_specs(config(), run)


def test_encode_lists_ignores_unknown_and_null():
    lists = pa.array([["rock", "unknown"], None, ["piano", "sad"]], pa.list_(pa.string()))
    expected = VOCABULARY.encode([["rock"], [], ["piano", "sad"]])
    np.testing.assert_array_equal(encode_lists(lists, VOCABULARY), expected)


def test_counterfactual_pairs_differ_in_one_tag_and_share_their_seed(run):
    wanted = {"counterfactual": ["piano", "sad"], "counterfactual_pairs": 6, "num_samples": 50}
    facts = specs.run_specs(config(specs=wanted), run)
    assert (facts["rows"], facts["counterfactual_pairs"]) == (50 + 24, 12)
    table = read_specs(run)
    schema.check(table.schema, schema.SPECS, "specs")
    rows = [row for row in table.to_pylist() if row["pair_id"]]
    assert [row["pair_id"] for row in table.slice(0, 50).to_pylist()] == [None] * 50
    for has, lacks in zip(rows[::2], rows[1::2], strict=True):
        assert (has["pair_id"], has["seed"]) == (lacks["pair_id"], lacks["seed"])
        assert has["id"] != lacks["id"]
        assert set(has["aspect_list"]) - set(lacks["aspect_list"]) == {pair_tag(has["pair_id"])}
        assert skeleton(has)["aspect_list"] == lacks["aspect_list"] == skeleton(lacks)["aspect_list"]
        assert added_tag(has) == pair_tag(has["pair_id"])
        assert added_tag(lacks) is None
    admitted = specs.make_sampler(config(), run).rules.admits(VOCABULARY.encode([row["aspect_list"] for row in rows]))
    assert admitted.all()


def test_more_pairs_and_rows_leave_the_others_as_they_are(run):
    def pairs_of(count, **more):
        specs.run_specs(config(specs={"counterfactual": ["sad"], "counterfactual_pairs": count, **more}), run)
        return [row for row in read_specs(run).to_pylist() if row["pair_id"]]

    few = pairs_of(3)
    assert pairs_of(5, num_samples=20)[:6] == few


def test_a_counterfactual_tag_must_be_known_and_dispensable(run):
    for bad, message in (
        ({"counterfactual": ["banjo"]}, "not in the vocabulary"),
        ({"counterfactual": ["sad"], "seed_tags": ["sad"]}, "no row may lack it"),
        ({"counterfactual": ["slow tempo"], "min_categories": 4}, "allowed without it"),
    ):
        with pytest.raises(InputError, match=message):
            specs.run_specs(config(specs={"num_samples": 20, **bad}), run)
