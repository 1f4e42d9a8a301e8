"""Nucleus sampling of many rows at once, each by its own seed, without sorting the vocabulary.

On a CPU vLLM sorts the whole vocabulary of every row for every token, and keeps a generator for each row: at a few
hundred rows that costs more than a small model's step.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from conceptcaps.counter_random import gumbel, streams


def draw(logits: Tensor, seeds: Tensor, places: Tensor, temperature: Tensor, top_p: Tensor) -> Tensor:
    """One token for each row, int64 (rows,), by the Gumbel maximum trick over the row's nucleus.

    A token depends on its own row's logits, seed and place only, whatever rows stand beside it.

    Args:
        logits: float32 (rows, vocabulary).
        seeds: int64 (rows,).
        places: int64 (rows,), of the token in its caption.
        temperature: float32 (rows,), > 0.
        top_p: float32 (rows,) in (0, 1].
    """
    values, tokens = nucleus(logits / temperature[:, None], top_p)
    choice = (values + gumbel(streams(seeds, places), tokens)).argmax(-1, keepdim=True)
    return tokens.gather(-1, choice)[:, 0]


def nucleus(logits: Tensor, top_p: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens that may be drawn: of each row the fewest, likeliest first, with this mass (Holtzman et al. 2020).

    Args:
        logits: float32 (rows, vocabulary).
        top_p: float32 (rows,).

    Returns:
        Logits (rows, k), -inf where a token is ruled out, and ids (rows, k); k as the widest row needs.
    """
    vocabulary = logits.shape[-1]
    mass = logits.logsumexp(-1, keepdim=True)
    # Tokens less likely than this weigh less, all together, than the nucleus leaves out; so none of them is in it.
    least = mass + torch.log((1 - top_p[:, None]) / vocabulary)
    width = max(1, int((logits >= least).sum(-1).max()))
    values, tokens = logits.topk(width, dim=-1)
    upto = (values - mass).exp().cumsum(-1)
    outside = upto - (values - mass).exp() >= top_p[:, None]
    # Of equally likely tokens all stay or none: which comes first depends on how they were sorted.
    edge = values.masked_fill(outside, math.inf).amin(-1, keepdim=True)
    return values.masked_fill(values < edge, -math.inf), tokens
