"""LoRA, QLoRA and vLLM on a GPU: the layers of a real 1B model at their real sizes, with random weights.

Random weights say nothing sensible; what is tested is that real sizes fit, train, are saved, loaded and served.
"""

from __future__ import annotations

import math

import pytest

from conceptcaps.captions.train import ADAPTER, train_on_ray
from conceptcaps.captions.vllm import EMBEDDED
from conceptcaps.config import Config
from conceptcaps.rundir import RunDir
from conceptcaps.seeding import row_identity
from conceptcaps.vocabulary import Vocabulary

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]

VOCABULARY = Vocabulary.from_mapping(
    {"genre": ["rock", "jazz"], "mood": ["sad", "calm"], "instrument": ["piano", "drums"], "tempo": ["slow tempo"]}
)
PAIRS = [
    {**VOCABULARY.columns([genre, mood, "piano", "slow tempo"]), "caption": f"This is a {mood} {genre} song. " * 4}
    for genre in ("rock", "jazz")
    for mood in ("sad", "calm")
] * 4


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Llama-3.2-1B's architecture (2,048 wide, 16 layers, 8 of 32 heads for keys), with the packaged tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("llama-1b")
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    sizes = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32}
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        num_key_value_heads=8,
        head_dim=64,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **sizes,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(shape).to(torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def gpu_cluster():
    import ray
    import torch

    from conceptcaps.config.ray import RayConfig
    from conceptcaps.runtime import connect

    assert torch.cuda.is_available(), "a gpu test wants a GPU"
    ray.shutdown()
    connect(RayConfig(num_cpus=4, object_store_mb=500), quiet=True)
    yield
    ray.shutdown()


def config_of(checkpoint: str, adapter: str | None = None, **lora) -> Config:
    served = {"model": checkpoint, "adapter": adapter, "dtype": "bfloat16", "max_model_len": 1024}
    served |= {"max_num_seqs": 16, "gpu_memory_utilization": 0.4}
    captions = {"engine": "vllm", "vllm": served, "checks": {"min_words": 1, "max_words": 500, "language": False}}
    resources = {"num_cpus": 1, "num_gpus": 1}
    fit = {"epochs": 2, "patience": 2, "batch_size": 8, "micro_batch_size": 4, "learning_rate": 1e-3, "r": 16}
    return Config.model_validate(
        {
            "captions": captions | {"resources": resources | {"batch_size": 8}},
            "lora": fit | lora | {"resources": resources},
        }
    )


@pytest.mark.parametrize("quantisation", ["none", "nf4"])
def test_an_adapter_of_a_real_size_is_fitted_and_served(gpu_cluster, checkpoint, tmp_path, quantisation):
    import pyarrow as pa
    import ray.data

    from conceptcaps.pipelines.captions import build_caption_processor
    from conceptcaps.pipelines.steps import CAPTIONED

    pytest.importorskip("vllm", reason="vLLM is an optional extra")
    if quantisation == "nf4":
        pytest.importorskip("bitsandbytes", reason="QLoRA wants the extra qlora")
    run = RunDir(tmp_path)
    config = config_of(checkpoint, quantisation=quantisation)
    made = train_on_ray(PAIRS, PAIRS[:4], config.lora, config.captions, run, 0, {})
    losses = [step["loss"] for step in made["steps"]]
    assert all(math.isfinite(loss) for loss in losses)
    assert made["best_loss"] < made["base_loss"]
    rows = [
        {"id": name, "seed": seed, "attempt": 0, **VOCABULARY.columns(["rock", "sad", "piano"])}
        for name, seed in (row_identity(0, i) for i in range(16))
    ]
    table = pa.Table.from_pylist(rows, schema=CAPTIONED)
    serve = build_caption_processor(config_of(checkpoint, adapter=run.path(*ADAPTER)))
    captioned = sorted(serve(ray.data.from_arrow(table)).take_all(), key=lambda row: row["id"])
    assert [row["id"] for row in captioned] == [row["id"] for row in rows]
    # Whatever random weights say, no row is lost to an error of the engine.
    assert not [row["reason"] for row in captioned if (row["reason"] or "").startswith("captions.error")]
