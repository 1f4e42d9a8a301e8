"""The feature extractor of CLAP in torch: batched, on the model's device, and deterministic."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional

_FLOOR = 1e-10


class MelFrontEnd:
    """Log-mel inputs equal to those of transformers' `ClapFeatureExtractor`, where that one draws nothing at random.

    Where it draws (which part of a long clip is heard), this one is deterministic: without fusion a long clip is cut
    into evenly spaced windows that cover it, and with fusion the crops are the middles of the thirds that the
    extractor draws from.

    Args:
        extractor: the checkpoint's own feature extractor, for its settings and its filter bank.
        device: where to compute.
    """

    def __init__(self, extractor: Any, device: torch.device):
        self.sampling_rate: int = extractor.sampling_rate
        self.fusion: bool = extractor.truncation == "fusion"
        self.padding: str = extractor.padding
        self.window_samples: int = extractor.nb_max_samples
        self.hop: int = extractor.hop_length
        self.fft_size: int = extractor.fft_window_size
        filters = extractor.mel_filters if self.fusion else extractor.mel_filters_slaney
        # Quiet bands beside loud ones lose their digits in single precision, as the extractor's do not.
        self.dtype = torch.float64
        self.filters = torch.as_tensor(np.asarray(filters), dtype=self.dtype, device=device)
        self.taper = torch.hann_window(self.fft_size, dtype=self.dtype, device=device)
        self.device = device

    def windows(self, waveform: np.ndarray) -> list[np.ndarray]:
        """What is heard of a (samples,) clip: itself padded, or windows that cover it; with fusion, the whole."""
        wanted, size = self.window_samples, waveform.shape[0]
        if size <= wanted:
            return [self._pad(waveform)]
        if self.fusion:
            return [waveform]
        starts = np.linspace(0, size - wanted, math.ceil(size / wanted)).round().astype(int)
        return [waveform[start : start + wanted] for start in starts]

    def _pad(self, waveform: np.ndarray) -> np.ndarray:
        wanted, size = self.window_samples, waveform.shape[0]
        if size and self.padding == "repeat":
            return np.resize(waveform, wanted)
        if size and self.padding == "repeatpad":
            waveform = np.tile(waveform, wanted // size)
        return np.pad(waveform, (0, wanted - waveform.shape[0]))

    def features(self, windows: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Model inputs of windows of one length.

        Returns:
            float32 (num_windows, 1 or 4, num_frames, num_mels) `input_features`, and bool (num_windows, 1) `is_longer`.
        """
        mel = self.log_mel(np.stack(windows))
        if not self.fusion:
            return mel[:, None], torch.zeros(len(windows), 1, dtype=torch.bool, device=self.device)
        chunk = self.window_samples // self.hop + 1
        longer = windows[0].shape[0] > self.window_samples and mel.shape[1] != chunk
        fused = self._fuse(mel, chunk) if longer else mel[:, None].expand(-1, 4, -1, -1)
        return fused, torch.full((len(windows), 1), longer, device=self.device)

    def log_mel(self, waveforms: np.ndarray) -> torch.Tensor:
        """float32 (num_windows, num_frames, num_mels), decibels, of (num_windows, samples)."""
        waves = torch.as_tensor(waveforms, device=self.device)
        # On a CPU one at a time: the spectra of many, in double precision, are too large for its caches.
        parts = waves.split(1) if self.device.type == "cpu" else (waves,)
        return torch.cat([self._log_mel(part) for part in parts])

    def _log_mel(self, waves: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(
            waves.to(self.dtype),
            self.fft_size,
            self.hop,
            window=self.taper,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        power = spectrum.real.square() + spectrum.imag.square()
        mel = torch.einsum("nft,fm->ntm", power, self.filters)
        return (10 * torch.log10(mel.clamp_min(_FLOOR))).float()

    @staticmethod
    def _fuse(mel: torch.Tensor, chunk: int) -> torch.Tensor:
        """The whole clip shrunk to one window, and three crops of it (Wu et al. 2023, section 2.3)."""
        thirds = np.array_split(np.arange(mel.shape[1] - chunk + 1), 3)
        starts = [int(third[len(third) // 2]) if len(third) else 0 for third in thirds]
        shrunk = functional.interpolate(mel[:, None], size=(chunk, mel.shape[2]), mode="bilinear", align_corners=False)
        return torch.cat([shrunk, *(mel[:, None, start : start + chunk] for start in starts)], dim=1)
