"""Captions: the vLLM stage against transformers `generate`, and the LoRA fit against a plain loop, each in one run.

The vLLM stage is timed as it runs in the job, through ray.data.llm, once a quarter of the rows is through. Its peer
decodes the same prompts on the same checkpoint with the same sampling settings, in batches of the same size, and both
count the tokens of the captions that came out; so does the bare engine without Ray, which the stage can equal at best.
The fit's peer takes the same steps on the same batches without Ray, checkpoints or bookkeeping.

    python benchmarks/captions.py [--rows 4096] [--batch 256] [--fit-rows 128] [--only fit|captions|checks]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from machine import describe_machine

from conceptcaps.assets.corpus import load_corpus, load_taxonomy
from conceptcaps.assets.lm_quality import said, tag_sets
from conceptcaps.captions.evaluate import tag_measures
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
from conceptcaps.captions.vllm import EMBEDDED, engine_environment, engine_kwargs, load_tokenizer, sampling
from conceptcaps.config import Config, load
from conceptcaps.config.ray import RayConfig
from conceptcaps.rundir import RunDir
from conceptcaps.runtime import connect
from conceptcaps.schema import reason_code
from conceptcaps.seeding import derive, generator, row_identity

RESULTS = Path(__file__).parent / "results" / "captions.json"
FIT_BATCH = 16


def spec_rows(count: int) -> list[dict]:
    vocabulary, rows = load_taxonomy(), []
    for i, tags in enumerate(tag_sets("taxonomy", count)):
        name, seed = row_identity(0, i)
        said = vocabulary.columns([tag for group in tags.values() for tag in group])
        rows.append({"id": name, "seed": seed, "attempt": 0, **said})
    return rows


def measure_checks(num_rows: int) -> dict[str, object]:
    """The demo's captions, with its candidates, rounds and checks, on unseen tag sets: what is accepted and says all.

    The checks decide what is accepted, so a second, stricter reader counts too: word for word, at word borders.
    """
    import pyarrow as pa
    import ray.data

    from conceptcaps.pipelines.captions import build_caption_processor
    from conceptcaps.pipelines.steps import CAPTIONED

    config = load(Path(__file__).parents[1] / "configs" / "demo.yaml", ["run_dir=none"])
    asked = ray.data.from_arrow(pa.Table.from_pylist(spec_rows(num_rows), schema=CAPTIONED))
    made = build_caption_processor(config)(asked.repartition(4)).take_all()
    good = [row for row in made if row["status"] is None]
    captions, tags = [row["caption"] for row in good], [row["aspect_list"] for row in good]
    strict = [all(said(tag, caption) for tag in row) for caption, row in zip(captions, tags, strict=True)]
    return {
        "rows": num_rows,
        "candidates": config.captions.candidates,
        "rounds": config.captions.rounds,
        "accepted": len(good),
        "reasons": dict(Counter(reason_code(row["reason"]) for row in made if row["reason"])),
        "complete_word_for_word": sum(strict) / max(1, len(strict)),
        **tag_measures(captions, tags, load_taxonomy().tags),
    }


def serving(batch: int) -> Config:
    served = {"dtype": "float32", "max_model_len": 512, "max_num_seqs": batch, "gpu_memory_utilization": 0.2}
    captions = {"engine": "vllm", "vllm": served, "resources": {"num_cpus": 0.5, "batch_size": batch}}
    return Config.model_validate({"captions": captions | {"checks": {"min_words": 1, "max_words": 500}}})


def count_tokens(captions: list[str]) -> int:
    tokenizer = load_tokenizer(EMBEDDED)
    return sum(len(ids) + 1 for ids in tokenizer(captions, add_special_tokens=False)["input_ids"])


def measure_vllm(num_rows: int, batch: int) -> dict[str, float]:
    """Tokens per second of the stage as it runs in a job, from its first quarter of the rows to its last."""
    import pyarrow as pa
    import ray.data

    from conceptcaps.pipelines.captions import build_caption_processor
    from conceptcaps.pipelines.steps import CAPTIONED

    table = pa.Table.from_pylist(spec_rows(num_rows), schema=CAPTIONED)
    rows = ray.data.from_arrow(table).repartition(max(4, num_rows // (2 * batch)))
    began = time.perf_counter()
    arrived: list[tuple[float, list[str]]] = []
    for made in build_caption_processor(serving(batch))(rows).iter_batches(batch_size=None, batch_format="pyarrow"):
        arrived.append((time.perf_counter() - began, [c or "" for c in made["caption"].to_pylist()]))
    first = next(i for i in range(len(arrived)) if sum(len(c) for _, c in arrived[: i + 1]) >= num_rows / 4)
    tokens = sum(count_tokens(captions) for _, captions in arrived[first + 1 :])
    seconds = arrived[-1][0] - arrived[first][0]
    return {"tokens_per_s": tokens / seconds, "seconds": seconds, "tokens": tokens, "first_block_s": arrived[0][0]}


def measure_engine(num_rows: int, batch: int) -> dict[str, float]:
    """Tokens per second of the bare vLLM engine, given all requests at once: what the stage can at best reach."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.inputs import TokensPrompt
    from vllm.sampling_params import RequestOutputKind, SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

    captions = serving(batch).captions
    tokenizer, template = load_tokenizer(EMBEDDED), PromptTemplate.load(None)
    rows = spec_rows(batch + num_rows)
    prompts = [TokensPrompt(prompt_token_ids=prompt_ids(tokenizer, template.messages(row))) for row in rows]
    settings = [sampling(captions, row["seed"], 0) | {"output_kind": RequestOutputKind.FINAL_ONLY} for row in rows]

    async def one(engine: AsyncLLM, i: int) -> int:
        async for reply in engine.generate(prompts[i], SamplingParams(**settings[i]), request_id=str(i)):
            tokens = len(reply.outputs[0].token_ids)
        return tokens

    async def all_of_them() -> dict[str, float]:
        arguments = engine_kwargs(captions.vllm, "cpu")
        engine = AsyncLLM.from_engine_args(AsyncEngineArgs(model=str(EMBEDDED), **arguments))
        await asyncio.gather(*(one(engine, i) for i in range(batch)))  # warms up
        began = time.perf_counter()
        tokens = sum(await asyncio.gather(*(one(engine, i) for i in range(batch, len(rows)))))
        seconds = time.perf_counter() - began
        engine.shutdown()
        return {"tokens_per_s": tokens / seconds, "seconds": seconds, "tokens": tokens}

    os.environ.update(engine_environment(captions))
    return asyncio.run(all_of_them())


