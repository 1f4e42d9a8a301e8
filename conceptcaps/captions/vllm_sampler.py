"""What vLLM loads into a CPU engine: nucleus sampling by `captions.sampling` in place of its own.

A logits processor sees the logits of all rows before vLLM samples. This one draws every row's token itself and leaves
it as the likeliest, and vLLM is asked to take that (temperature 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from conceptcaps.captions.sampling import draw
from conceptcaps.captions.vllm import DRAW


@dataclass(frozen=True)
class Wanted:
    """How one row is sampled, and the tokens that it has so far: a list that vLLM appends to."""

    seed: int
    temperature: float
    top_p: float
    said: list[int]


class SeededNucleus(LogitsProcessor):
    """Draws the next token of every request that has `DRAW` in its extra arguments."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool):
        self.device = device
        self.wanted: dict[int, Wanted] = {}
        self.rows: list[int] = []

    def is_argmax_invariant(self) -> bool:
        """False: the likeliest token afterwards is the one drawn."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow requests as vLLM adds, removes and moves them in its batch."""
        if not process_dict_updates(self.wanted, batch_update, _read):
            return
        self.rows = sorted(self.wanted)
        own = [self.wanted[row] for row in self.rows]
        self.seeds = torch.tensor([w.seed for w in own], dtype=torch.int64, device=self.device)
        self.temperature = torch.tensor([w.temperature for w in own], device=self.device)
        self.top_p = torch.tensor([w.top_p for w in own], device=self.device)

    def apply(self, logits: Tensor) -> Tensor:
        """Logits (rows, vocabulary) in which a drawn token stands above all others."""
        if not self.rows:
            return logits
        places = torch.tensor([len(self.wanted[row].said) for row in self.rows], device=self.device)
        some = self.rows if len(self.rows) < len(logits) else slice(None)
        tokens = draw(logits[some], self.seeds, places, self.temperature, self.top_p)
        logits[self.rows, tokens] = torch.inf
        return logits


def _read(params: SamplingParams, prompt: list[int] | None, said: list[int]) -> Wanted | None:
    extra = (params.extra_args or {}).get(DRAW)
    return Wanted(int(extra["seed"]), extra["temperature"], extra["top_p"], said) if extra else None
