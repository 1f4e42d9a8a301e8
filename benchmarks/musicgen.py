"""Seconds per decoding step: our loop, transformers' `generate` in its variants, and the bare matrix products.

All of one shape and batch size run in turn, round after round, in one process, on random weights; on a GPU one after
the other, each with the memory to itself, since the caches of two need not fit. A step reads one
column of every clip with guidance (two rows per clip) and samples the next (top-k 250); text and EnCodec are left out.
The floor is what a step must multiply, and nothing else: the projections of both rows in the fastest of the kernels
tried, and the two attention products over the keys and values of the mean column. On a GPU they are replayed as one
recorded graph, so that launching them costs nothing.

    OMP_NUM_THREADS=2 python benchmarks/musicgen.py                      # CPU: 42 M and musicgen-small
    python benchmarks/musicgen.py --device cuda --shapes large --batches 1 8 32 64 96 --steps 1500 --dtype bfloat16
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor
from transformers import (
    EncodecConfig,
    MusicgenConfig,
    MusicgenDecoderConfig,
    MusicgenForConditionalGeneration,
    T5Config,
)

from conceptcaps.audio.decoding import Decoder, Window
from conceptcaps.audio.sampling import Sampling
from conceptcaps.audio.transformer import Linear, Transformer

SHAPES = {"42M": (512, 8, 8), "small": (1024, 24, 16), "medium": (1536, 48, 24), "large": (2048, 48, 32)}
"""Width, layers and heads."""
LAG, TEXT_TOKENS, GUIDANCE = 3, 24, 3.0
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
"""Wall time; or, with one thread on a machine shared with other work, the time this process had the processor."""
RESULTS = Path(__file__).parent / "results"
Run = Callable[[], Any]
Runs = dict[str, Callable[[], Run]]
"""What makes each contender; a contender is called once per round."""


def build(shape: str, device: str, dtype: torch.dtype) -> Any:
    """A random checkpoint whose decoder has this shape; its text encoder and codec are as small as can be."""
    width, layers, heads = SHAPES[shape]
    config = MusicgenConfig(
        text_encoder=T5Config(vocab_size=8, d_model=8, d_kv=8, d_ff=8, num_layers=1, num_heads=1).to_dict(),
        audio_encoder=EncodecConfig(
            target_bandwidths=[2.2], sampling_rate=800, hidden_size=8, codebook_size=2048, codebook_dim=8,
            num_filters=4, upsampling_ratios=[4, 2, 2], use_causal_conv=False, num_lstm_layers=1,
        ).to_dict(),
        decoder=MusicgenDecoderConfig(
            num_hidden_layers=layers, ffn_dim=4 * width, num_attention_heads=heads, hidden_size=width
        ).to_dict(),
    )  # fmt: skip
    with torch.device(device):
        model = MusicgenForConditionalGeneration(config)
    model = model.to(device, dtype).eval()
    for name in ("pad_token_id", "bos_token_id", "decoder_start_token_id"):
        setattr(model.generation_config, name, 2048)
    return model


def peers(model: Any, tokens: Tensor, steps: int, compiled: bool) -> Runs:
    """transformers' generate with a growing cache, with a static one (on a GPU it compiles itself), and compiled."""
    options = {"max_new_tokens": steps, "do_sample": True, "top_k": 250, "guidance_scale": GUIDANCE}

    def generate(**cache: Any) -> Tensor:
        return model.generate(input_ids=tokens, attention_mask=torch.ones_like(tokens), **options, **cache)

    static = partial(generate, cache_implementation="static")
    runs: Runs = {"transformers, dynamic cache": lambda: generate, "transformers, static cache": lambda: static}
    if compiled:
        eager, fast = model.decoder.forward, torch.compile(model.decoder.forward, dynamic=False)

        def generate_compiled() -> Tensor:
            model.decoder.forward = fast
            try:
                return static()
            finally:
                model.decoder.forward = eager

        runs["transformers, static cache, torch.compile"] = lambda: generate_compiled
    return runs


def ours(model: Any, tokens: Tensor, steps: int) -> Runs:
    """Our loop, with the same text encoder and codec around it and the same number of steps."""

    def make() -> Run:
        decoder = Decoder(Transformer(model.decoder), Sampling(GUIDANCE), 1, Window(2000, 1000))
        mask = torch.ones_like(tokens, dtype=torch.bool)
        seeds = torch.arange(len(tokens), device=tokens.device)

        def generate() -> Tensor:
            states = model.enc_to_dec_proj(model.text_encoder(input_ids=tokens).last_hidden_state)
            codes, _ = decoder.generate(states, mask, seeds, steps - LAG)
            return model.audio_encoder.decode(codes[None], [None]).audio_values

        return generate

    return {"ours": make}


