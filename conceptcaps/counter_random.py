"""Random numbers as a function of (seed, place, token): the same bits on every device, in every batch and order.

The generator is SplitMix64 (Steele, Lea and Flood 2014) read as a function of its counter, in integer tensor
operations.
"""

from __future__ import annotations

import torch
from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64


def streams(seeds: Tensor, places: Tensor) -> Tensor:
    """One stream of random numbers for each seed and place, int64 of the broadcast shape.

    Args:
        seeds: int64.
        places: int64 >= 0, of a shape that broadcasts with the seeds'.
    """
    return _at(mix(seeds), places)


def gumbel(keys: Tensor, tokens: Tensor) -> Tensor:
    """Standard Gumbel noise, float32, for tokens (..., n) of the streams `keys` (...)."""
    bits = (_at(keys[..., None], tokens) >> 41) & (2**23 - 1)
    # Half a step off either end, so that neither logarithm meets 0; log1p keeps the large values' precision.
    uniform = (bits.to(torch.float32) + 0.5) * 2**-23
    return -torch.log(-torch.log1p(-uniform))


def mix(z: Tensor) -> Tensor:
    """SplitMix64's output function on int64 bit patterns."""
    z = (z ^ _shift(z, 30)) * _FIRST
    z = (z ^ _shift(z, 27)) * _SECOND
    return z ^ _shift(z, 31)


def _at(state: Tensor, counter: Tensor) -> Tensor:
    """Number `counter` of the stream that starts at `state`."""
    return mix(state + (counter + 1) * _GAMMA)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical shift to the right: int64's own is arithmetic."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
