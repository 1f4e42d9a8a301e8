"""LoRA on real captions: held-out perplexity before and after, and how many tags the captions of unseen sets say.

    python benchmarks/lora.py PAIRS_CSV [--model PATH] [--epochs 6] [--rank 32] [--rate 3e-3]

The pairs are split once; a tenth of the captions is held out. The base model, an adapter fitted on all tags of each
pair and one fitted on the tags that its caption says (`lora.said_tags_only`) then caption the held-out tag sets by
plain transformers, with the prompt and the sampling of a run. The human captions of those sets stand beside them.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from machine import describe_machine
from transformers import AutoModelForCausalLM

from conceptcaps.captions.evaluate import measure
from conceptcaps.captions.generate import generate
from conceptcaps.captions.lora import read_pairs, row_tags, split_pairs
from conceptcaps.captions.train import ADAPTER, train_on_ray
from conceptcaps.captions.vllm import model_source
from conceptcaps.config import Config
from conceptcaps.rundir import RunDir

RESULTS = Path(__file__).parent / "results" / "lora.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pairs", help="CSV with `caption` and `<category>_tags`")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    settings = {"r": arguments.rank, "alpha": 2 * arguments.rank, "learning_rate": arguments.rate}
    settings |= {"epochs": arguments.epochs, "batch_size": 16, "micro_batch_size": 16, "dropout": 0.0}
    config = Config.model_validate(
        {"captions": {"engine": "vllm", "vllm": {"model": arguments.model}}, "lora": settings}
    )
    fitting, held = split_pairs(read_pairs(arguments.pairs), config.lora.validation_fraction, config.seed)
    result: dict[str, Any] = {"machine": describe_machine(), "settings": settings}
    result["pairs"] = {"train": len(fitting), "held_out": len(held)}
    result["human"] = measured([row["caption"] for row in held], held)
    source = model_source(config.captions.vllm)
    base = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    result["base"] = measured(generate(base, held, config.captions, config.seed), held)
    for name, said_only in (("all_tags", False), ("said_tags_only", True)):
        result[name] = fit_and_measure(config, said_only, fitting, held)
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def fit_and_measure(
    config: Config, said_only: bool, fitting: list[dict[str, Any]], held: list[dict[str, Any]]
) -> dict[str, Any]:
    """Both perplexities of the held-out captions, and the measures of the captions made."""
    import peft

    lora = config.lora.model_copy(update={"said_tags_only": said_only})
    with tempfile.TemporaryDirectory() as folder:
        run, began = RunDir(folder), time.perf_counter()
        made = train_on_ray(fitting, held, lora, config.captions, run, config.seed, {})
        seconds = time.perf_counter() - began
        base = AutoModelForCausalLM.from_pretrained(model_source(config.captions.vllm), dtype=torch.float32)
        adapted = peft.PeftModel.from_pretrained(base, run.path(*ADAPTER))
        said = generate(adapted.merge_and_unload(), held, config.captions, config.seed)
    return {
        "base_perplexity": math.exp(made["base_loss"]),
        "perplexity": math.exp(made["best_loss"]),
        "ratio": math.exp(made["best_loss"] - made["base_loss"]),
        "perplexity_by_epoch": [record["validation_perplexity"] for record in made["history"]],
        "fit_seconds": seconds,
        "counts": made["counts"],
        **measured(said, held),
    }


def measured(captions: list[str], held: list[dict[str, Any]]) -> dict[str, Any]:
    found = measure(captions, [row_tags(row) for row in held], [row["caption"] for row in held])
    return {name: value for name, value in found.values.items() if value is not None}


if __name__ == "__main__":
    main()