def measure_generate(num_rows: int, batch: int) -> dict[str, float]:
    """Tokens per second of transformers on the same prompts."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32).eval()
    template, rows = PromptTemplate.load(None), spec_rows(batch + num_rows)
    captions: list[str] = []
    began = 0.0
    for start in range(0, len(rows), batch):
        if start == batch:  # the first batch warms up
            began, captions = time.perf_counter(), []
        asked = [{"input_ids": prompt_ids(tokenizer, template.messages(r))} for r in rows[start : start + batch]]
        padded = tokenizer.pad(asked, return_tensors="pt")
        said = model.generate(**padded, do_sample=True, temperature=0.7, top_p=0.9, top_k=0, max_new_tokens=160)
        captions += tokenizer.batch_decode(said[:, padded["input_ids"].shape[1] :], skip_special_tokens=True)
    seconds, tokens = time.perf_counter() - began, count_tokens(captions)
    return {"tokens_per_s": tokens / seconds, "seconds": seconds, "tokens": tokens}


def pairs(count: int) -> list[dict]:
    import ast

    vocabulary = load_taxonomy()
    rows = load_corpus()[:count]
    return [{"caption": r["caption"], **vocabulary.columns(ast.literal_eval(r["aspect_list"]))} for r in rows]


def measure_fit(num_rows: int, repeats: int = 3) -> dict[str, object]:
    """CPU seconds per optimiser step of the Ray Train job (in this process) and of a plain loop, and their ratio.

    Each is the difference between three epochs and one, so that loading the model and writing the adapter count for
    nothing; the two take turns, and medians of the turns are given.
    """
    rows = pairs(num_rows)
    tokenizer = load_tokenizer(EMBEDDED)
    examples, _ = encode_pairs(tokenizer, PromptTemplate.load(None), rows, 512)
    pad, steps = int(tokenizer.pad_token_id), -(-num_rows // FIT_BATCH)
    runs: dict[str, Callable[[int], None]] = {
        "plain": lambda epochs: plain_loop(fit_config(epochs), examples, pad, grouped=True),
        "job": lambda epochs: run_job(fit_config(epochs), rows),
        "plain_ungrouped": lambda epochs: plain_loop(fit_config(epochs), examples, pad, grouped=False),
    }
    turns = [{name: (cpu_seconds(run, 3) - cpu_seconds(run, 1)) / (2 * steps) for name, run in runs.items()}
             for _ in range(repeats)]  # fmt: skip
    median = {name: statistics.median(turn[name] for turn in turns) for name in runs}
    lengths = [len(e.ids) for e in examples]
    shares = {
        f"padding_share_{'grouped' if grouped else 'random'}": padding_share(
            lengths, order_steps(lengths, FIT_BATCH, generator(0, "order"), grouped), FIT_BATCH
        )
        for grouped in (True, False)
    }
    return {
        "pairs": num_rows,
        "cpu_s_per_step": median,
        "cpu_s_per_step_by_turn": turns,
        "overhead": statistics.median(turn["job"] / turn["plain"] for turn in turns) - 1,
        "gain_of_grouping": median["plain_ungrouped"] / median["plain"],
        **shares,
    }


def fit_config(epochs: int) -> Config:
    lora = {"epochs": epochs, "patience": epochs, "batch_size": FIT_BATCH, "micro_batch_size": FIT_BATCH}
    return Config.model_validate({"captions": {"engine": "vllm"}, "lora": lora | {"dropout": 0.0}})


def cpu_seconds(run: Callable[[int], None], epochs: int) -> float:
    began = time.process_time()
    run(epochs)
    return time.process_time() - began


def run_job(config: Config, rows: list[dict]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        # Two held-out pairs: the validation of a job is not a step.
        train_on_ray(rows, rows[:2], config.lora, config.captions, RunDir(folder), config.seed, {})


def plain_loop(config: Config, examples: list[Example], pad: int, grouped: bool) -> None:
    lora = config.lora
    model = add_adapter(load_base(EMBEDDED, lora, torch.device("cpu")), lora, derive(0, "lora", "weights"))
    model.train()
    optimizer = torch.optim.AdamW(trainable(model), lr=lora.learning_rate)
    for epoch in range(lora.epochs):
        rng = generator(config.seed, "lora", "epoch", epoch)
        for rows in order_steps([len(e.ids) for e in examples], lora.batch_size, rng, grouped):
            batch = collate([examples[i] for i in rows], pad)
            (answer_loss(model, batch) / batch["answer"].sum()).backward()
            torch.nn.utils.clip_grad_norm_(trainable(model), lora.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=4096, help="rows to caption; a quarter of them for the checks")
    parser.add_argument("--batch", type=int, default=256, help="requests decoded together, by either")
    parser.add_argument("--fit-rows", type=int, default=128, help="pairs to fit on")
    parser.add_argument("--only", choices=("fit", "captions", "checks"), help="one part; the others' results are kept")
    arguments = parser.parse_args()
    result: dict = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    wanted = (arguments.only,) if arguments.only else ("fit", "captions", "checks")
    if "fit" in wanted:
        result["fit"] = {"machine": describe_machine(), **measure_fit(arguments.fit_rows)}
    if "captions" in wanted or "checks" in wanted:
        connect(RayConfig(num_cpus=2, object_store_mb=300), quiet=True)
    if "captions" in wanted:
        ways = {"vllm_stage": measure_vllm, "vllm_engine": measure_engine, "generate": measure_generate}
        found = {name: measure(arguments.rows, arguments.batch) for name, measure in ways.items()}
        for name in ("generate", "vllm_engine"):
            found[f"over_{name}"] = found["vllm_stage"]["tokens_per_s"] / found[name]["tokens_per_s"]
        found["batch"] = arguments.batch
        result["captions"] = {"machine": describe_machine(), **found}
    if "checks" in wanted:
        result["checks"] = {"machine": describe_machine(), **measure_checks(arguments.rows // 4)}
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
