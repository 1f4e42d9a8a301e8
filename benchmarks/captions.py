"""Captions: the vLLM stage against transformers `generate`, and the LoRA fit against a plain loop, each in one run.

The vLLM stage is timed as it runs in the job, through ray.data.llm; its start-up is taken out by running it on two
numbers of rows. Its peer decodes the same prompts on the same checkpoint with the same sampling settings, in batches
of the same size, and both count the tokens of the captions that came out. The fit's peer takes the same steps on the
same batches without Ray, checkpoints or bookkeeping.

    python benchmarks/captions.py [--rows 256] [--fit-rows 256] [--skip-vllm]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from machine import describe_machine

from conceptcaps.assets.corpus import load_corpus, load_taxonomy
from conceptcaps.assets.lm_quality import tag_sets
from conceptcaps.captions.lora import (
    Example,
    add_adapter,
    answer_loss,
    collate,
    encode_pairs,
    load_base,
    order_steps,
    padding_share,
    trainable,
)
from conceptcaps.captions.prompts import PromptTemplate, prompt_ids
from conceptcaps.captions.train import train_on_ray
from conceptcaps.captions.vllm import EMBEDDED, load_tokenizer
from conceptcaps.config import Config
from conceptcaps.config.ray import RayConfig
from conceptcaps.rundir import RunDir
from conceptcaps.runtime import connect
from conceptcaps.seeding import derive, generator, row_identity

RESULTS = Path(__file__).parent / "results" / "captions.json"
BATCH = 32


def spec_rows(count: int) -> list[dict]:
    vocabulary, rows = load_taxonomy(), []
    for i, tags in enumerate(tag_sets("taxonomy", count)):
        name, seed = row_identity(0, i)
        said = vocabulary.columns([tag for group in tags.values() for tag in group])
        rows.append({"id": name, "seed": seed, "attempt": 0, **said})
    return rows


def serving() -> Config:
    served = {"dtype": "float32", "max_model_len": 512, "max_num_seqs": BATCH, "gpu_memory_utilization": 0.2}
    captions = {"engine": "vllm", "vllm": served, "resources": {"num_cpus": 0.5, "batch_size": BATCH}}
    return Config.model_validate({"captions": captions | {"checks": {"min_words": 1, "max_words": 500}}})


def time_stage(rows: list[dict]) -> tuple[float, int]:
    """Seconds, and tokens of the captions."""
    import pyarrow as pa
    import ray.data

    from conceptcaps.pipelines.captions import build_caption_processor
    from conceptcaps.pipelines.steps import CAPTIONED

    table = pa.Table.from_pylist(rows, schema=CAPTIONED)
    began = time.perf_counter()
    made = build_caption_processor(serving())(ray.data.from_arrow(table).repartition(2)).take_all()
    seconds = time.perf_counter() - began
    return seconds, count_tokens([row["caption"] or "" for row in made])


def count_tokens(captions: list[str]) -> int:
    tokenizer = load_tokenizer(EMBEDDED)
    return sum(len(ids) + 1 for ids in tokenizer(captions, add_special_tokens=False)["input_ids"])


def measure_vllm(num_rows: int) -> dict[str, float]:
    """Tokens per second of the stage, start-up apart."""
    few = BATCH
    first = time_stage(spec_rows(few))
    second = time_stage(spec_rows(few + num_rows))
    return {"tokens_per_s": (second[1] - first[1]) / (second[0] - first[0]), "startup_s": first[0]}


def measure_generate(num_rows: int) -> dict[str, float]:
    """Tokens per second of transformers on the same prompts."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32).eval()
    template, rows = PromptTemplate.load(None), spec_rows(BATCH + num_rows)
    captions: list[str] = []
    began = 0.0
    for start in range(0, len(rows), BATCH):
        if start == BATCH:  # the first batch warms up
            began, captions = time.perf_counter(), []
        asked = [{"input_ids": prompt_ids(tokenizer, template.messages(r))} for r in rows[start : start + BATCH]]
        batch = tokenizer.pad(asked, return_tensors="pt")
        said = model.generate(**batch, do_sample=True, temperature=0.7, top_p=0.9, max_new_tokens=160)
        captions += tokenizer.batch_decode(said[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return {"tokens_per_s": count_tokens(captions) / (time.perf_counter() - began)}


def pairs(count: int) -> list[dict]:
    import ast

    vocabulary = load_taxonomy()
    rows = load_corpus()[:count]
    return [{"caption": r["caption"], **vocabulary.columns(ast.literal_eval(r["aspect_list"]))} for r in rows]


def measure_fit(num_rows: int, epochs: int = 2) -> dict[str, float]:
    """CPU seconds per optimiser step of the Ray Train job (in this process) and of a plain loop, and their ratio."""
    lora = {"epochs": epochs, "patience": epochs, "batch_size": 16, "micro_batch_size": 16, "dropout": 0.0}
    config = Config.model_validate({"captions": {"engine": "vllm"}, "lora": lora})
    rows, held = pairs(num_rows), pairs(num_rows)[:2]
    tokenizer = load_tokenizer(EMBEDDED)
    examples, _ = encode_pairs(tokenizer, PromptTemplate.load(None), rows, config.lora.max_length)
    steps = epochs * -(-num_rows // 16)
    began = time.process_time()
    plain_loop(config, examples, int(tokenizer.pad_token_id))
    plain = time.process_time() - began
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        train_on_ray(rows, held, config.lora, config.captions, RunDir(folder), config.seed, {})
        job = time.process_time() - began
    lengths = [len(e.ids) for e in examples]
    shares = {
        f"padding_share_{'grouped' if grouped else 'random'}": padding_share(
            lengths, order_steps(lengths, 16, generator(0, "order"), grouped), 16
        )
        for grouped in (True, False)
    }
    return {"plain_s_per_step": plain / steps, "job_s_per_step": job / steps, "overhead": job / plain - 1, **shares}


def plain_loop(config: Config, examples: list[Example], pad: int) -> None:
    lora = config.lora
    model = add_adapter(load_base(EMBEDDED, lora, torch.device("cpu")), lora, derive(0, "lora", "weights"))
    model.train()
    optimizer = torch.optim.AdamW(trainable(model), lr=lora.learning_rate)
    for epoch in range(lora.epochs):
        rng = generator(config.seed, "lora", "epoch", epoch)
        for rows in order_steps([len(e.ids) for e in examples], lora.batch_size, rng, True):
            batch = collate([examples[i] for i in rows], pad)
            (answer_loss(model, batch) / batch["answer"].sum()).backward()
            torch.nn.utils.clip_grad_norm_(trainable(model), lora.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=256, help="rows to caption")
    parser.add_argument("--fit-rows", type=int, default=256, help="pairs to fit on")
    parser.add_argument("--skip-vllm", action="store_true")
    arguments = parser.parse_args()
    result: dict = {"machine": describe_machine()}
    result["fit"] = measure_fit(arguments.fit_rows)
    if not arguments.skip_vllm:
        connect(RayConfig(num_cpus=2, object_store_mb=300), quiet=True)
        stage, peer = measure_vllm(arguments.rows), measure_generate(arguments.rows)
        result["captions"] = {"vllm_stage": stage, "generate": peer}
        result["captions"]["ratio"] = stage["tokens_per_s"] / peer["tokens_per_s"]
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
