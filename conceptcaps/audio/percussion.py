"""Drum one-shots of the procedural synthesiser, made once per kit and sampling rate."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import signal

from conceptcaps.seeding import generator

KITS = ("acoustic", "electronic")


@lru_cache(maxsize=128)
def one_shot(drum: str, kit: str, rate: int) -> np.ndarray:
    """float32 (samples,), peak 1: one hit of a drum.

    Args:
        drum: kick, snare, hat, open_hat, clap, shaker, tambourine, cymbal, tom, conga, rim or click.
        kit: acoustic or electronic.
        rate: sampling rate in Hz.
    """
    electronic = kit == "electronic"
    match drum:
        case "kick":
            # A machine's long, low thud; a beater's knock on a skin.
            wave = _sweep(170, 44, 0.05, 0.24, rate) if electronic else _sweep(130, 68, 0.03, 0.07, rate)
            wave += (0.1 if electronic else 0.5) * _burst("kick", 1500, 5000, 0.008, wave.size, rate)
        case "snare":
            body = (
                _sweep(330, 250, 0.02, 0.05, rate, seconds=0.4)
                if electronic
                else _sweep(210, 180, 0.02, 0.1, rate, 0.4)
            )
            wires = _burst(
                "snare",
                3000 if electronic else 900,
                13000 if electronic else 6500,
                0.05 if electronic else 0.13,
                body.size,
                rate,
            )
            wave = (0.4 if electronic else 0.8) * body + wires
        case "tom":
            wave = _sweep(230, 95, 0.08, 0.22, rate) + 0.3 * _burst("tom", 500, 3000, 0.02, int(0.5 * rate), rate)
        case "conga":
            wave = _sweep(330, 300, 0.02, 0.09, rate) + 0.2 * _burst("conga", 900, 4000, 0.01, int(0.5 * rate), rate)
        case "rim" | "click":
            wave = _sweep(1700, 1650, 0.01, 0.012, rate, seconds=0.08)
        case "clap":
            wave = _claps(rate)
        case "cymbal":
            wave = _burst("cymbal", 3500, 14000, 0.7, int(1.6 * rate), rate)
        case "open_hat":
            wave = _burst("open", 8000 if electronic else 5000, 14000, 0.14, int(0.5 * rate), rate)
        case "hat":
            wave = _burst(
                "hat",
                10000 if electronic else 5500,
                14500 if electronic else 12000,
                0.015 if electronic else 0.05,
                int(0.25 * rate),
                rate,
            )
        case "shaker":
            wave = _burst("shaker", 4500, 11000, 0.04, int(0.2 * rate), rate) * _rise(0.02, int(0.2 * rate), rate)
        case "tambourine":
            wave = _jingle(rate)
        case _:
            raise AssertionError(drum)
    return (wave / np.abs(wave).max()).astype(np.float32)


def _time(seconds: float, rate: int) -> np.ndarray:
    return np.arange(int(seconds * rate)) / rate


def _sweep(start: float, end: float, glide: float, decay: float, rate: int, seconds: float = 0.5) -> np.ndarray:
    t = _time(seconds, rate)
    cycles = end * t + (start - end) * glide * (1 - np.exp(-t / glide))
    return np.sin(2 * np.pi * cycles) * np.exp(-t / decay)


def _burst(name: str, low: float, high: float, decay: float, num_samples: int, rate: int) -> np.ndarray:
    """Band-passed noise that dies away."""
    noise = generator(0, "drum", name).standard_normal(num_samples)
    edges = [min(low, 0.4 * rate), min(high, 0.45 * rate)]
    band = signal.butter(2, edges, "bandpass", fs=rate, output="sos")
    return signal.sosfilt(band, noise) * np.exp(-np.arange(num_samples) / (decay * rate))


def _delayed(wave: np.ndarray, seconds: float, rate: int) -> np.ndarray:
    shift = int(seconds * rate)
    return np.concatenate([np.zeros(shift), wave[: wave.size - shift]])


def _rise(seconds: float, num_samples: int, rate: int) -> np.ndarray:
    return np.clip(np.arange(num_samples) / (seconds * rate), 0, 1)


def _claps(rate: int) -> np.ndarray:
    """Several hands, not quite together."""
    hands = [_burst("clap", 900, 5000, 0.07 if i == 3 else 0.02, int(0.3 * rate), rate) for i in range(4)]
    return np.sum([_delayed(hand, 0.011 * i, rate) for i, hand in enumerate(hands)], axis=0)


def _jingle(rate: int) -> np.ndarray:
    t = _time(0.35, rate)
    rings = sum(np.sin(2 * np.pi * f * t) for f in (5200, 6700, 7900, 9300, 10700) if f < 0.45 * rate)
    return (0.5 * rings + 2 * _burst("jingle", 5000, 12000, 0.3, t.size, rate)) * np.exp(-t / 0.08)
