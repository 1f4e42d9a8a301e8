"""Section `tcav`."""

from __future__ import annotations

from pydantic import Field

from conceptcaps.config.base import Section


class TcavConfig(Section):
    """Concept activation vectors of a music classifier (Kim et al. 2018)."""

    clips: str | None = Field(None, description="Folder <genre>/*.wav to train the classifier on, e.g. GTZAN's")
