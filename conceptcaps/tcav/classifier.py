"""A log-mel genre classifier with named layers, small enough to read; waveforms in, logits out."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from conceptcaps.errors import InputError


@dataclass(frozen=True)
class ClassifierShape:
    """What must be known to rebuild a classifier.

    Args:
        classes: the labels, in logit order.
        sampling_rate: Hz, of the waveforms it takes.
        num_mels: mel bands.
        n_fft: samples per analysis window.
        hop_length: samples between windows.
        width: channels of the first block; later blocks have more.
        num_blocks: convolution blocks; each halves time and frequency, so each doubles what a position sees.
        bottleneck_dim: units of the dense layer that reads the pooled blocks.
        dropout: before the head.
    """

    classes: tuple[str, ...]
    sampling_rate: int = 16_000
    num_mels: int = 64
    n_fft: int = 1024
    hop_length: int = 320
    width: int = 16
    num_blocks: int = 5
    bottleneck_dim: int = 256
    dropout: float = 0.2


class LogMel(nn.Module):
    """Log-mel spectrogram on the device of its input: float (num_clips, samples) -> (num_clips, num_mels, frames)."""

    window: Tensor
    bank: Tensor

    def __init__(self, sampling_rate: int, n_fft: int, hop_length: int, num_mels: int):
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        bank = torch.from_numpy(mel_bank(sampling_rate, n_fft, num_mels)).float()
        self.register_buffer("bank", bank, persistent=False)

    def forward(self, waveforms: Tensor) -> Tensor:
        with torch.autocast(waveforms.device.type, enabled=False):
            spectrum = torch.stft(
                waveforms.float(), self.n_fft, self.hop_length, window=self.window, return_complex=True
            )
            return torch.log(self.bank @ (spectrum.real**2 + spectrum.imag**2) + 1e-5)


def mel_bank(sampling_rate: int, n_fft: int, num_mels: int) -> np.ndarray:
    """float64 (num_mels, n_fft/2 + 1): triangles evenly spaced on the mel scale (O'Shaughnessy), each summing to 1."""
    top = 2595 * np.log10(1 + sampling_rate / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, num_mels + 2) / 2595) - 1)
    bins = np.linspace(0, sampling_rate / 2, n_fft // 2 + 1)
    width = sampling_rate / n_fft  # no triangle narrower than a bin, or low bands would be empty
    low, mid, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rise = (bins - np.minimum(low, mid - width)) / np.maximum(mid - low, width)
    fall = (np.maximum(high, mid + width) - bins) / np.maximum(high - mid, width)
    bank = np.maximum(0, np.minimum(rise, fall))
    return bank / bank.sum(1, keepdims=True)


class SpecAugment(nn.Module):
    """Blank one band of mels and one of frames per clip in training (Park et al. 2019)."""

    def __init__(self, fraction: float = 0.15):
        super().__init__()
        self.fraction = fraction

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.fraction <= 0:
            return x
        for axis in (-2, -1):
            size = x.shape[axis]
            width = torch.rand(len(x), 1, device=x.device) * self.fraction * size
            start = torch.rand(len(x), 1, device=x.device) * (size - width)
            place = torch.arange(size, device=x.device)[None]
            masked = (place >= start) & (place < start + width)
            x = x.masked_fill(masked[:, None, :, None] if axis == -2 else masked[:, None, None, :], 0.0)
        return x


class Block(nn.Module):
    """Convolution, batch norm, ReLU, and half the time and frequency."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.pool = nn.AvgPool2d(2, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(torch.relu(self.norm(self.convolution(x))))


class GenreClassifier(nn.Module):
    """Blocks `block1`, `block2`, ... on log-mel, pooled over positions as `pooled`, then `bottleneck` and `head`.

    With five blocks and 20 ms frames one position of the last block sees 1.9 s: at 60 beats a minute two beats, so
    that tempo is within reach before pooling.

    Shapes: waveforms (num_clips, samples) -> logits (num_clips, num_classes); every named layer's output can be read.
    """

    def __init__(self, shape: ClassifierShape):
        super().__init__()
        self.shape = shape
        self.log_mel = LogMel(shape.sampling_rate, shape.n_fft, shape.hop_length, shape.num_mels)
        self.input_norm = nn.BatchNorm2d(1)
        self.augment = SpecAugment()
        channels = [1, *(round(shape.width * (1 + i)) for i in range(shape.num_blocks))]
        for i in range(shape.num_blocks):
            self.add_module(f"block{i + 1}", Block(channels[i], channels[i + 1]))
        self.pooled = nn.Identity()
        self.bottleneck = nn.Sequential(nn.Linear(2 * channels[-1], shape.bottleneck_dim), nn.ReLU())
        self.dropout = nn.Dropout(shape.dropout)
        self.head = nn.Linear(shape.bottleneck_dim, len(shape.classes))

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers worth analysing, from input to output."""
        return (*(f"block{i + 1}" for i in range(self.shape.num_blocks)), "pooled", "bottleneck")

    def forward(self, waveforms: Tensor) -> Tensor:
        return self.from_mel(self.log_mel(waveforms))

    def from_mel(self, mel: Tensor) -> Tensor:
        """Logits from log-mel spectrograms (num_clips, num_mels, frames)."""
        x = self.augment(self.input_norm(mel[:, None]))
        for i in range(self.shape.num_blocks):
            x = self.get_submodule(f"block{i + 1}")(x)
        pooled = self.pooled(torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1))
        return self.head(self.dropout(self.bottleneck(pooled)))


def to_bytes(model: GenreClassifier) -> bytes:
    """Weights and shape as one file."""
    file = io.BytesIO()
    torch.save({"shape": asdict(model.shape), "weights": model.state_dict()}, file)
    return file.getvalue()


def from_bytes(data: bytes, where: str = "classifier") -> GenreClassifier:
    """A classifier from `to_bytes`, in eval mode.

    Raises:
        InputError: the bytes are no classifier.
    """
    try:
        stored: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        shape = stored["shape"]
        model = GenreClassifier(ClassifierShape(**{**shape, "classes": tuple(shape["classes"])}))
        model.load_state_dict(stored["weights"])
    except Exception as error:  # torch.load raises whatever its unpickler meets
        raise InputError(where, f"is no genre classifier ({error})", "Fit it again") from error
    return model.eval()


def fit_length(waveform: np.ndarray, length: int, start: float = 0.5) -> np.ndarray:
    """float32 (length,): a crop that leaves out fraction `start` of the surplus before it, or zeros after."""
    spare = len(waveform) - length
    if spare <= 0:
        return np.pad(waveform, (0, -spare)).astype(np.float32)
    offset = round(start * spare)
    return waveform[offset : offset + length].astype(np.float32)
