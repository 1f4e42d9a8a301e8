"""Section `dataset`."""

from __future__ import annotations

from pydantic import Field, model_validator

from conceptcaps.config.base import Section


class DatasetConfig(Section):
    """Shards to train, validation and test."""

    train: float = Field(0.70, description="Fraction of rows for training", gt=0, lt=1)
    validation: float = Field(0.15, description="Fraction of rows for validation", ge=0, lt=1)
    test: float = Field(0.15, description="Fraction of rows for testing", ge=0, lt=1)

    @model_validator(mode="after")
    def _fractions_add_up(self) -> DatasetConfig:
        if abs(self.train + self.validation + self.test - 1) > 1e-6:
            raise ValueError("train, validation and test do not add up to 1")
        return self
