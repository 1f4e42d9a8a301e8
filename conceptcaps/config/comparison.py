"""Section `comparison`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from conceptcaps.config.base import Section

SamplerName = Literal["mixture", "beta_vae", "independent", "uniform", "resampled"]


class ComparisonConfig(Section):
    """Sampled tag sets against real ones that their model has not seen."""

    holdout_fraction: float = Field(0.2, description="Real rows kept aside to compare with", gt=0, lt=1)
    num_sampled: int | None = Field(
        None, description="Rows drawn from each sampler (null: as many as training rows, like the floor)", ge=50
    )
    samplers: tuple[SamplerName, ...] = Field(
        ("mixture", "beta_vae", "independent", "uniform", "resampled"), description="What stands in the table"
    )
    num_bootstrap: int = Field(100, description="Bootstrap resamples behind each interval", ge=20)
    confidence: float = Field(0.95, description="Of the intervals", gt=0, lt=1)
    min_support: float = Field(5.0, description="Fewest joint rows, seen or expected, of a pair in PMI and phi", gt=0)
