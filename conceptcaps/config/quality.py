"""Section `quality`, and the signal checks of section `audio`."""

from __future__ import annotations

from pydantic import Field

from conceptcaps.config.base import Section


class SignalChecksConfig(Section):
    """What a clip's waveform must pass; a take that does not is out, and a row without another is rejected."""

    enabled: bool = Field(True, description="Measure and check every take")
    max_silent: float = Field(0.8, description="Most of the clip that may lie below -60 dBFS", ge=0, le=1)
    min_loudness: float = Field(-50.0, description="Least integrated loudness in LUFS", ge=-120, le=0)
    max_clipped: float = Field(0.01, description="Most samples at the clip's own ceiling or floor", ge=0, le=1)
    max_dc: float = Field(0.05, description="Most constant offset, of full scale 1", ge=0, le=1)
    max_flatness: float = Field(0.4, description="Most spectral flatness; white noise is near 0.56", gt=0, le=1)
    max_repetition: float = Field(
        1.0, description="Most self-similarity at a lag of half a second or more; 1 lets loops pass", gt=0, le=1
    )
    duration_tolerance: float = Field(0.05, description="Seconds that the length may differ from `duration`", ge=0)


class QualityConfig(Section):
    """Measures of the audio that was made, from the embeddings that scoring has left in the shards."""

    reference: str | None = Field(
        None, description="Folder of audio files to compare with (FAD, KAD); null: no reference"
    )
    max_reference: int = Field(2000, description="Most reference clips", ge=4)
    max_clips: int = Field(2000, description="Most accepted clips, drawn by the seed, that distances use", ge=4)
    min_concept_clips: int = Field(50, description="Clips from which a concept gets distances of its own", ge=4)
    bootstraps: int = Field(200, description="Resamples behind an interval", ge=20)
