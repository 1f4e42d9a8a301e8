"""Waveforms: resample, downmix, encode and decode. A waveform is float32 (channels, samples) in [-1, 1]."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
import soundfile
import soxr

AudioFormat = Literal["flac", "wav", "mp3", "ogg"]
_SUBTYPES = {"flac": "PCM_16", "wav": "PCM_16", "mp3": None, "ogg": None}


def resample(waveform: np.ndarray, rate: int, target_rate: int) -> np.ndarray:
    """Band-limited resampling of (channels, samples) from `rate` to `target_rate` Hz."""
    if rate == target_rate:
        return waveform
    return np.ascontiguousarray(soxr.resample(waveform.T, rate, target_rate).T, dtype=np.float32)


def downmix(waveform: np.ndarray) -> np.ndarray:
    """float32 (samples,): the mean of the channels."""
    return waveform.mean(0, dtype=np.float32) if waveform.ndim == 2 else waveform.astype(np.float32)


def encode(
    waveform: np.ndarray, rate: int, audio_format: AudioFormat = "flac", compression_level: float | None = None
) -> bytes:
    """An audio file as bytes; 16 bits per sample in the lossless formats.

    Args:
        compression_level: in [0, 1], 1 the smallest; by default the format's own.

    Raises:
        ValueError: the waveform has no samples, a sample that is not finite, or one outside [-1, 1].
    """
    if waveform.ndim != 2 or not waveform.size:
        raise ValueError(f"waveform has shape {waveform.shape}, not (channels, samples)")
    peak = float(np.abs(waveform).max())
    if not np.isfinite(peak):
        raise ValueError("waveform has samples that are not finite")
    if peak > 1:
        raise ValueError(f"waveform peaks at {peak:.3f}, outside [-1, 1]")
    file = io.BytesIO()
    soundfile.write(
        file, waveform.T, rate,
        format=audio_format.upper(), subtype=_SUBTYPES[audio_format], compression_level=compression_level,
    )  # fmt: skip
    return file.getvalue()


def decode(data: bytes) -> tuple[np.ndarray, int]:
    """The float32 (channels, samples) waveform of an audio file's bytes, and its rate in Hz.

    Raises:
        soundfile.LibsndfileError: the bytes are no audio file.
    """
    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:  # whose own words name a buffer's address
        raise soundfile.LibsndfileError(error.code, "no audio file: ") from error
    return np.ascontiguousarray(samples.T), rate
