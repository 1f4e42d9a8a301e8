"""The procedural synthesiser's mix to what is heard: brightness, room and loudness."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import fft

from conceptcaps.audio.arrangement import Arrangement
from conceptcaps.seeding import generator


def master(mix: np.ndarray, arrangement: Arrangement, rate: int) -> np.ndarray:
    """Tilt, room, level and limiter. Energy sets the level, -26 to -13 dBFS for two parts at full power.

    Args:
        mix: float32 (samples,).
        arrangement: its brightness, space and energy are read.
        rate: Hz.

    Returns:
        float32 (samples,), within [-1, 1].
    """
    shape = _tilt(round(arrangement.brightness, 2), mix.size, rate) * _room(round(arrangement.space, 2), mix.size, rate)
    padded = fft.next_fast_len(mix.size + rate, real=True)
    before = float(np.sqrt(np.mean(np.square(mix, dtype=np.float64))))
    mix = fft.irfft(fft.rfft(mix, padded) * shape, padded)[: mix.size]
    after = float(np.sqrt(np.mean(np.square(mix, dtype=np.float64))))
    gain = 10 ** ((-26 + 13 * arrangement.energy) / 20)
    mix *= np.float32(gain * before / max(after, 1e-9))
    return _limit(mix)


def _limit(wave: np.ndarray, knee: float = 0.7) -> np.ndarray:
    """Samples beyond the knee are bent towards, and never reach, 1."""
    size = np.abs(wave)
    over = size > knee
    wave = wave.astype(np.float32, copy=True)
    wave[over] = np.sign(wave[over]) * (knee + (0.999 - knee) * np.tanh((size[over] - knee) / (1 - knee)))
    return wave


@lru_cache(maxsize=16)
def _tilt(brightness: float, num_samples: int, rate: int) -> np.ndarray:
    """Gain per frequency: up to 5 dB per octave around 700 Hz, either way, and nothing of what is too low to hear."""
    f = fft.rfftfreq(fft.next_fast_len(num_samples + rate, real=True), 1 / rate)
    octaves = np.log2(np.clip(f, 60, 12_000) / 700)
    audible = 1 / (1 + (20 / np.maximum(f, 1e-3)) ** 4)  # half at 20 Hz; a constant offset is gone
    return (audible * 10 ** (10 * (brightness - 0.5) * octaves / 20)).astype(np.float32)


@lru_cache(maxsize=16)
def _room(space: float, num_samples: int, rate: int) -> np.ndarray:
    """Direct sound and a decaying diffuse tail, as a frequency response."""
    padded = fft.next_fast_len(num_samples + rate, real=True)
    tail = generator(0, "room").standard_normal(rate).astype(np.float32)
    t = np.arange(rate) / rate
    tail *= np.exp(-t / (0.05 + 0.3 * space)) * (t > 0.012)
    tail *= 0.9 * space / (np.sqrt(np.sum(tail**2)) + 1e-9)
    tail[0] = 1.0
    return fft.rfft(tail.astype(np.float32), padded)