def floors(shape: str, batch: int, steps: int, device: str, dtype: torch.dtype) -> Runs:
    """The products of `steps` steps: projections as a BLAS and as oneDNN does them, and attention."""
    width, layers, heads = SHAPES[shape]
    rows, context = 2 * batch, max(1, steps // 2)
    sizes = [*[(3 * width, width), (width, width), (width, width), (width, width)] * layers]
    sizes += [*[(4 * width, width), (width, 4 * width)] * layers, (4 * 2048, width)]
    draw = partial(torch.randn, device=device, dtype=dtype)

    def projections(make: Callable[[Tensor], Callable[[Tensor], Tensor]]) -> Run:
        inputs = {n: draw(rows, n) for n in (width, 4 * width)}
        products = [(make(draw(size)), size[1]) for size in sizes]
        return repeated(lambda: [product(inputs[n]) for product, n in products], steps, device)

    def attention() -> Run:
        query = draw(rows, heads, 1, 64)
        # On a GPU two layers' take turns: each is far larger than any of its caches, and all of them than its memory.
        own = layers if device == "cpu" else 2
        cache = [(draw(rows, heads, context, 64), draw(rows, heads, context, 64)) for _ in range(own)]
        pairs = [cache[i % own] for i in range(layers)]
        return repeated(lambda: [query @ key.mT @ value for key, value in pairs], steps, device)

    products: Runs = {
        "projections, BLAS": lambda: projections(lambda weight: partial(F.linear, weight=weight)),
        "attention products": attention,
    }
    return products | ({"projections, oneDNN packed": lambda: projections(Linear)} if device == "cpu" else {})


def repeated(step: Run, steps: int, device: str) -> Run:
    """`step`, `steps` times over; on a GPU as one recorded graph."""
    if device == "cuda":
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), torch.inference_mode():
            step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream), torch.inference_mode():
            step()
        step = graph.replay

    def run() -> None:
        for _ in range(steps):
            step()

    return run


Times = dict[str, float | None]


def time_all(runs: Runs, rounds: int, steps: int, device: str, clock: Callable[[], float]) -> Times:
    """Milliseconds per step, the least of `rounds`: the machine's other work only ever adds. None: out of memory."""
    if device == "cpu":
        made = {name: make() for name, make in runs.items()}
        turns = [{name: timed(run, device, clock) for name, run in made.items()} for _ in range(rounds + 1)]
        return {name: min(turn[name] for turn in turns[1:]) / steps * 1e3 for name in runs}  # the first one warms up
    best: Times = {}
    for name, make in runs.items():
        run: Run | None = None
        try:
            run = make()
            best[name] = min([timed(run, device, clock) for _ in range(rounds + 1)][1:]) / steps * 1e3
        except torch.OutOfMemoryError:
            best[name] = None
        run = None
        torch.cuda.empty_cache()
    return best


def timed(run: Run, device: str, clock: Callable[[], float]) -> float:
    start = clock()
    with torch.inference_mode():
        run()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def summary(times: Times) -> dict[str, Any]:
    """Ratios within one run, the only numbers that mean something elsewhere."""
    found = {name: t for name, t in times.items() if t is not None}
    told: dict[str, Any] = {"ms_per_step": {name: t and round(t, 3) for name, t in times.items()}}
    own, attention = found.get("ours"), found.get("attention products")
    if peers := [(t, name) for name, t in found.items() if name.startswith("transformers")]:
        told["best_peer"] = min(peers)[1]
        told["speedup_over_best_peer"] = own and round(min(peers)[0] / own, 3)
    if own and attention and "projections, BLAS" in found:
        floor = min(t for name, t in found.items() if name.startswith("projections")) + attention
        told["times_the_floor"] = round(own / floor, 3)
        told["times_the_floor_in_blas"] = round(own / (found["projections, BLAS"] + attention), 3)
    return told


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    dtype = getattr(torch, options.dtype)
    for shape in options.shapes:
        model = build(shape, options.device, dtype)
        for batch in options.batches:
            tokens = torch.randint(1, 8, (batch, TEXT_TOKENS), device=options.device)
            runs = ours(model, tokens, options.steps) | peers(model, tokens, options.steps, shape in options.compile)
            runs |= floors(shape, batch, options.steps, options.device, dtype)
            times = time_all(runs, options.rounds, options.steps, options.device, CLOCKS[options.clock])
            yield {"shape": shape, "batch": batch, "steps": options.steps, "dtype": options.dtype, **summary(times)}
            torch._dynamo.reset()


def machine(device: str) -> dict[str, Any]:
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "load_average": [round(x, 1) for x in os.getloadavg()],
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
    return f"{names[0]} ({os.cpu_count()} cores)" if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--shapes", nargs="+", default=["42M", "small"], choices=list(SHAPES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--steps", type=int, default=32, help="steps per clip; 1,500 is 30 s")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", nargs="*", default=["42M"], help="shapes that torch.compile is tried on")
    parser.add_argument("--clock", default="wall", choices=list(CLOCKS))
    parser.add_argument("--out", default=None, help="file name in benchmarks/results")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    rows = []
    for row in measure(options):
        rows.append(row)
        print(json.dumps(row, indent=1), flush=True)
        out = RESULTS / (options.out or f"musicgen-{options.device}.json")
        out.write_text(
            json.dumps({**machine(options.device), "clock": options.clock, "results": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
