"""Systems side by side, with a stand-in for the served model; vLLM itself is in test_captions.py."""

from __future__ import annotations

import ast
import csv
import json

import pytest

from conceptcaps.assets.corpus import load_corpus, load_taxonomy
from conceptcaps.captions.asking import Answer
from conceptcaps.captions.vllm import EMBEDDED
from conceptcaps.config import Config
from conceptcaps.errors import InputError
from conceptcaps.pipelines.captions_eval import run_captions_eval, table_of
from conceptcaps.rundir import RunDir


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.csv"
    vocabulary = load_taxonomy()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["caption", "genre_tags", "mood_tags", "instrument_tags", "tempo_tags"])
        for row in load_corpus()[:80]:
            columns = vocabulary.columns(ast.literal_eval(row["aspect_list"]))
            writer.writerow(
                [row["caption"], *(", ".join(columns[f"{c}_aspects"]) for c in vocabulary.tags_by_category)]
            )
    return str(path)


def config_of(run_dir, pairs, **evaluation) -> Config:
    captions = {"engine": "vllm"} if evaluation.pop("served", True) else {}
    lora = {"data": pairs, "validation_fraction": 0.3}
    return Config.model_validate(
        {"run_dir": str(run_dir), "captions": captions, "lora": lora, "evaluation": {"num_rows": 24} | evaluation}
    )


class Stub:
    """The adapter says the prompt's tags, the bare model does not; the judge says nothing of every third caption."""

    def __init__(self):
        self.calls = []

    def __call__(self, config, adapter, questions):
        self.calls.append((config.captions.vllm.model, adapter, len(questions)))
        return [self.answer(i, q) for i, q in enumerate(questions)]

    def answer(self, i, question):
        said = question.messages[-1]["content"]
        if said.startswith("Tags: "):
            return Answer("Score: 3" if i % 3 else "I cannot say.")
        if i == 1:
            return Answer(None, "ValueError: too long")
        return Answer(" ".join(said.split())) if question.adapted else Answer("A song that one can hear.")


def test_systems_stand_side_by_side_and_what_is_missing_says_why(tmp_path, pairs):
    run, stub = RunDir(tmp_path), Stub()
    run.write_json({"r": 8}, "lora", "adapter", "adapter_config.json")
    models = {"language_model": "embedded", "feature_model": "embedded", "bert_model": EMBEDDED}
    result = run_captions_eval(config_of(tmp_path, pairs, **models, judge={"model": "some/judge"}), run, stub)
    values = result["values"]
    assert set(values) == {"fine_tuned", "base", "zero_shot", "grammar", "human"}
    assert result["rows"] == 24
    assert stub.calls == [("embedded", str(tmp_path / "lora" / "adapter"), 72), ("some/judge", None, 240)]
    assert values["human"]["coverage"] == values["grammar"]["coverage"] == 1
    assert values["fine_tuned"]["coverage"] > 0.9 > 0.1 > values["base"]["coverage"]
    assert values["human"]["precision"] > 0.9
    assert values["grammar"]["passes_checks"] == 1 > values["base"]["passes_checks"]
    assert values["human"]["perplexity"] < values["base"]["perplexity"]
    for metric in ("bleu", "rouge_l", "meteor", "bert_score", "mauve"):
        assert 0 <= values["base"][metric] < values["grammar"][metric] <= 1, metric
        assert metric not in values["human"]
    assert result["judge"]["grammar"]["unparsable"] == 16
    assert result["judge"]["grammar"]["mean"] == 3
    assert "no captions" in result["absent"]["run"]
    assert json.loads(run.read_bytes("captions", "evaluation.json")) == json.loads(json.dumps(result))
    assert run.read_bytes("captions", "evaluation.md").decode() == table_of(result)


def test_without_models_and_without_a_served_engine_the_rest_goes_on(tmp_path, pairs):
    run, stub = RunDir(tmp_path), Stub()
    result = run_captions_eval(config_of(tmp_path, pairs, served=False, bert_model=str(tmp_path)), run, stub)
    assert not stub.calls
    assert set(result["values"]) == {"grammar", "human"}
    assert "engine" in result["absent"]["base"]
    missing = result["missing"]["grammar"]
    assert set(missing) == {"perplexity", "bert_score", "mauve"}
    assert "evaluation.language_model" in missing["perplexity"]
    assert result["values"]["grammar"]["bleu"] > 0
    assert "| bert_score | - | - |" in table_of(result)


def test_an_adapter_that_is_not_there_is_said(tmp_path, pairs):
    result = run_captions_eval(config_of(tmp_path, pairs), RunDir(tmp_path), Stub())
    assert "no adapter" in result["absent"]["fine_tuned"]
    assert "base" in result["values"]


def test_a_run_without_pairs_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no captions"):
        run_captions_eval(Config.model_validate({"run_dir": str(tmp_path)}), RunDir(tmp_path), Stub())
