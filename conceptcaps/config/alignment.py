"""Section `alignment`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from conceptcaps.config.base import Resources, Section


class ThresholdConfig(Section):
    """Which scores are accepted."""

    method: Literal["absolute", "null_quantile", "none"] = Field(
        "null_quantile", description="absolute: score >= value; null_quantile: score beats mismatched pairs"
    )
    value: float = Field(0.25, description="Least cosine similarity, for 'absolute'", ge=-1, le=1)
    quantile: float = Field(0.95, description="Quantile of mismatched scores to beat, for 'null_quantile'", gt=0, lt=1)
    num_calibration: int = Field(64, description="Rows made first to draw mismatched pairs from", ge=4)
    centre: bool = Field(
        True,
        description="Take the mean embedding of the calibration rows off first, if 32 or more; for 'null_quantile'",
    )


class LaionClapConfig(Section):
    """Engine `laion_clap`."""

    tokenizer: str = Field("FacebookAI/roberta-base", description="Hub id or local folder of its tokenizer")
    allow_pickle: bool = Field(False, description="Load pickled weights (.pt), which may run any code")


class AlignmentConfig(Section):
    """Audio against caption (CLAP: Wu et al. 2023)."""

    engine: Literal["clap", "laion_clap"] = Field(
        "clap", description="The aligner; 'laion_clap' needs resources.python (`conceptcaps env build`)"
    )
    model: str = Field(
        "embedded",
        description="clap: 'embedded', a hub id or a local path of a transformers ClapModel; laion_clap: a file of "
        "weights, as a path or as owner/repository/file",
    )
    revision: str | None = Field(None, description="Branch, tag or commit on the hub")
    verify_tags: bool = Field(
        False, description="Ask of every tag whether the audio carries it, against the others of its category"
    )
    tag_prompts: str | None = Field(
        None, description="YAML file, category -> texts with {} for the tag; null: the built-in ones"
    )
    min_margin: float = Field(0.0, description="Least margin of a verified tag, in standard deviations")
    threshold: ThresholdConfig = Field(ThresholdConfig(), description="Acceptance")
    laion_clap: LaionClapConfig = Field(LaionClapConfig(), description="Engine laion_clap")
    resources: Resources = Field(Resources(), description="Scoring workers; each loads the model once")
