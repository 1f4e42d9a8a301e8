"""MusicGen's weights between the layout of transformers and that of audiocraft's language model.

Both name the same tensors; only the projections of self and cross attention differ, which audiocraft keeps as one
matrix of queries, keys and values below each other. Positions are sinusoids in both, and no weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_OURS, _THEIRS = "decoder.model.decoder.layers.{}.", "transformer.layers.{}."
_TO_AUDIOCRAFT = {
    "decoder.model.decoder.embed_tokens.{}": "emb.{}",
    "decoder.lm_heads.{}": "linears.{}",
    "decoder.model.decoder.layer_norm": "out_norm",
    "enc_to_dec_proj": "condition_provider.conditioners.description.output_proj",
    f"{_OURS}self_attn.out_proj": f"{_THEIRS}self_attn.out_proj",
    f"{_OURS}encoder_attn.out_proj": f"{_THEIRS}cross_attention.out_proj",
    f"{_OURS}fc1": f"{_THEIRS}linear1",
    f"{_OURS}fc2": f"{_THEIRS}linear2",
    f"{_OURS}self_attn_layer_norm": f"{_THEIRS}norm1",
    f"{_OURS}encoder_attn_layer_norm": f"{_THEIRS}norm_cross",
    f"{_OURS}final_layer_norm": f"{_THEIRS}norm2",
}
"""Modules by name, {} for the number of a layer or codebook; each has `weight` or `bias` or both."""
_TO_TRANSFORMERS = {theirs: ours for ours, theirs in _TO_AUDIOCRAFT.items()}
_ATTENTIONS = {f"{_OURS}self_attn": f"{_THEIRS}self_attn", f"{_OURS}encoder_attn": f"{_THEIRS}cross_attention"}
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")


def to_audiocraft(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of audiocraft's `LMModel` from that of a transformers `MusicgenForConditionalGeneration`.

    Args:
        state: of the whole model; those of the text encoder and of EnCodec are left out.

    Raises:
        KeyError: a layer that lacks a projection.
    """
    attentions = {f"{ours}.q_proj": theirs for ours, theirs in _ATTENTIONS.items()}
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        module, _, kind = name.rpartition(".")
        if theirs := _renamed(module, _TO_AUDIOCRAFT):
            found[f"{theirs}.{kind}"] = value
        elif theirs := _renamed(module, attentions):
            own = module.removesuffix("q_proj")
            found[f"{theirs}.in_proj_{kind}"] = torch.cat([state[f"{own}{p}.{kind}"] for p in _PROJECTIONS])
    return found


def to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The reverse: audiocraft's `LMModel` state to the names of `MusicgenForConditionalGeneration`."""
    attentions = {theirs: ours for ours, theirs in _ATTENTIONS.items()}
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        module, _, kind = name.rpartition(".")
        if ours := _renamed(module, _TO_TRANSFORMERS):
            found[f"{ours}.{kind}"] = value
        elif ours := _renamed(module, attentions):
            parts = zip(_PROJECTIONS, value.chunk(3), strict=True)
            found |= {f"{ours}.{p}.{kind.removeprefix('in_proj_')}": part for p, part in parts}
    return found


def _renamed(module: str, names: Mapping[str, str]) -> str | None:
    """The other name of a module, with its number; None where it is not among `names`."""
    number = next(iter(re.findall(r"\.(\d+)", module)), "")
    other = names.get(re.sub(r"\.\d+", ".{}", module, count=1))
    return None if other is None else other.format(number)
