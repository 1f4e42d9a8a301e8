"""MusicGen's delay pattern as index arithmetic (Copet et al. 2023, section 2.2).

A clip is (codebooks, frames) of codes. The decoder reads and writes columns: column 0 holds the start token, and
codebook k of frame f stands in column f + 1 + delay[k]. Every place of a column that no frame reaches holds the start
token as well.
"""

from __future__ import annotations

import torch
from torch import Tensor

UNKNOWN = -1
"""Marks a place that is still to be decoded."""


def delays(num_codebooks: int, num_channels: int) -> list[int]:
    """How many frames each codebook lags: 0, 1, 2, 3; with the channels of stereo interleaved, 0, 0, 1, 1, ..."""
    return [codebook // num_channels for codebook in range(num_codebooks)]


def num_columns(num_frames: int, delay: list[int]) -> int:
    """Columns that hold `num_frames` frames, the start column included."""
    return num_frames + 1 + max(delay)


def to_columns(codes: Tensor, num_frames: int, delay: list[int], start_token: int) -> Tensor:
    """Lay known codes out in columns, and mark what is to be decoded.

    Args:
        codes: int64 (batch, codebooks, known frames); none known is (batch, codebooks, 0).
        num_frames: frames there will be in all.
        delay: lag of each codebook.
        start_token: fills the places that belong to no frame.

    Returns:
        int64 (batch, codebooks, columns).
    """
    batch, num_codebooks, known = codes.shape
    columns = codes.new_full((batch, num_codebooks, num_columns(num_frames, delay)), start_token)
    for codebook, lag in enumerate(delay):
        first = lag + 1
        columns[:, codebook, first : first + known] = codes[:, codebook]
        columns[:, codebook, first + known : first + num_frames] = UNKNOWN
    return columns


def to_codes(columns: Tensor, num_frames: int, delay: list[int]) -> Tensor:
    """The int64 (batch, codebooks, frames) codes in decoded columns."""
    return torch.stack(
        [columns[:, codebook, lag + 1 : lag + 1 + num_frames] for codebook, lag in enumerate(delay)], dim=1
    )


def frames_of_columns(columns: int, delay: list[int], device: torch.device) -> Tensor:
    """int64 (columns, codebooks): the frame whose code stands there; negative where there is none yet."""
    lags = torch.tensor(delay, device=device)
    return torch.arange(columns, device=device)[:, None] - 1 - lags
