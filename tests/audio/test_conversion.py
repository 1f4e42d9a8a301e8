"""Weights between the layouts of transformers and audiocraft."""

import torch
from tiny_musicgen import build_musicgen

from conceptcaps.audio.conversion import to_audiocraft, to_transformers

NO_WEIGHT = "decoder.model.decoder.embed_positions.weights"  # sinusoids


def test_every_weight_of_the_decoder_goes_there_and_back():
    state = build_musicgen(channels=2).state_dict()
    own = {n: v for n, v in state.items() if n.startswith(("decoder.", "enc_to_dec_proj.")) and n != NO_WEIGHT}
    there = to_audiocraft(state)
    assert sum(v.numel() for v in there.values()) == sum(v.numel() for v in own.values())
    back = to_transformers(there)
    assert back.keys() == own.keys()
    assert all(torch.equal(back[name], value) for name, value in own.items())


def test_projections_stand_below_each_other():
    state = build_musicgen().state_dict()
    packed = to_audiocraft(state)["transformer.layers.1.cross_attention.in_proj_weight"]
    layer = "decoder.model.decoder.layers.1.encoder_attn"
    assert torch.equal(packed[:32], state[f"{layer}.q_proj.weight"])
    assert torch.equal(packed[64:], state[f"{layer}.v_proj.weight"])
