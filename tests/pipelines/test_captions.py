"""Captions by the real vLLM on the CPU, through ray.data.llm, with the embedded language model."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from served_captions import config_of, rows

from conceptcaps import schema
from conceptcaps.config import Config
from conceptcaps.errors import InputError
from conceptcaps.pipelines.captions import (
    build_caption_processor,
    caption_demand,
    find_adapter,
    find_synonyms,
    processor_config,
)
from conceptcaps.pipelines.steps import CAPTIONED


def captions_of(config: Config, num_blocks: int = 3) -> list[dict]:
    import ray.data

    table = pa.Table.from_pylist(rows(), schema=CAPTIONED)
    made = build_caption_processor(config)(ray.data.from_arrow(table).repartition(num_blocks)).take_all()
    return sorted(made, key=lambda row: row["id"])


def save_random_adapter(folder: Path) -> None:
    """An adapter that changes what the model says."""
    import torch

    from conceptcaps.captions.lora import add_adapter, load_base, save_adapter
    from conceptcaps.captions.vllm import EMBEDDED
    from conceptcaps.config.lora import LoraConfig

    settings = LoraConfig(r=8, alpha=16)
    model = add_adapter(load_base(EMBEDDED, settings, torch.device("cpu")), settings, 0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    save_adapter(model, folder, {})


@pytest.fixture(scope="module")
def first(cluster) -> list[dict]:
    pytest.importorskip("vllm", reason="vLLM is an optional extra")
    return captions_of(config_of(batch_size=8))


@pytest.mark.served
def test_every_row_comes_back_once_captioned_or_failed_with_its_reason(first):
    assert [row["id"] for row in first] == [row["id"] for row in rows()]
    assert first[3]["reason"] == "earlier.step"
    assert first[3]["caption"] is None
    assert "max_model_len" in first[5]["reason"]
    others = [row for i, row in enumerate(first) if i not in {3, 5}]
    assert sum(row["status"] is None for row in others) >= 18
    assert all(row["status"] in {None, schema.REJECTED} and row["caption"] for row in others)
    assert all(0.5 < row["tag_coverage"] <= 1 and row["caption_words"] for row in others)
    assert [row["seed"] for row in first] == [row["seed"] for row in rows()]


@pytest.mark.served
def test_other_batches_give_the_same_captions(first):
    again = captions_of(config_of(batch_size=5), num_blocks=1)
    assert [row["caption"] for row in again] == [row["caption"] for row in first]


@pytest.mark.served
def test_an_adapter_and_candidates_are_served(first, tmp_path):
    save_random_adapter(tmp_path)
    made = captions_of(config_of(adapter=str(tmp_path), candidates=2, rounds=2, checks={"min_coverage": 1.0}))
    assert [row["id"] for row in made] == [row["id"] for row in rows()]
    assert [row["caption"] for row in made] != [row["caption"] for row in first]
    assert all(row["reason"] is None or row["reason"].startswith(("captions.", "earlier.")) for row in made)


@pytest.mark.served
def test_one_engine_answers_with_and_without_its_adapter(first, tmp_path):
    from conceptcaps.captions.asking import Question
    from conceptcaps.captions.prompts import PromptTemplate, clean_reply
    from conceptcaps.captions.vllm import DRAW, sampling
    from conceptcaps.pipelines.questions import ask_vllm

    save_random_adapter(tmp_path)
    config, prompt = config_of(), PromptTemplate.load(None)
    drawn = [sampling(config.captions, row["seed"], 0)["extra_args"][DRAW]["seed"] for row in first[6:14]]
    asked = list(zip(drawn, map(prompt.messages, first[6:14]), strict=True))
    questions = [Question(m, seed, adapted) for adapted in (False, True) for seed, m in asked]
    long = Question([{"role": "user", "content": "a " * 4000}], 0)
    answers = ask_vllm(config, str(tmp_path), [*questions, long])
    assert [a.error for a in answers[:-1]] == [""] * 16
    assert "max_model_len" in answers[-1].error
    bare, adapted = ([clean_reply(a.text) for a in answers[k : k + 8]] for k in (0, 8))
    # An engine that can take adapters rounds otherwise than one that cannot: a sampled word may turn.
    assert sum(a == row["caption"] for a, row in zip(bare, first[6:14], strict=True)) >= 6
    assert adapted != bare


def test_an_adapter_of_the_run_must_be_fitted_first(tmp_path):
    config = config_of(adapter="run").model_copy(update={"run_dir": str(tmp_path)})
    with pytest.raises(InputError, match="stages lora"):
        find_adapter(config)
    (tmp_path / "lora" / "adapter").mkdir(parents=True)
    (tmp_path / "lora" / "adapter" / "adapter_config.json").write_text('{"r": 8}')
    assert find_adapter(config) == str(tmp_path / "lora" / "adapter")
    with pytest.raises(InputError, match="no adapter_config"):
        find_adapter(config_of(adapter=str(Path(tmp_path))))


def test_the_taxonomys_canonical_table_says_what_counts_as_a_tag(tmp_path):
    config = config_of().model_copy(update={"run_dir": str(tmp_path)})
    assert find_synonyms(config) == {}
    (tmp_path / "taxonomy").mkdir()
    table = tmp_path / "taxonomy" / "synonyms.csv"
    table.write_text("tag,count,canonical,apply\nman sings,4,male voice,yes\nmen sing,2,male voice,no\n")
    assert find_synonyms(config) == {"male voice": ["man sings"]}
    table.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"synonyms\.csv"):
        find_synonyms(config)


def test_a_gpu_engine_takes_its_gpus():
    config = config_of().model_copy(deep=True)
    resources = config.captions.resources.model_copy(update={"num_gpus": 1.0, "num_cpus": 2.0})
    served = config.captions.vllm.model_copy(update={"tensor_parallel_size": 2})
    captions = config.captions.model_copy(update={"resources": resources, "vllm": served})
    config = config.model_copy(update={"captions": captions})
    made, [demand] = processor_config(config, "gpu", None), caption_demand(config)
    assert (demand.cpus, demand.gpus) == (4.0, 2.0)
    assert [(b["CPU"], b["GPU"]) for b in made.placement_group_config["bundles"]] == [(2.0, 1.0)] * 2
    assert made.engine_kwargs["tensor_parallel_size"] == 2
