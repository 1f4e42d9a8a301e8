"""Section `report`."""

from __future__ import annotations

from pydantic import Field

from conceptcaps.config.base import Section


class ReportConfig(Section):
    """The static page of a run."""

    num_examples: int = Field(1000, description="Rows listed, to search and filter", ge=0)
    num_audio: int = Field(200, description="Of these, how many with a player and a spectrogram", ge=0)
    audio_seconds: float = Field(10.0, description="How much of a clip the page holds", gt=0)
    audio_mb: float = Field(30.0, description="Most MiB of audio in the page; players beyond it are left out", ge=0)
    num_tags: int = Field(40, description="Tags in the distribution and co-occurrence figures", ge=2)
