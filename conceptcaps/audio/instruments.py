"""Pitched voices of the procedural synthesiser: band-limited wavetables, envelopes, vibrato, formants.

A note reads two one-cycle tables, of its attack and of its sustain, with a 32-bit fixed-point phase and crossfades
between them; so a note costs two table look-ups per sample, and is the same on every machine.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from conceptcaps.audio.timbres import TIMBRES, resonant
from conceptcaps.seeding import generator

_TABLE_BITS = 11
_TABLE_SIZE = 1 << _TABLE_BITS
_MAX_SECONDS = 8.0
"""Notes are cut here; envelopes and oscillators of this length are computed once per sampling rate."""

_VOWELS = {
    "a": ((730, 1090, 2440), (850, 1220, 2810)),
    "e": ((530, 1840, 2480), (610, 2330, 2990)),
    "i": ((270, 2290, 3010), (310, 2790, 3310)),
    "o": ((570, 840, 2410), (590, 920, 2710)),
    "u": ((300, 870, 2240), (370, 950, 2670)),
}
"""First three formants in Hz of male and female vowels (Peterson and Barney 1952, table II)."""

VOWELS = tuple(_VOWELS)
VOICE_RANGE = {"male": (45, 59), "female": (62, 76)}
"""MIDI range of the sung melody."""


def hertz(midi: float) -> float:
    """The frequency of a MIDI note in equal temperament, A4 = 440 Hz."""
    return float(440.0 * 2 ** ((midi - 69) / 12))


def play(name: str, midi: float, num_samples: int, rate: int) -> np.ndarray:
    """float32 (num_samples,): one note of an instrument of `TIMBRES`, its release inside the length asked for."""
    timbre = TIMBRES[name]
    num_samples = min(num_samples, int(_MAX_SECONDS * rate))
    early, late = _tables(name, round(midi), rate)
    fading = _exponential(timbre.fade, rate)[:num_samples]
    wave = np.zeros(num_samples, np.float32)
    for player in range(timbre.players):
        cents = timbre.detune * (player - (timbre.players - 1) / 2)
        index = _phase(hertz(midi + cents / 100), num_samples, rate, timbre.vibrato, timbre.vibrato_hz, player)
        sustain = late[index]
        wave += sustain + (early[index] - sustain) * fading
    if timbre.drive:
        wave = np.tanh(timbre.drive * wave)
    if timbre.tremolo:
        wave *= 1 + timbre.tremolo * _oscillator(timbre.vibrato_hz, rate)[:num_samples]
    if timbre.noise:
        wave += timbre.noise * _noise(rate)[:num_samples] * _exponential(timbre.noise_decay, rate)[:num_samples]
    if timbre.decay is not None:
        # Higher strings and bars ring shorter.
        seconds = round(timbre.decay * 2 ** ((60 - midi) / 24), 3)
        wave *= np.exp(-np.arange(num_samples) / (seconds * rate)).astype(np.float32)
    return _shape(wave, timbre.attack, timbre.release, rate)


def sing(
    sex: str, vowels: tuple[str, str], midi: float, num_samples: int, rate: int, vibrato: float = 0.35
) -> np.ndarray:
    """float32 (num_samples,): a syllable that glides between two vowels, with vibrato that sets in after the onset."""
    num_samples = min(num_samples, int(_MAX_SECONDS * rate))
    first, second = (_vowel_table(sex, vowel, round(midi), rate) for vowel in vowels)
    index = _phase(hertz(midi), num_samples, rate, vibrato, 5.4, 0)
    glide = np.linspace(0, 1, num_samples, dtype=np.float32)
    before = first[index]
    wave = before + (second[index] - before) * glide
    wave += 0.25 * _noise(rate)[:num_samples] * _exponential(0.025, rate)[:num_samples]
    return _shape(wave, 0.03, 0.07, rate)


def _phase(frequency: float, num_samples: int, rate: int, depth: float, depth_hz: float, player: int) -> np.ndarray:
    """Table positions of a tone; its 32-bit phase wraps by itself."""
    step = np.uint32(round(frequency / rate * 2**32))
    phase = _ramp(rate)[:num_samples] * step + np.uint32(player * 0x5851F42D & 0xFFFFFFFF)
    if depth:
        swing = depth * _oscillator(depth_hz, rate)[:num_samples] * _onset_ramp(rate)[:num_samples]
        phase += (swing * 2.0**32).astype(np.int64).astype(np.uint32)
    return phase >> np.uint32(32 - _TABLE_BITS)


def _shape(wave: np.ndarray, attack: float, release: float, rate: int) -> np.ndarray:
    rise, fall = (min(int(seconds * rate), wave.size // 2) for seconds in (attack, release))
    if rise:
        wave[:rise] *= np.linspace(0, 1, rise, dtype=np.float32)
    if fall:
        wave[-fall:] *= np.linspace(1, 0, fall, dtype=np.float32)
    return wave


def _cycle(amplitudes: np.ndarray) -> np.ndarray:
    """One cycle of unit power. Phases go as k squared (Schroeder 1970), which keeps the crest low."""
    k = np.arange(1, amplitudes.size + 1)
    spectrum = np.zeros(_TABLE_SIZE // 2 + 1, complex)
    spectrum[1 : k.size + 1] = amplitudes * np.exp(-1j * np.pi * k * (k - 1) / max(k.size, 1))
    wave = np.fft.irfft(spectrum)
    return (wave / (np.sqrt(np.mean(wave**2)) + 1e-12)).astype(np.float32)


def _harmonics(midi: int, rate: int) -> np.ndarray:
    highest = min(12_000.0, 0.45 * rate)
    return np.arange(1, max(2, min(_TABLE_SIZE // 4, int(highest / hertz(midi)) + 1)))


@lru_cache(maxsize=4096)
def _tables(name: str, midi: int, rate: int) -> tuple[np.ndarray, np.ndarray]:
    k, timbre = _harmonics(midi, rate), TIMBRES[name]
    return _cycle(timbre.attack_spectrum(k, hertz(midi))), _cycle(timbre.sustain_spectrum(k, hertz(midi)))


@lru_cache(maxsize=1024)
def _vowel_table(sex: str, vowel: str, midi: int, rate: int) -> np.ndarray:
    formants = _VOWELS[vowel][sex == "female"]
    widths, gains = (70.0, 100.0, 150.0), (1.0, 0.7, 0.4)
    spectrum = resonant(0.8, *zip(formants, widths, gains, strict=True))
    return _cycle(spectrum(_harmonics(midi, rate), hertz(midi)))


@lru_cache(maxsize=8)
def _ramp(rate: int) -> np.ndarray:
    return np.arange(int(_MAX_SECONDS * rate), dtype=np.uint32)


@lru_cache(maxsize=64)
def _oscillator(frequency: float, rate: int) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(int(_MAX_SECONDS * rate)) / rate).astype(np.float32)


@lru_cache(maxsize=8)
def _onset_ramp(rate: int) -> np.ndarray:
    return np.clip(np.arange(int(_MAX_SECONDS * rate)) / (0.25 * rate), 0, 1).astype(np.float32)


@lru_cache(maxsize=64)
def _exponential(seconds: float, rate: int) -> np.ndarray:
    return np.exp(-np.arange(int(_MAX_SECONDS * rate)) / (seconds * rate)).astype(np.float32)


@lru_cache(maxsize=8)
def _noise(rate: int) -> np.ndarray:
    return generator(0, "breath").standard_normal(int(_MAX_SECONDS * rate)).astype(np.float32)
