"""What one recorded decoding step of our loop moves through a GPU's memory, counted without a GPU.

The step runs on the meta device, which has shapes and no data. Every operation but a view counts as a kernel of its
own that reads its inputs and writes its results, as it does where a step is recorded and nothing is fused behind our
back. The limit is the decoder's weights, and the keys and values of the columns so far, each read once; attention reads
whole blocks of columns. How near the kernels come to a memory's speed is not in these numbers.

    python benchmarks/musicgen_traffic.py [--shapes large] [--batches 1 8 32 64 96] [--columns 750] [--dtype bfloat16]
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

import torch
import transformers
from machine import describe_machine
from musicgen import GUIDANCE, SHAPES, TEXT_TOKENS, build
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from conceptcaps.audio.decoding import Decoder, Window
from conceptcaps.audio.sampling import Sampling
from conceptcaps.audio.transformer import Transformer

RESULTS = Path(__file__).parent / "results" / "musicgen_traffic.json"
FRAMES = 1500
VIEWS = {"view", "_unsafe_view", "transpose", "permute", "slice", "narrow", "expand", "select", "unsqueeze", "squeeze",
         "split", "chunk", "unbind", "reshape"}  # fmt: skip


class Traffic(TorchDispatchMode):
    """Bytes and calls of each operation."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.name().removeprefix("aten::")
        if not func.is_view and name not in VIEWS:
            self.bytes[name] += _moved(name, args, kwargs, result)
            self.calls[name] += 1
        return result


def _moved(name: str, args: Any, kwargs: Any, result: Any) -> int:
    if name == "index_copy_":  # the slice that is written
        return 2 * _size(args[3])
    if name in ("embedding", "index_select", "index.Tensor"):  # the rows that are looked up
        return 2 * _size(result)
    return sum(_size(leaf) for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor))


def _size(tensor: Tensor) -> int:
    """Bytes of what a tensor holds; what `expand` repeats is read once."""
    held = (n for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    return prod(held) * tensor.element_size()


class OneStep(Decoder):
    """Takes the first step that attends to so many columns, and skips the others: nothing hangs on their results."""

    def __init__(self, transformer: Transformer, columns: int):
        super().__init__(transformer, Sampling(GUIDANCE), 1, Window(FRAMES, FRAMES), recorded=True)
        self.columns, self.traffic = columns, Traffic()

    def step(self, run: Any, position: Any, length: int) -> None:
        if length >= self.columns and not self.traffic.calls:
            with self.traffic:
                super().step(run, position, length)


def measure(shape: str, batch: int, columns: int, dtype: torch.dtype) -> dict[str, Any]:
    model = build(shape, "meta", dtype)
    transformer = Transformer(model.decoder)
    decoder = OneStep(transformer, columns)
    states = torch.empty(batch, TEXT_TOKENS, transformer.hidden_size, device="meta", dtype=dtype)
    there = torch.ones(batch, TEXT_TOKENS, device="meta", dtype=torch.bool)
    decoder.generate(states, there, torch.zeros(batch, device="meta", dtype=torch.int64), FRAMES)
    weights = sum(p.numel() for p in model.decoder.parameters()) * dtype.itemsize
    cache = transformer.cache_bytes(columns, guided=True) * batch
    moved = sum(decoder.traffic.bytes.values())
    return {
        "shape": shape,
        "batch": batch,
        "columns": columns,
        "weights_gb": weights / 1e9,
        "keys_and_values_gb": cache / 1e9,
        "moved_gb": moved / 1e9,
        "moved_over_limit": moved / (weights + cache),
        "kernels": sum(decoder.traffic.calls.values()),
        "gb_by_operation": {name: size / 1e9 for name, size in decoder.traffic.bytes.most_common(6)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--shapes", nargs="+", default=["large"], choices=list(SHAPES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32, 64, 96], help="clips")
    parser.add_argument("--columns", type=int, default=750, help="columns so far; half of 30 s")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    dtype = getattr(torch, options.dtype)
    rows = [measure(shape, batch, options.columns, dtype) for shape in options.shapes for batch in options.batches]
    result = {"machine": describe_machine(), "dtype": options.dtype, "results": rows}
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
