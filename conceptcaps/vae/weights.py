"""Fitted models on disk: one safetensors file with weights, vocabulary, and the counts that sampling aims at."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from conceptcaps.errors import InputError
from conceptcaps.rundir import RunDir
from conceptcaps.vae.mixture import TagMixture
from conceptcaps.vae.model import BetaVAE
from conceptcaps.vocabulary import Vocabulary

_KINDS: dict[str, type[BetaVAE] | type[TagMixture]] = {"beta_vae": BetaVAE, "mixture": TagMixture}


@dataclass(frozen=True)
class FittedModel:
    """A model of tag sets and what sampling needs besides.

    Attributes:
        model: one-member `BetaVAE`, or `TagMixture`.
        vocabulary: its tags.
        marginals: float64 (num_tags,), the share of training rows with each tag.
        sizes: int64 (largest set + 1,), training rows by number of tags.
        facts: JSON values about the fit.
    """

    model: BetaVAE | TagMixture
    vocabulary: Vocabulary
    marginals: np.ndarray
    sizes: np.ndarray
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: BetaVAE | TagMixture, vocabulary: Vocabulary, matrix: np.ndarray, **facts: Any) -> FittedModel:
        """With the counts of its training rows, uint8 (num_rows, num_tags)."""
        return cls(model.eval(), vocabulary, matrix.mean(0, dtype=np.float64), np.bincount(matrix.sum(1)), facts)


def member(model: BetaVAE, index: int) -> BetaVAE:
    """One member of a sweep as a model of its own."""
    single = BetaVAE(model.num_tags, model.hidden_dim, model.latent_dim, model.dropout)
    single.load_state_dict({name: value[index : index + 1] for name, value in model.state_dict().items()})
    return single.eval()


def write_model(fitted: FittedModel, run: RunDir, *parts: str) -> None:
    """Write a model as one file, whole or not at all."""
    kind = next(name for name, kind in _KINDS.items() if isinstance(fitted.model, kind))
    header = {
        "kind": kind,
        "shape": json.dumps(_shape(fitted.model)),
        "vocabulary": fitted.vocabulary.to_json(),
        "facts": json.dumps(fitted.facts, default=str),
    }
    tensors = {f"model.{name}": value.contiguous() for name, value in fitted.model.state_dict().items()}
    tensors |= {"marginals": torch.from_numpy(fitted.marginals), "sizes": torch.from_numpy(fitted.sizes)}
    run.write_bytes(save(tensors, header), *parts)


def _shape(model: BetaVAE | TagMixture) -> dict[str, Any]:
    sizes = ["num_tags", "members", "components"]
    if isinstance(model, BetaVAE):
        sizes = ["num_tags", "hidden_dim", "latent_dim", "dropout"]
    return {name: getattr(model, name) for name in sizes}


def read_model(run: RunDir, *parts: str) -> FittedModel:
    """The model that `write_model` wrote, in evaluation mode.

    Raises:
        InputError: no such file, or not such a file.
    """
    data, where = run.read_bytes(*parts), run.uri(*parts)
    try:
        header = _header(data)
        tensors = load(data)
        model = _KINDS[header["kind"]](**json.loads(header["shape"]))
        named = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
        model.load_state_dict(named)
        counts = tensors["marginals"].numpy(), tensors["sizes"].numpy()
        facts = json.loads(header["facts"])
    except (SafetensorError, KeyError, TypeError, RuntimeError, ValueError) as error:
        raise InputError(where, f"is no model of this stage ({error})", "Run the vae stage again") from error
    return FittedModel(model.eval(), Vocabulary.from_json(header["vocabulary"], where), *counts, facts)


def _header(data: bytes) -> dict[str, str]:
    """The metadata of a safetensors file's bytes."""
    size = int.from_bytes(data[:8], "little")
    return dict(json.loads(data[8 : 8 + size])["__metadata__"])
