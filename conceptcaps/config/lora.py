"""Section `lora`: fitting the captioner's adapter."""

from __future__ import annotations

from pydantic import Field

from conceptcaps.config.base import Section


class LoraConfig(Section):
    """LoRA (Hu et al. 2021) on tag/caption pairs."""

    r: int = Field(16, description="Rank of the update", ge=1)
    alpha: int = Field(32, description="Scale of the update: alpha / r", ge=1)
    dropout: float = Field(0.05, description="Dropout before the update", ge=0, lt=1)
