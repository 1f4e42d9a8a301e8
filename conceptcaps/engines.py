"""What a captioner, a synthesiser and an aligner are.

An engine is built from its config section inside the worker that uses it, owns its weights, and answers one batched
call. It knows no Ray, no statuses and no files: it raises on a row it cannot do, and the pipeline finds the row.
A batch is a dict of equally long Python lists, one per column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

Batch = dict[str, list[Any]]


class Captioner(Protocol):
    """Tags to captions."""

    def __call__(self, batch: Batch) -> list[str]:
        """One caption per row, from the aspect columns (`schema.ASPECT_COLUMNS`) and `seed`."""
        ...


class Synthesiser(Protocol):
    """Captions to audio."""

    sampling_rate: int
    """Hz, of everything this engine returns."""

    def __call__(self, batch: Batch) -> list[np.ndarray]:
        """One float32 (channels, samples) waveform in [-1, 1] per row.

        Reads `caption`, the aspect columns and `seed` (here the seed of this take). A row's waveform depends on its
        own values only, never on the rest of the batch.
        """
        ...


class Aligner(Protocol):
    """Audio and text to one space."""

    def embed_windows(self, waveforms: Sequence[np.ndarray], sampling_rate: int) -> list[np.ndarray]:
        """For each (channels, samples) waveform float32 (num_windows, dim), unit length: a long clip has several."""
        ...

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (num_texts, dim), unit length."""
        ...
