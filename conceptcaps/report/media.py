"""Audio and pictures small enough for a page, as data URIs."""

from __future__ import annotations

import base64
import io

import matplotlib as mpl
import numpy as np
from PIL import Image
from scipy.signal import ShortTimeFFT

from conceptcaps import signal

_MP3_RATES = (8000, 16_000, 22_050, 24_000, 32_000)  # Hz; what MP3 holds at the lower bit rates
_MP3_COMPRESSION = 0.7  # some 45 kbit/s: the page is to listen to, the dataset to work with
_BANDS, _COLUMNS = 72, 300
_FLOOR_DB = -80.0


def data_uri(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def excerpt(data: bytes, seconds: float) -> tuple[np.ndarray, int]:
    """The beginning of an audio file as a mono float32 (samples,) and its rate in Hz."""
    waveform, rate = signal.decode(data)
    return signal.downmix(waveform)[: int(seconds * rate)], rate


def to_mp3(mono: np.ndarray, rate: int) -> bytes:
    """A mono waveform as MP3, which every browser plays."""
    target = rate if rate in _MP3_RATES else _MP3_RATES[-1]
    resampled = np.clip(signal.resample(mono[None], rate, target), -1, 1)
    return signal.encode(resampled, target, "mp3", _MP3_COMPRESSION)


def spectrogram(mono: np.ndarray, rate: int) -> bytes:
    """PNG of the log-power spectrum over time, 72 mel bands (low at the bottom) by at most 300 columns."""
    picture = mel_decibels(mono, rate)
    levels = np.round((picture[::-1] - _FLOOR_DB) / -_FLOOR_DB * 255).astype(np.uint8)
    image = Image.fromarray(levels).convert("P")
    image.putpalette((mpl.colormaps["magma"](np.arange(256))[:, :3] * 255).round().astype(np.uint8).tobytes())
    file = io.BytesIO()
    image.save(file, format="png", optimize=True)
    return file.getvalue()


def mel_decibels(mono: np.ndarray, rate: int) -> np.ndarray:
    """float (72, columns) in [-80, 0] dB below the loudest band."""
    size = 1024 if rate >= 16_000 else 512
    mono = np.pad(mono, (0, max(0, size - len(mono))))
    hop = max(size // 4, -(-len(mono) // _COLUMNS))
    transform = ShortTimeFFT(np.hanning(size), hop, rate, scale_to="magnitude")
    power = np.abs(transform.stft(mono, p0=0, p1=max(1, len(mono) // hop))) ** 2
    bands = _mel_filters(transform.f) @ power
    return np.clip(10 * np.log10(np.maximum(bands, 1e-20) / max(bands.max(), 1e-20)), _FLOOR_DB, 0)


def _mel_filters(frequencies: np.ndarray) -> np.ndarray:
    """float (72, num_frequencies): triangles at equal steps on the mel scale (O'Shaughnessy 1987)."""
    top = 2595 * np.log10(1 + frequencies[-1] / 700)
    edges = 700 * (10 ** (np.linspace(0, top, _BANDS + 2) / 2595) - 1)
    # No band narrower than two bins, or the lowest would be empty.
    step = frequencies[1]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    left, right = np.minimum(left, centre - step), np.maximum(right, centre + step)
    rising = (frequencies - left[:, None]) / (centre - left)[:, None]
    falling = (right[:, None] - frequencies) / (right - centre)[:, None]
    return np.clip(np.minimum(rising, falling), 0, None)
