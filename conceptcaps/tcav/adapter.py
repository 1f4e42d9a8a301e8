"""What TCAV needs of a classifier: waveforms to inputs, logits, named layers, labels, and which module is the head."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from conceptcaps.errors import InputError
from conceptcaps.tcav.classifier import fit_length, from_bytes
from conceptcaps.tcav.layers import LayerReader


class Prepare(Protocol):
    """float32 waveforms, one channel at the classifier's rate, to the batch that the module takes."""

    def __call__(self, waves: Sequence[np.ndarray]) -> Tensor: ...


@dataclass(frozen=True)
class Adapter:
    """Any audio classifier, made readable.

    Args:
        model: the module; its output is the logits, or has them as `logits`.
        classes: the labels, in logit order.
        prepare: waveforms to the module's input.
        layers: the layers worth analysing, from input to output.
        head: what is drawn anew to see whether a score depends on it.
        sampling_rate: Hz, of the waveforms.
        probe: a random input whose last axis is time, and its steps per second; None where attention sees the whole
            clip in any case.
    """

    model: nn.Module
    classes: tuple[str, ...]
    prepare: Prepare
    layers: tuple[str, ...]
    head: nn.Module
    sampling_rate: int
    probe: tuple[Tensor, float] | None = None

    def reach(self, layers: Sequence[str]) -> dict[str, float]:
        """layer -> seconds that one of its positions sees."""
        if self.probe is None:
            return dict.fromkeys(layers, float("inf"))
        return LayerReader(self.model, layers).time_reach(*self.probe)


def of_genre_classifier(weights: bytes, duration: float, where: str = "classifier") -> Adapter:
    """Our own classifier from `classifier.to_bytes`; it hears the middle `duration` seconds."""
    model = from_bytes(weights, where)
    rate = model.shape.sampling_rate
    length = round(duration * rate)

    def prepare(waves: Sequence[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack([fit_length(wave, length) for wave in waves]))

    noise = torch.randn(1, max(length, 3 * rate), generator=torch.Generator().manual_seed(0))
    return Adapter(model, model.shape.classes, prepare, model.layers, model.head, rate, (noise, float(rate)))


def of_transformers(name: str) -> Adapter:
    """A transformers audio classifier (AST, wav2vec 2.0, ...) from the hub or a local folder.

    Raises:
        InputError: it cannot be loaded.
    """
    from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

    try:
        model = AutoModelForAudioClassification.from_pretrained(name).eval()
        extractor = AutoFeatureExtractor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise InputError(f"tcav.model {name!r}", f"cannot be loaded ({error})", "Give an audio classifier") from error
    rate = int(extractor.sampling_rate)

    def prepare(waves: Sequence[np.ndarray]) -> Tensor:
        features: Any = extractor(list(waves), sampling_rate=rate, return_tensors="pt", padding=True)
        return features[extractor.model_input_names[0]]

    classes = tuple(model.config.id2label[i] for i in range(model.config.num_labels))
    names = [n for n, _ in model.named_modules()]
    blocks = tuple(n for n in names if re.search(r"\.(layer|layers)\.\d+$", n))
    head = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    return Adapter(model, classes, prepare, blocks, head, rate)
