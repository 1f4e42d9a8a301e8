"""Section `taxonomy`."""

from __future__ import annotations

from pydantic import Field

from conceptcaps.config.base import Section


class TaxonomyConfig(Section):
    """Annotations in, a vocabulary and multi-hot training rows out."""

    annotations: str = Field(
        "embedded", description="'embedded', a CSV, Parquet or JSON lines file, or a hub id such as google/MusicCaps"
    )
    split: str = Field("train", description="Split to read where annotations come from the hub")
    taxonomy: str | None = Field(
        None, description="concepts_to_tags.json to use as it is; null: 'embedded' annotations bring their own"
    )
    min_categories: int = Field(3, description="Rows with tags in fewer categories are left out", ge=1, le=4)
