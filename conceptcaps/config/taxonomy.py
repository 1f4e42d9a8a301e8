"""Section `taxonomy`."""

from __future__ import annotations

from pydantic import Field

from conceptcaps.config.base import Section


class TaxonomyConfig(Section):
    """Annotations in, a vocabulary and multi-hot training rows out."""

    annotations: str = Field(
        "embedded",
        description="'embedded', a CSV, Parquet or JSON lines file or folder of them (columns caption, aspect_list), "
        "a table of frequencies (columns Tag, Count), or a hub id such as google/MusicCaps",
    )
    split: str = Field("train", description="Split to read where annotations come from the hub")
    taxonomy: str | None = Field(
        None,
        description="concepts_to_tags.json to use as it is; null: 'embedded' annotations bring their own, and any "
        "other annotations are distilled into one",
    )
    min_categories: int = Field(3, description="Rows with tags in fewer categories are left out", ge=1, le=4)
    fold_synonyms: bool = Field(
        False, description="With a given taxonomy, also count synonyms of its tags; a distilled one always does"
    )
    synonyms: str | None = Field(
        None, description="An edited synonyms.csv of an earlier run, used instead of proposing one"
    )
    num_tags: int = Field(200, description="Tags to choose for a distilled taxonomy", ge=4)
    min_count: int = Field(3, description="Rows a tag needs to be chosen for a distilled taxonomy", ge=1)
    clean_captions: bool = Field(True, description="Remove remarks on recording quality from captions")
    compare_with: str | None = Field(
        None, description="concepts_to_tags.json to compare a distilled taxonomy with, e.g. the published one"
    )
