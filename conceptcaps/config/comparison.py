"""Section `comparison`."""

from __future__ import annotations

from pydantic import Field

from conceptcaps.config.base import Section


class ComparisonConfig(Section):
    """Sampled tag sets against real ones."""

    num_bootstrap: int = Field(200, description="Bootstrap resamples behind each interval", ge=20)
