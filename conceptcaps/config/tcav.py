"""Section `tcav`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from conceptcaps.config.base import Resources, Section, speed_key


class ClassifierConfig(Section):
    """The log-mel classifier and its fit."""

    sampling_rate: int = Field(16_000, description="Hz, of what the classifier hears", ge=4_000)
    duration: float = Field(5.0, description="Seconds of a training crop, and of the middle heard otherwise", gt=0.5)
    num_mels: int = Field(64, description="Mel bands", ge=16)
    width: int = Field(16, description="Channels of the first block; later blocks have more", ge=2)
    num_blocks: int = Field(5, description="Convolution blocks; each doubles the time a position sees", ge=2, le=8)
    bottleneck_dim: int = Field(256, description="Units of the dense layer under the head", ge=2)
    dropout: float = Field(0.2, description="Dropout before the head", ge=0, lt=1)
    epochs: int = Field(30, description="Most passes over the training clips", ge=1)
    patience: int = Field(8, description="Epochs without a better validation loss before stopping", ge=1)
    batch_size: int = Field(32, description="Clips per optimiser step, over all workers", ge=2)
    learning_rate: float = Field(3e-3, description="AdamW's peak step size", gt=0)
    gain_db: float = Field(6.0, description="Training crops are made louder or softer by up to this", ge=0)
    validation: float = Field(0.15, description="Fraction of clips for early stopping, where no list says", gt=0, lt=1)
    test: float = Field(0.2, description="Fraction of clips for testing, where no list says", gt=0, lt=1)
    min_class_clips: int = Field(6, description="Labels with fewer clips are left out (run's own rows only)", ge=3)
    max_classes: int = Field(10, description="Most labels, the most frequent ones (run's own rows only)", ge=2)
    resources: Resources = Field(Resources(), description="Ray Train workers")


class TcavConfig(Section):
    """Concept activation vectors of a music classifier (Kim et al. 2018)."""

    clips: str | None = Field(
        None,
        description="What the classifier learns: a folder <genre>/*.wav such as GTZAN's, a hub id, 'embedded' for a "
        "folder rendered here, or null for the run's own rows labelled by their genre tags",
    )
    split: Literal["filtered", "random"] = Field(
        "filtered", description="filtered: GTZAN's artist- and fault-filtered lists (random for other folders)"
    )
    split_file: str | None = Field(None, description="CSV with columns file,split that says which clip is for what")
    model: str | None = Field(
        None, description="Hub id or local path of a transformers audio classifier to analyse in place of fitting one"
    )
    classifier: ClassifierConfig = Field(ClassifierConfig(), description="The classifier and its fit")
    layers: tuple[str, ...] = Field((), description="Layers to analyse; empty: the classifier's own choice")
    concepts: tuple[str, ...] = Field((), description="Tags to test; empty: all that enough clips have")
    categories: tuple[str, ...] = Field(
        ("mood", "instrument", "tempo"), description="Categories whose tags are concepts"
    )
    relative: tuple[str, ...] = Field(
        ("tempo",), description="Categories whose concepts are also compared two by two, e.g. slow against fast"
    )
    min_positives: int = Field(20, description="Fewest clips with and without a tag", ge=5)
    method: Literal["logistic", "ridge", "pattern"] = Field("logistic", description="How a concept's vector is found")
    regularisation: float = Field(1.0, description="Weight of the vectors' L2 penalty on scaled activations", gt=0)
    runs: int = Field(20, description="Re-splits per concept, for accuracy, stability and the pooled score", ge=2)
    held_out: float = Field(0.33, description="Fraction of a concept's clips kept for testing its vector", gt=0, lt=1)
    disjoint_sets: int = Field(10, description="Sets without a common clip, for the classical test", ge=3)
    disjoint_size: int = Field(20, description="Clips on each side of such a set", ge=5)
    class_clips: int = Field(100, description="Most clips of a class whose derivatives are scored", ge=2)
    gradient_clips: int = Field(400, description="Concept clips over which a logit's mean gradient is taken", ge=2)
    negligible_sd: float = Field(
        0.1, description="Effects up to this many standard deviations of the logit are negligible", ge=0
    )
    false_discovery_rate: float = Field(
        0.05, description="Benjamini-Hochberg rate over all cells of a layer", gt=0, lt=1
    )
    resources: Resources = speed_key(Resources(), "Workers that read activations; each holds the classifier")
