"""What the procedural synthesiser's instruments sound like: a table of timbres, and the spectra that it is built of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Spectrum = Callable[[np.ndarray, float], np.ndarray]
"""(harmonic numbers, fundamental in Hz) -> amplitude of each harmonic."""


@dataclass(frozen=True)
class Timbre:
    """What makes an instrument sound like itself.

    Times are in seconds. `decay` is the time constant of a struck or plucked note; None for one that is held.
    `fade` is the time constant with which the attack spectrum gives way to the sustain spectrum.
    `vibrato` is the depth in cycles of phase, `tremolo` in amplitude, `detune` in cents between `players` copies.
    `drive` > 0 saturates; `noise` is the level of breath or hammer noise. `strum` is the time between the notes of a
    chord. `low`..`high` is the MIDI range of melodies.
    """

    attack_spectrum: Spectrum
    sustain_spectrum: Spectrum
    attack: float = 0.005
    decay: float | None = None
    fade: float = 0.1
    release: float = 0.06
    vibrato: float = 0.0
    vibrato_hz: float = 5.5
    tremolo: float = 0.0
    players: int = 1
    detune: float = 0.0
    noise: float = 0.0
    noise_decay: float = 0.03
    drive: float = 0.0
    strum: float = 0.008
    low: int = 60
    high: int = 79
    melodic: bool = False  # plays one note at a time: chords need another instrument


def _power(exponent: float, odd: float = 1.0, even: float = 1.0, most: int = 60) -> Spectrum:
    """Harmonics falling as k ** -exponent, odd and even ones weighted."""
    return lambda k, f: np.where(k % 2 == 1, odd, even) * k**-exponent * (k <= most)


def _plucked(exponent: float, position: float) -> Spectrum:
    """A string plucked at a fraction of its length: harmonics with a node there are missing."""
    return lambda k, f: np.abs(np.sin(np.pi * k * position)) * k**-exponent


def resonant(source: float, *formants: tuple[float, float, float]) -> Spectrum:
    """A source falling as k ** -source through resonances (centre Hz, width Hz, gain)."""

    def spectrum(k: np.ndarray, f: float) -> np.ndarray:
        response = sum(gain / (1 + ((k * f - centre) / width) ** 2) for centre, width, gain in formants)
        return k**-source * (0.03 + response)

    return spectrum


def _drawbars(*levels: tuple[int, float]) -> Spectrum:
    """Only the harmonics named, at the levels given."""
    wanted = dict(levels)
    return lambda k, f: np.array([wanted.get(int(n), 0.0) for n in k])


_BOW = ((450.0, 180.0, 1.0), (1100.0, 250.0, 0.6), (2900.0, 700.0, 0.9))

TIMBRES: dict[str, Timbre] = {
    "piano": Timbre(_power(1.0, most=24), _power(2.1, most=12), decay=1.3, fade=0.2, noise=0.1, low=60, high=81),
    "keyboard": Timbre(
        _drawbars((1, 1.0), (2, 0.25), (4, 0.2), (7, 0.5), (14, 0.35)),
        _drawbars((1, 1.0), (2, 0.2), (3, 0.05)),
        decay=1.8,
        fade=0.12,
        tremolo=0.65,
        vibrato_hz=4.8,
    ),
    "acoustic_guitar": Timbre(
        _plucked(0.5, 0.17),
        _plucked(1.5, 0.17),
        decay=0.6,
        fade=0.1,
        noise=0.18,
        noise_decay=0.008,
        strum=0.028,
        low=55,
        high=74,
    ),
    "electric_guitar": Timbre(
        _plucked(0.8, 0.31),
        _plucked(1.3, 0.31),
        decay=1.4,
        fade=0.5,
        tremolo=0.12,
        players=2,
        detune=6,
        low=55,
        high=76,
    ),
    "distorted_guitar": Timbre(
        _power(0.9, most=20),
        _power(0.75, most=28),
        attack=0.004,
        fade=0.05,
        drive=4.5,
        players=2,
        detune=9,
        low=50,
        high=70,
    ),
    "strings": Timbre(
        _power(1.6), _power(1.0, most=24), attack=0.09, fade=0.12, release=0.18, vibrato=0.05, players=3, detune=11
    ),
    "violin": Timbre(
        resonant(0.9, *_BOW),
        resonant(0.55, *_BOW),
        attack=0.05,
        vibrato=0.22,
        vibrato_hz=6.1,
        low=67,
        high=88,
        noise=0.03,
        noise_decay=9.0,
        release=0.1,
        melodic=True,
    ),
    "cello": Timbre(
        resonant(1.0, (230, 120, 1.0), (620, 200, 0.7), (1500, 400, 0.3)),
        resonant(0.7, (230, 120, 1.0), (620, 200, 0.7), (1500, 400, 0.4)),
        attack=0.07,
        vibrato=0.2,
        vibrato_hz=5.0,
        low=45,
        high=62,
        noise=0.02,
        noise_decay=9.0,
        release=0.14,
        melodic=True,
    ),
    "flute": Timbre(
        _drawbars((1, 1.0), (2, 0.12), (3, 0.06)),
        _drawbars((1, 1.0), (2, 0.22), (3, 0.05)),
        attack=0.05,
        vibrato=0.06,
        vibrato_hz=5.0,
        tremolo=0.25,
        noise=0.3,
        noise_decay=9.0,
        low=72,
        high=91,
        release=0.08,
        melodic=True,
    ),
    "clarinet": Timbre(
        _power(0.6, even=0.02, most=15), _power(0.7, even=0.02, most=13), attack=0.03, low=55, high=72, melodic=True
    ),
    "saxophone": Timbre(
        resonant(0.7, (600, 250, 1.0), (1500, 500, 0.8)),
        resonant(0.5, (650, 300, 1.0), (1700, 600, 0.9)),
        attack=0.025,
        vibrato=0.16,
        vibrato_hz=5.2,
        noise=0.12,
        noise_decay=9.0,
        drive=1.5,
        low=55,
        high=75,
        melodic=True,
    ),
    "trumpet": Timbre(
        _power(1.8, most=8),
        resonant(0.1, (1200, 700, 1.0), (2600, 900, 0.6)),
        attack=0.03,
        fade=0.06,
        vibrato=0.04,
        low=62,
        high=80,
        release=0.05,
        melodic=True,
    ),
    "brass": Timbre(
        _power(1.8, most=8),
        resonant(0.3, (700, 500, 1.0), (1600, 700, 0.5)),
        attack=0.045,
        fade=0.09,
        players=2,
        detune=7,
        low=55,
        high=72,
        release=0.07,
    ),
    "synth": Timbre(
        _power(0.85), _power(1.05, most=32), attack=0.004, decay=1.2, fade=0.15, players=2, detune=14, low=60, high=84
    ),
    "pad": Timbre(
        _power(1.7, most=12),
        _power(1.3, most=18),
        attack=0.4,
        fade=0.8,
        release=0.5,
        players=3,
        detune=16,
        low=57,
        high=76,
    ),
    "organ": Timbre(
        _drawbars((1, 1.0), (2, 0.8), (3, 0.6), (4, 0.6), (6, 0.3), (8, 0.45)),
        _drawbars((1, 1.0), (2, 0.8), (3, 0.6), (4, 0.6), (6, 0.3), (8, 0.45)),
        attack=0.008,
        tremolo=0.55,
        vibrato_hz=6.6,
        release=0.03,
        noise=0.05,
        noise_decay=0.006,
    ),
    "accordion": Timbre(
        _power(0.7, even=0.6, most=24),
        _power(0.7, even=0.6, most=24),
        attack=0.04,
        players=2,
        detune=26,
        tremolo=0.3,
        vibrato_hz=4.0,
        release=0.06,
    ),
    "harmonica": Timbre(
        _power(0.5, even=0.8, most=18),
        _power(0.6, even=0.8, most=18),
        attack=0.03,
        vibrato=0.06,
        tremolo=0.3,
        vibrato_hz=5.5,
        noise=0.04,
        noise_decay=9.0,
        low=62,
        high=81,
        melodic=True,
    ),
    "bells": Timbre(
        _drawbars((1, 1.0), (4, 0.9), (10, 0.8), (17, 0.6)),
        _drawbars((1, 1.0), (4, 0.4), (10, 0.2)),
        decay=1.5,
        fade=0.4,
        low=72,
        high=93,
    ),
    "marimba": Timbre(
        _drawbars((1, 1.0), (4, 0.8), (9, 0.4)),
        _drawbars((1, 1.0), (4, 0.3)),
        decay=0.35,
        fade=0.06,
        tremolo=0.85,
        vibrato_hz=12.5,
        noise=0.3,
        noise_decay=0.006,
        low=60,
        high=84,
    ),
    "plucked_synth": Timbre(
        _power(0.6, even=0.3), _power(2.2, even=0.3), decay=0.28, fade=0.05, players=2, detune=10, low=64, high=86
    ),
    "harp": Timbre(_plucked(0.8, 0.45), _plucked(2.0, 0.45), decay=0.9, fade=0.2, strum=0.075, low=64, high=90),
    "banjo": Timbre(
        _plucked(0.25, 0.09), _plucked(0.8, 0.09), decay=0.16, fade=0.06, noise=0.2, noise_decay=0.006, low=62, high=81
    ),
    "sitar": Timbre(
        _power(0.35, most=40), _power(0.8, even=1.3, most=40), decay=0.9, fade=0.6, vibrato=0.03, low=57, high=76
    ),
    "deep_bass": Timbre(
        _drawbars((1, 1.0), (2, 0.2)), _drawbars((1, 1.0), (2, 0.1)), attack=0.01, release=0.05, low=24, high=36
    ),
    "bass": Timbre(_plucked(0.9, 0.22), _plucked(1.8, 0.22), decay=0.9, fade=0.12, release=0.04, low=28, high=40),
    "synth_bass": Timbre(
        _power(0.6, most=18), _power(1.3, most=10), fade=0.12, release=0.03, drive=1.2, low=28, high=40
    ),
}
"""Instruments by name. The basses play the bass line, the rest melody and chords."""
