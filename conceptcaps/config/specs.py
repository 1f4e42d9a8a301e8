"""Section `specs`: sampling of new tag sets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from conceptcaps.config.base import Section


class SpecsConfig(Section):
    """How many tag sets to sample from the fitted model, and which are allowed."""

    num_samples: int = Field(1000, description="Rows to make", ge=1)
    method: Literal["bernoulli", "threshold"] = Field(
        "bernoulli", description="Probabilities to tags; 'threshold', as published, needs vae.model 'beta_vae'"
    )
    threshold: float = Field(0.5, description="Probability from which a tag is set, for method 'threshold'", gt=0, lt=1)
    temperature: float = Field(1.0, description="Logits are divided by this", gt=0)
    seed_tags: tuple[str, ...] = Field((), description="Tags that every sampled set must hold")
    min_categories: int = Field(3, description="Fewest categories with a tag", ge=1, le=4)
    max_tags: int = Field(20, description="Most tags of a set", ge=1)
    calibrate_marginals: bool = Field(True, description="Tags as frequent as in training, or as balancing wants them")
    calibrate_sizes: bool = Field(True, description="Set sizes as in training")
    rarity_temperature: float = Field(1.0, description="Above 1: rare tags become commoner (share ** (1 / this))", ge=1)
    min_share: float = Field(0.0, description="Least share of rows wanted of every tag", ge=0, le=0.5)
    counterfactual: tuple[str, ...] = Field(
        (), description="Tags to make pairs of rows for: one with the tag, one without, all else equal"
    )
    counterfactual_pairs: int = Field(24, description="Pairs of each of these tags, besides num_samples", ge=1)
    max_per_set: int | None = Field(None, description="Most rows of one tag set (null: any number)", ge=1)
