"""Fitted models on disk: one safetensors file with weights, vocabulary and settings."""

from __future__ import annotations

import json
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from conceptcaps.errors import InputError
from conceptcaps.rundir import RunDir
from conceptcaps.vae.model import BetaVAE
from conceptcaps.vocabulary import Vocabulary

BETA_VAE = "beta_vae"


def member(model: BetaVAE, index: int) -> BetaVAE:
    """One member of a sweep as a model of its own."""
    hidden = model.encoder_hidden.weight.shape[-1]
    single = BetaVAE(model.num_tags, hidden, model.latent_dim, model.dropout)
    single.load_state_dict({name: value[index : index + 1] for name, value in model.state_dict().items()})
    return single.eval()


def write_vae(model: BetaVAE, vocabulary: Vocabulary, facts: dict[str, Any], run: RunDir, *parts: str) -> None:
    """Write a one-member model; `facts` (JSON values) travel in the file's header."""
    shape = {
        "num_tags": model.num_tags,
        "hidden_dim": model.encoder_hidden.weight.shape[-1],
        "latent_dim": model.latent_dim,
        "dropout": model.dropout,
    }
    header = {"kind": BETA_VAE, "shape": json.dumps(shape), "vocabulary": vocabulary.to_json()}
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    run.write_bytes(save(tensors, header | {"facts": json.dumps(facts, default=str)}), *parts)


def read_vae(run: RunDir, *parts: str) -> tuple[BetaVAE, Vocabulary]:
    """The model that `write_vae` wrote, in evaluation mode, and its vocabulary.

    Raises:
        InputError: no such file, or not such a file.
    """
    data, where = run.read_bytes(*parts), run.uri(*parts)
    try:
        header = read_header(data)
        model = BetaVAE(**json.loads(header["shape"]))
        model.load_state_dict(load(data))
    except (SafetensorError, KeyError, TypeError, RuntimeError, ValueError) as error:
        raise InputError(where, f"is no model of this stage ({error})", "Run the vae stage again") from error
    return model.eval(), Vocabulary.from_json(header["vocabulary"], where)


def read_header(data: bytes) -> dict[str, str]:
    """The metadata of a safetensors file's bytes."""
    size = int.from_bytes(data[:8], "little")
    return dict(json.loads(data[8 : 8 + size])["__metadata__"])
