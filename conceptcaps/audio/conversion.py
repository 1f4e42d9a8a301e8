"""MusicGen's weights between the layout of transformers and that of audiocraft's language model.

Both name the same tensors; only the projections of self and cross attention differ, which audiocraft keeps as one
matrix of queries, keys and values below each other. Positions are sinusoids in both, and no weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_LAYER = "decoder.model.decoder.layers.{}."
_OUTER = {
    r"decoder\.model\.decoder\.embed_tokens\.(\d+)\.weight": r"emb.\1.weight",
    r"decoder\.lm_heads\.(\d+)\.weight": r"linears.\1.weight",
    r"decoder\.model\.decoder\.layer_norm\.(weight|bias)": r"out_norm.\1",
    r"enc_to_dec_proj\.(weight|bias)": r"condition_provider.conditioners.description.output_proj.\1",
}
_INNER = {
    "self_attn.out_proj": "self_attn.out_proj",
    "encoder_attn.out_proj": "cross_attention.out_proj",
    "fc1": "linear1",
    "fc2": "linear2",
    "self_attn_layer_norm": "norm1",
    "encoder_attn_layer_norm": "norm_cross",
    "final_layer_norm": "norm2",
}
_ATTENTIONS = {"self_attn": "self_attn", "encoder_attn": "cross_attention"}
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")


def to_audiocraft(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of audiocraft's `LMModel` from that of a transformers `MusicgenForConditionalGeneration`.

    Args:
        state: of the whole model; those of the text encoder and of EnCodec are left out.

    Raises:
        KeyError: a layer that lacks a projection.
    """
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if (outer := _renamed(name, _OUTER)) is not None:
            found[outer] = value
        elif layer := re.fullmatch(r"decoder\.model\.decoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name):
            number, inner, kind = layer.groups()
            if inner in _INNER:
                found[f"transformer.layers.{number}.{_INNER[inner]}.{kind}"] = value
            elif inner.endswith(_PROJECTIONS[0]):
                own = inner.removesuffix("." + _PROJECTIONS[0])
                parts = [state[f"{_LAYER.format(number)}{own}.{p}.{kind}"] for p in _PROJECTIONS]
                found[f"transformer.layers.{number}.{_ATTENTIONS[own]}.in_proj_{kind}"] = torch.cat(parts)
    return found


def to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The reverse: audiocraft's `LMModel` state to the names of `MusicgenForConditionalGeneration`."""
    outer = {
        r"emb\.(\d+)\.weight": r"decoder.model.decoder.embed_tokens.\1.weight",
        r"linears\.(\d+)\.weight": r"decoder.lm_heads.\1.weight",
        r"out_norm\.(weight|bias)": r"decoder.model.decoder.layer_norm.\1",
        r"condition_provider\.conditioners\.description\.output_proj\.(weight|bias)": r"enc_to_dec_proj.\1",
    }
    inner = {new: old for old, new in _INNER.items()}
    attentions = {new: old for old, new in _ATTENTIONS.items()}
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if (renamed := _renamed(name, outer)) is not None:
            found[renamed] = value
        elif packed := re.fullmatch(r"transformer\.layers\.(\d+)\.(\w+)\.in_proj_(weight|bias)", name):
            number, attention, kind = packed.groups()
            for projection, part in zip(_PROJECTIONS, value.chunk(3), strict=True):
                found[f"{_LAYER.format(number)}{attentions[attention]}.{projection}.{kind}"] = part
        elif layer := re.fullmatch(r"transformer\.layers\.(\d+)\.(.+)\.(weight|bias)", name):
            number, part_name, kind = layer.groups()
            if part_name in inner:
                found[f"{_LAYER.format(number)}{inner[part_name]}.{kind}"] = value
    return found


def _renamed(name: str, patterns: Mapping[str, str]) -> str | None:
    for pattern, new in patterns.items():
        if match := re.fullmatch(pattern, name):
            return match.expand(new)
    return None
