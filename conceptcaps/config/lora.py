"""Section `lora`: fitting the captioner's adapter."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from conceptcaps.config.base import Resources, Section, speed_key


class LoraConfig(Section):
    """LoRA (Hu et al. 2021) on tag/caption pairs, for the model that `captions.vllm.model` names."""

    data: str | None = Field(
        None, description="CSV or Parquet with `caption` and the tags of each category; null: the run's annotated rows"
    )
    unsaid_tags: Literal["keep", "drop", "say"] = Field(
        "keep",
        description="Tags that a pair's caption leaves out; keep: the model learns to leave some out; drop: they "
        "are not asked for; say: sentences behind the caption say them",
    )
    r: int = Field(16, description="Rank of the update", ge=1)
    alpha: int = Field(32, description="Scale of the update: alpha / r", ge=1)
    dropout: float = Field(0.05, description="Dropout before the update", ge=0, lt=1)
    target_modules: tuple[str, ...] | Literal["all-linear"] = Field(
        "all-linear", description="Names of the layers to adapt, e.g. [q_proj, v_proj]"
    )
    quantisation: Literal["none", "nf4"] = Field(
        "none", description="nf4: frozen weights in 4 bits (QLoRA, Dettmers et al. 2023); needs a GPU and bitsandbytes"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Of the frozen weights and activations; auto: bfloat16 on a GPU that has it, else float32"
    )
    epochs: int = Field(3, description="Most passes over the pairs", ge=1)
    batch_size: int = Field(16, description="Pairs per optimiser step, over all workers", ge=1)
    micro_batch_size: int = speed_key(8, "Pairs per forward pass of a worker; gradients are summed up to a step", ge=1)
    learning_rate: float = Field(2e-4, description="AdamW's step size after warm-up", gt=0)
    weight_decay: float = Field(0.0, description="AdamW's weight decay", ge=0)
    warmup_fraction: float = Field(0.03, description="Share of the steps in which the rate rises", ge=0, lt=1)
    max_grad_norm: float = Field(1.0, description="Gradients are clipped to this norm", gt=0)
    max_length: int = Field(512, description="Longest dialogue in tokens; the rest is cut off, and counted", ge=16)
    length_grouping: bool = Field(True, description="Batches of pairs of like length, so that padding costs little")
    validation_fraction: float = Field(0.1, description="Pairs kept for early stopping and perplexity", gt=0, lt=0.5)
    patience: int = Field(2, description="Epochs without a better validation loss before stopping", ge=1)
    save_merged: bool = speed_key(
        False, "Also write the model with the adapter merged into its weights, lora/merged, to serve without LoRA"
    )
    trackers: tuple[Literal["wandb", "mlflow"], ...] = speed_key(
        (), "Where the curves go beside TensorBoard files and a figure; extra `trackers`"
    )
    resources: Resources = Field(Resources(), description="Ray Train workers")

    @model_validator(mode="after")
    def _quantised_on_a_gpu(self) -> LoraConfig:
        if self.quantisation != "none" and not self.resources.num_gpus:
            raise ValueError("quantisation 'nf4' needs resources.num_gpus of 1 or more")
        if self.quantisation != "none" and self.save_merged:
            raise ValueError("save_merged wants weights that are not quantised")
        return self
