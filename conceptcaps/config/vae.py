"""Section `vae`: the model of tag sets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from conceptcaps.config.base import Resources, Section, speed_key


class MixtureConfig(Section):
    """An ensemble of mixtures of autoregressive Bernoulli models."""

    members: int = Field(6, description="Models averaged, each with its own order of the tags", ge=1)
    components: int = Field(16, description="Mixture components of a member", ge=1)
    epochs: int = Field(120, description="Most passes over the training rows", ge=1)
    batch_size: int = Field(96, description="Rows per optimiser step", ge=1)
    learning_rate: float = Field(3e-2, description="Adam's step size", gt=0)
    weight_decay: float = Field(1e-3, description="Penalty on squared weights", ge=0)
    bias_decay: float = Field(1e-4, description="Penalty on squared distances of biases from tags' log odds", ge=0)
    averaging: float = Field(0.98, description="Share of the old in the running mean of parameters", ge=0, lt=1)
    patience: int = Field(8, description="Epochs without a better validation likelihood before stopping", ge=1)


class VaeConfig(Section):
    """The model of tag sets: the default mixture, or a beta-VAE (Higgins et al. 2017), which the other keys shape."""

    model: Literal["mixture", "beta_vae"] = Field("mixture", description="Which model is fitted and sampled")
    mixture: MixtureConfig = Field(MixtureConfig(), description="The default model")
    latent_dim: int = Field(16, description="Latent dimensions", ge=1)
    hidden_dim: int = Field(256, description="Units of each hidden layer", ge=1)
    dropout: float = Field(0.3, description="Dropout in the encoder and decoder", ge=0, lt=1)
    beta: float = Field(1.0, description="Weight of the KL term", ge=0)
    betas: tuple[float, ...] = Field((), description="Further betas, trained side by side with `beta` and compared")
    epochs: int = Field(300, description="Most passes over the training rows", ge=1)
    batch_size: int = Field(64, description="Rows per optimiser step, over all workers", ge=1)
    learning_rate: float = Field(3e-3, description="Adam's step size", gt=0)
    validation_fraction: float = Field(0.1, description="Rows kept for early stopping", gt=0, lt=0.5)
    patience: int = Field(30, description="Epochs without a better validation bound before stopping", ge=1)
    importance_samples: int = Field(500, description="Samples of the reported IWAE bound (Burda et al. 2016)", ge=1)
    maps: tuple[Literal["pca", "tsne", "umap"], ...] = Field(
        ("pca", "umap"), description="Maps drawn of a beta-VAE's latent space; t-SNE where umap-learn is not installed"
    )
    checkpoint_epochs: int = speed_key(25, "Epochs between two checkpoints, from which a killed fit resumes", ge=1)
    resources: Resources = Field(Resources(), description="Ray Train workers")
