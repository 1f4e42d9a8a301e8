"""The comparison stage writes its table, its tests and its plots from a run's artefacts."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conceptcaps.config import Config
from conceptcaps.contradictions import Contradictions
from conceptcaps.errors import InputError
from conceptcaps.pipelines import comparison, specs, vae
from conceptcaps.pipelines.artefacts import write_table
from conceptcaps.rundir import RunDir
from conceptcaps.vocabulary import Vocabulary

VOCABULARY = Vocabulary.from_mapping(
    {"genre": ["rock", "jazz"], "mood": ["happy", "sad"], "instrument": ["piano"], "tempo": ["slow tempo"]}
)
CONFIG = Config.model_validate(
    {
        "vae": {
            "mixture": {"members": 2, "components": 2, "epochs": 3},
            "epochs": 3,
            "hidden_dim": 8,
            "latent_dim": 2,
            "importance_samples": 20,
        },
        "specs": {"num_samples": 100, "min_categories": 2},
        "comparison": {"num_bootstrap": 20},
    }
)


@pytest.fixture
def run(tmp_path) -> RunDir:
    run = RunDir(tmp_path / "run")
    rng = np.random.default_rng(0)
    rows = [[t for t in VOCABULARY.tags if rng.random() < 0.6] + ["rock", "happy"] for _ in range(150)]
    table = pa.Table.from_pylist([{"caption": "music", **VOCABULARY.columns(tags)} for tags in rows])
    run.write_bytes(VOCABULARY.to_json().encode(), "taxonomy", "concepts_to_tags.json")
    run.write_bytes(Contradictions.for_vocabulary(VOCABULARY).to_json().encode(), "taxonomy", "contradictions.json")
    write_table(table, run, "taxonomy", "rows", "part-0.parquet")
    return run


def test_writes_figures_tags_and_plots(run):
    vae.run_vae(CONFIG, run)
    specs.run_specs(CONFIG, run)
    facts = comparison.run_comparison(CONFIG, run)
    assert facts["rows"]["held"] == 30
    assert set(facts["held_out_nats"]) == {"mixture", "beta_vae"}
    assert facts["held_out_nats"]["mixture"]["sampler"] < facts["held_out_nats"]["mixture"]["model"] + 1
    figures = pq.read_table(run.fs.open_input_file(run.path("comparison", "figures.parquet"))).to_pylist()
    assert {f["sampler"] for f in figures} == {*CONFIG.comparison.samplers, comparison.OWN_SPECS}
    assert len({f["metric"] for f in figures}) * 6 == len(figures)
    assert len(run.files("comparison", suffix=".png")) == 7
    assert run.read_json("comparison", "results.json")["rows"] == facts["rows"]


def test_without_taxonomy(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        comparison.run_comparison(CONFIG, RunDir(tmp_path / "none"))
