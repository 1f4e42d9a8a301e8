"""Section `vae`: the model of tag sets."""

from __future__ import annotations

from pydantic import Field

from conceptcaps.config.base import Resources, Section, speed_key


class VaeConfig(Section):
    """A beta-VAE on multi-hot tag vectors (Higgins et al. 2017)."""

    latent_dim: int = Field(16, description="Latent dimensions", ge=1)
    hidden_dim: int = Field(256, description="Units of each hidden layer", ge=1)
    dropout: float = Field(0.1, description="Dropout in the encoder and decoder", ge=0, lt=1)
    beta: float = Field(1.0, description="Weight of the KL term", ge=0)
    betas: tuple[float, ...] = Field((), description="Further betas, trained side by side with `beta` and compared")
    epochs: int = Field(300, description="Most passes over the training rows", ge=1)
    batch_size: int = Field(64, description="Rows per optimiser step, over all workers", ge=1)
    learning_rate: float = Field(1e-3, description="Adam's step size", gt=0)
    validation_fraction: float = Field(0.1, description="Rows kept for early stopping", gt=0, lt=0.5)
    patience: int = Field(30, description="Epochs without a better validation bound before stopping", ge=1)
    importance_samples: int = Field(500, description="Samples of the reported IWAE bound (Burda et al. 2016)", ge=1)
    checkpoint_epochs: int = speed_key(25, "Epochs between two checkpoints, from which a killed fit resumes", ge=1)
    resources: Resources = Field(Resources(), description="Ray Train workers")
