"""Signal checks of a clip: what is wrong with the sound itself, whatever it was to be."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from conceptcaps.config.quality import SignalChecksConfig
from conceptcaps.metrics import audio


@dataclass(frozen=True)
class Measures:
    """One clip's measures; `schema.SIGNAL` holds them.

    Attributes:
        silent: fraction of 50 ms frames below -60 dBFS.
        clipped: fraction of samples at the clip's ceiling or floor.
        dc: largest constant offset of a channel.
        loudness: integrated, LUFS.
        flatness: spectral flatness in (0, 1].
        repetition: largest normalised autocorrelation at lags of half a second and more.
    """

    silent: float
    clipped: float
    dc: float
    loudness: float
    flatness: float
    repetition: float

    @classmethod
    def of(cls, waveform: np.ndarray, rate: int) -> Measures:
        """Of a float32 (channels, samples) waveform at `rate` Hz."""
        return cls(
            audio.silent_fraction(waveform, rate),
            audio.clipped_fraction(waveform),
            audio.dc_offset(waveform),
            audio.loudness(waveform, rate),
            audio.spectral_flatness(waveform),
            audio.repetition(waveform, rate),
        )

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def problem(measures: Measures, duration: float, wanted: float, config: SignalChecksConfig) -> tuple[str, str] | None:
    """The first check that a clip fails, as (reason code, detail); None for a sound one.

    Args:
        measures: of the clip.
        duration: its length in seconds.
        wanted: the length asked for, in seconds.
        config: the limits.
    """
    found = {
        "duration": (abs(duration - wanted) > config.duration_tolerance, f"{duration:.2f} s, not {wanted:g}"),
        "silent": (measures.silent > config.max_silent, f"{measures.silent:.0%} of the clip"),
        "quiet": (measures.loudness < config.min_loudness, f"{measures.loudness:.1f} LUFS"),
        "clipped": (measures.clipped > config.max_clipped, f"{measures.clipped:.2%} of the samples"),
        "dc": (measures.dc > config.max_dc, f"offset {measures.dc:.3f}"),
        "noise": (measures.flatness > config.max_flatness, f"spectral flatness {measures.flatness:.2f}"),
        "loop": (
            config.max_repetition < 1 and measures.repetition > config.max_repetition,
            f"similar to itself by {measures.repetition:.3f}",
        ),
    }
    return next(((code, detail) for code, (fails, detail) in found.items() if fails), None)
