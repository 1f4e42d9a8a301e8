"""Section `dataset`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from conceptcaps.config.base import Section, speed_key

Category = Literal["genre", "mood", "instrument", "tempo"]


class ConceptSetsConfig(Section):
    """Positives and matched negatives of every concept, for fitting concept activation vectors."""

    min_rows: int = Field(20, description="Fewest positives, in train, of a concept that gets a set", ge=2)
    max_rows: int = Field(400, description="Most positives, and most negatives, per concept and split", ge=2)
    num_exact: int = Field(1, description="Strongest correlates that a negative must share exactly where it can", ge=0)
    caliper: float = Field(
        0.25, description="Farthest propensity of a match, in standard deviations of its logit", gt=0
    )
    inseparable: float = Field(
        0.98, description="AUC of concept from the other tags at which a set carries a warning", gt=0.5, le=1
    )


class DatasetConfig(Section):
    """Shards to train, validation and test."""

    train: float = Field(0.70, description="Fraction of rows for training", gt=0, lt=1)
    validation: float = Field(0.15, description="Fraction of rows for validation", gt=0, lt=1)
    test: float = Field(0.15, description="Fraction of rows for testing", gt=0, lt=1)
    verified: tuple[Category, ...] = Field(
        (), description="Categories whose tags the audio must carry (alignment.verify_tags) for a row to be used"
    )
    group: bool = Field(True, description="Keep rows that would leak into one another in one split")
    near_duplicate: float = Field(
        0.7, description="Jaccard similarity of captions' three-word shingles from which they are one group", gt=0, le=1
    )
    min_concept_rows: int = Field(10, description="Rows from which a concept must have positives in each split", ge=3)
    unstratified: Literal["warn", "refuse"] = Field(
        "warn", description="What to do where such a concept lacks positives in a split"
    )
    subsets: tuple[int, ...] = Field((25, 10), description="Percentages that get configs of their own")
    audio_column: str = Field("file_name", description="Name of the audio column; 'file_name' is the published one")
    licence: str = Field("cc-by-4.0", description="Licence in the dataset card, as the hub spells it")
    shard_mb: int = speed_key(400, "Rows of this many MiB in the shards make one group of output files", ge=1)
    text_row_group: int = speed_key(10_000, "Rows per row group of the text configs", ge=1)
    audio_row_group_mb: int = speed_key(16, "MiB per row group of the audio configs: what a streaming reader fetches")
    skip_bad: bool = speed_key(False, "Go on without shards that cannot be read, naming them")
    concept_sets: ConceptSetsConfig = Field(ConceptSetsConfig(), description="Sets for concept activation vectors")

    @model_validator(mode="after")
    def _fractions_add_up(self) -> DatasetConfig:
        if abs(self.train + self.validation + self.test - 1) > 1e-6:
            raise ValueError("train, validation and test do not add up to 1")
        if any(not 0 < percent < 100 for percent in self.subsets) or len(set(self.subsets)) < len(self.subsets):
            raise ValueError("subsets are different whole percentages between 1 and 99")
        return self
