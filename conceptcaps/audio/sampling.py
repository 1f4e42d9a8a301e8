"""Sampling of tokens with a random number of its own for every (seed, frame, codebook, token).

Tokens are drawn with the Gumbel maximum trick, so that a row's draw reads its own logits and its own numbers only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from conceptcaps.counter_random import gumbel, streams


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn from logits.

    Attributes:
        guidance_scale: classifier-free guidance; 1 is none (Ho and Salimans 2022).
        top_k: sample among this many tokens; 0: all; 1: the likeliest, which draws nothing.
        top_p: nucleus sampling instead of top-k where positive: the smallest set of tokens with this mass.
        temperature: logits are divided by this.
    """

    guidance_scale: float = 3.0
    top_k: int = 250
    top_p: float = 0.0
    temperature: float = 1.0


def row_keys(seeds: Tensor, frames: Tensor, num_codebooks: int) -> Tensor:
    """One stream of random numbers for each row, frame and codebook.

    Args:
        seeds: int64 (batch,).
        frames: int64 (columns, codebooks), the frame of each place.
        num_codebooks: codebooks per frame.

    Returns:
        int64 (columns, batch, codebooks).
    """
    places = frames * num_codebooks + torch.arange(num_codebooks, device=frames.device)
    return streams(seeds[None, :, None], places[:, None, :])


def sample(logits: Tensor, keys: Tensor, sampling: Sampling) -> Tensor:
    """Draw tokens, int64 (batch, codebooks).

    Args:
        logits: float32 (batch, codebooks, vocabulary), guided already.
        keys: int64 (batch, codebooks), from `row_keys`.
        sampling: how to draw.
    """
    if sampling.top_k == 1 and not sampling.top_p:
        return logits.argmax(-1)
    values, tokens = _candidates(logits / sampling.temperature, sampling)
    choice = (values + gumbel(keys, tokens)).argmax(-1, keepdim=True)
    return tokens.gather(-1, choice).squeeze(-1)


def guide(logits: Tensor, guidance_scale: float) -> Tensor:
    """Classifier-free guidance: (2 * batch, ...) logits, conditional rows first, to (batch, ...)."""
    conditional, unconditional = logits.chunk(2)
    return unconditional + (conditional - unconditional) * guidance_scale


def _candidates(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Logits and ids of the tokens that may be drawn; a ruled-out token has logit -inf."""
    vocabulary = logits.shape[-1]
    if sampling.top_p:
        values, tokens = logits.sort(stable=True, dim=-1, descending=True)
        mass = values.softmax(-1).cumsum(-1)
        before = torch.cat([torch.zeros_like(mass[..., :1]), mass[..., :-1]], -1)
        return values.masked_fill(before >= sampling.top_p, -torch.inf), tokens
    if 0 < sampling.top_k < vocabulary:
        values, tokens = logits.topk(sampling.top_k, sorted=False)
        return values, tokens
    return logits, torch.arange(vocabulary, device=logits.device).expand_as(logits)
