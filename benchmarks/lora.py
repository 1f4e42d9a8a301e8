"""LoRA on real captions: held-out perplexity before and after, and how many tags the captions of unseen sets say.

    python benchmarks/lora.py PAIRS_CSV [--model PATH] [--fits light long] [--unsaid keep drop say]

The pairs are split once; a tenth of the captions is held out. The base model and an adapter for each way to treat tags
that a pair's caption leaves out (`lora.unsaid_tags`) then caption the held-out tag sets by plain transformers, with the
prompt and the sampling of a run. The human captions of those sets stand beside them.
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


FITS = {
    "light": {"r": 8, "alpha": 16, "learning_rate": 2e-4, "epochs": 1},
    "long": {"r": 32, "alpha": 64, "learning_rate": 3e-3, "epochs": 6},
}
"""A light fit keeps what the packaged model does best, to say the words it is given; a long one learns how people write
and pays for it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pairs", help="CSV with `caption` and `<category>_tags`")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--fits", nargs="+", choices=FITS, default=list(FITS), help="the others' results are kept")
    parser.add_argument("--unsaid", nargs="+", choices=["keep", "drop", "say"], default=["keep", "drop", "say"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    result: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    result["machine"] = describe_machine()
    config = Config.model_validate({"captions": {"engine": "vllm", "vllm": {"model": arguments.model}}})
    fitting, held = split_pairs(read_pairs(arguments.pairs), config.lora.validation_fraction, config.seed)
    result["pairs"] = {"train": len(fitting), "held_out": len(held)}
    result["human"] = measured([row["caption"] for row in held], held)
    source = model_source(config.captions.vllm)
    base = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    result["base"] = measured(generate(base, held, config.captions, config.seed), held)
    for name in arguments.fits:
        settings = FITS[name] | {"batch_size": 16, "micro_batch_size": 16, "dropout": 0.0}
        result[name] = {"settings": settings}
        for unsaid in arguments.unsaid:
            lora = config.lora.model_copy(update=settings | {"unsaid_tags": unsaid})
            result[name][unsaid] = fit_and_measure(config.model_copy(update={"lora": lora}), fitting, held)
            arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def fit_and_measure(config: Config, fitting: list[dict[str, Any]], held: list[dict[str, Any]]) -> dict[str, Any]:
    """Both perplexities of the held-out captions, and the measures of the captions made."""
    import peft

    with tempfile.TemporaryDirectory() as folder:
        run, began = RunDir(folder), time.perf_counter()
        made = train_on_ray(fitting, held, config.lora, config.captions, run, config.seed, {})
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
