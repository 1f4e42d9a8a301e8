"""Section `report`."""

from __future__ import annotations

from pydantic import Field

from conceptcaps.config.base import Section


class ReportConfig(Section):
    """The static page of a run."""

    num_examples: int = Field(40, description="Rows shown with an audio player", ge=0)
