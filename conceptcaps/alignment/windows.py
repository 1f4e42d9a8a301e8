"""What aligners share: clips longer than the model hears are heard in windows, and texts are embedded once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np

from conceptcaps import signal

_CACHED_TEXTS = 65_536


def unit(vectors: np.ndarray) -> np.ndarray:
    """Each (..., dim) vector divided by its length."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(norms, np.finfo(np.float32).tiny)


def pooled(windows: Sequence[np.ndarray]) -> np.ndarray:
    """float32 (num_clips, dim), unit length: the normalised mean over each clip's (num_windows, dim)."""
    return unit(np.stack([clip.sum(0) for clip in windows])) if windows else np.zeros((0, 0), np.float32)


class WindowedAligner(ABC):
    """An aligner but for its model.

    Args:
        sampling_rate: Hz, of what the model hears.
        dim: of its space.
        batch_size: most windows or texts per forward pass.
    """

    def __init__(self, sampling_rate: int, dim: int, batch_size: int):
        self.sampling_rate, self.dim, self.batch_size = sampling_rate, dim, batch_size
        self._texts: dict[str, np.ndarray] = {}

    @abstractmethod
    def windows(self, waveform: np.ndarray) -> list[np.ndarray]:
        """What the model hears of a (samples,) clip, one window or several."""

    @abstractmethod
    def forward_windows(self, windows: list[np.ndarray]) -> np.ndarray:
        """float32 (num_windows, dim) of windows of one length; any length of vector."""

    @abstractmethod
    def forward_texts(self, texts: list[str]) -> np.ndarray:
        """float32 (num_texts, dim); any length of vector."""

    def embed_windows(self, waveforms: Sequence[np.ndarray], sampling_rate: int) -> list[np.ndarray]:
        """For each (channels, samples) waveform of `sampling_rate` Hz float32 (num_windows, dim), unit length.

        Raises:
            ValueError: a clip without samples.
        """
        heard: list[np.ndarray] = []
        counts: list[int] = []
        for i, waveform in enumerate(waveforms):
            if not waveform.size:
                raise ValueError(f"clip {i} has no samples")
            own = self.windows(signal.downmix(signal.resample(waveform, sampling_rate, self.sampling_rate)))
            heard += own
            counts.append(len(own))
        found = np.zeros((len(heard), self.dim), np.float32)
        for batch in self._batches([window.shape[0] for window in heard]):
            found[batch] = unit(self.forward_windows([heard[i] for i in batch]))
        return np.split(found, np.cumsum(counts)[:-1]) if counts else []

    def embed_audio(self, waveforms: Sequence[np.ndarray], sampling_rate: int) -> np.ndarray:
        """float32 (num_clips, dim), unit length: the mean over each clip's windows; errors as of `embed_windows`."""
        return pooled(self.embed_windows(waveforms, sampling_rate))

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (num_texts, dim), unit length. Embeddings of recent texts are kept."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if len(self._texts) + len(missing) > _CACHED_TEXTS:
            self._texts.clear()
            missing = list(dict.fromkeys(texts))
        # Neighbours of like length waste little padding.
        missing.sort(key=len)
        for start in range(0, len(missing), self.batch_size):
            batch = missing[start : start + self.batch_size]
            self._texts.update(zip(batch, unit(self.forward_texts(batch)), strict=True))
        return np.stack([self._texts[text] for text in texts]) if texts else np.zeros((0, self.dim), np.float32)

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Indices of windows, equal lengths together, at most `batch_size` at a time."""
        for length in dict.fromkeys(lengths):
            alike = [i for i, other in enumerate(lengths) if other == length]
            for start in range(0, len(alike), self.batch_size):
                yield alike[start : start + self.batch_size]
