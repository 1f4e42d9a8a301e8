from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_musicgen import build_musicgen, encode, tokenize

from conceptcaps.audio.decoding import Decoder, Window
from conceptcaps.audio.sampling import Sampling
from conceptcaps.audio.transformer import Transformer

FRAMES = 24
WINDOW = Window(200, 120)
CAPTIONS = ["slow piano", "fast loud drums with guitar and techno 120 bpm", "calm"]


def reference_codes(
    model: Any, tokens: Any, frames: int, guidance: float = 3.0, prompt: torch.Tensor | None = None
) -> torch.Tensor:
    """Codes that transformers' own generate decodes to audio; `prompt` (B, K, frames) begins them."""
    seen = []
    decode = model.audio_encoder.decode
    model.audio_encoder.decode = lambda codes, **kwargs: (seen.append(codes[0]), decode(codes, **kwargs))[1]
    known = {} if prompt is None else {"decoder_input_ids": prompt.flatten(0, 1)}
    steps = frames + 3 - (0 if prompt is None else prompt.shape[2])
    model.generate(**tokens, **known, max_new_tokens=steps, do_sample=False, guidance_scale=guidance)
    model.audio_encoder.decode = decode
    return seen[0] if len(seen) == 1 else torch.stack(seen, 2).flatten(1, 2)


def our_codes(model: Any, tokens: Any, frames: int, sampling: Sampling, **kwargs: Any) -> torch.Tensor:
    decoder = make_decoder(model, sampling, **kwargs)
    codes, finite = decoder.generate(*encode(model, tokens), torch.arange(len(tokens.input_ids)) + 5, frames)
    assert finite.all()
    return codes


def make_decoder(model: Any, sampling: Sampling, window: Window = WINDOW, **kwargs: Any) -> Decoder:
    return Decoder(Transformer(model.decoder), sampling, model.config.decoder.audio_channels, window, **kwargs)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"hidden": 24, "text": 24},
        {"hidden": 32, "activation_function": "relu"},
        # musicgen-small's widths (1,024 x 16 heads, 4 x feed-forward, 2,048 codes), 2 of its 24 layers
        {"hidden": 1024, "layers": 2, "num_attention_heads": 16, "text": 48, "entries": 2048},
    ],
    ids=["tiny", "no projection", "relu", "small's widths"],
)
def test_greedy_tokens_equal_the_reference(shape: dict[str, Any], channels: int, guidance: float) -> None:
    model = build_musicgen(channels=channels, **shape)
    tokens = tokenize(CAPTIONS)
    expected = reference_codes(model, tokens, FRAMES, guidance)
    codes = our_codes(model, tokens, FRAMES, Sampling(guidance_scale=guidance, top_k=1))
    assert torch.equal(codes, expected)
    assert codes.unique().numel() > 12


def test_a_row_has_the_same_bits_in_any_batch() -> None:
    model = build_musicgen(hidden=512, layers=2, num_attention_heads=8)
    captions = [f"{a} {b} 120 bpm" for a in ("slow", "fast", "calm") for b in ("piano", "rock with a guitar", "jazz")]
    tokens = tokenize(captions)
    states, mask = encode(model, tokens)
    seeds = torch.arange(9) * 1_000_003 + 17
    decoder = make_decoder(model, Sampling(top_k=40), Window(12, 8))
    whole, _ = decoder.generate(states, mask, seeds, 16)
    assert len({tuple(row.flatten().tolist()) for row in whole}) == 9
    for rows in ([0], [8], [3, 1], [7, 2, 5], [4, 3, 2, 1, 0]):
        length = int(mask[rows].sum(1).max())
        part, _ = decoder.generate(states[rows, :length], mask[rows, :length], seeds[rows], 16)
        assert torch.equal(part, whole[rows])


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_recorded_steps_equal_plain_ones(guidance: float) -> None:
    model = build_musicgen()
    tokens = tokenize(CAPTIONS)
    sampling = Sampling(guidance_scale=guidance, top_k=20)
    plain = our_codes(model, tokens, 90, sampling, window=Window(70, 40), recorded=False)
    decoder = make_decoder(model, sampling, Window(70, 40), recorded=True)
    for _ in range(2):  # the second time on the buffers of the first
        codes, _ = decoder.generate(*encode(model, tokens), torch.arange(3) + 5, 90)
        assert torch.equal(codes, plain)


def test_a_longer_clip_continues_in_windows() -> None:
    model = build_musicgen()
    tokens = tokenize(CAPTIONS)
    codes = our_codes(model, tokens, 50, Sampling(top_k=1), window=Window(24, 14))
    assert codes.shape == (3, 4, 50)
    assert torch.equal(codes[:, :, :24], reference_codes(model, tokens, 24))
    # The next window is what the reference makes of the last 10 frames as its prompt.
    assert torch.equal(codes[:, :, 14:38], reference_codes(model, tokens, 24, prompt=codes[:, :, 14:24]))


def test_numbers_that_overflow_are_told() -> None:
    model = build_musicgen()
    tokens = tokenize(CAPTIONS)
    states, mask = encode(model, tokens)
    states[1, 0, 0] = torch.nan
    _, finite = make_decoder(model, Sampling()).generate(states, mask, torch.arange(3), 5)
    assert finite.tolist() == [True, False, True]


def test_a_clip_that_overflowed_leaves_nothing_behind() -> None:
    """A masked column that holds not-a-number would make the next clip in its place one too."""
    model = build_musicgen()
    tokens = tokenize(CAPTIONS)
    states, mask = encode(model, tokens)
    decoder = make_decoder(model, Sampling(), recorded=True)
    expected, _ = decoder.generate(states, mask, torch.arange(3), 5)
    broken = states.clone()
    broken[1, 0, 0] = torch.nan
    assert decoder.generate(broken, mask, torch.arange(3), 5)[1].tolist() == [True, False, True]
    decoder.clean()
    codes, finite = decoder.generate(states, mask, torch.arange(3), 5)
    assert finite.all()
    assert torch.equal(codes, expected)


def test_recordings_of_other_shapes_share_their_text_s_place() -> None:
    """Long texts after short ones, few clips after many, and more shapes than are kept."""
    model = build_musicgen()
    sampling = Sampling(top_k=20)
    decoder = make_decoder(model, sampling, recorded=True)
    for repeats, clips in ((1, 3), (9, 2), (1, 1), (9, 9), (17, 5), (1, 3), (25, 1), (33, 2), (1, 12), (9, 3)):
        captions = [" ".join([CAPTIONS[i % 3]] * repeats) for i in range(clips)]
        states, mask = encode(model, tokenize(captions))
        codes, _ = decoder.generate(states, mask, torch.arange(clips) + 5, 6)
        plain, _ = make_decoder(model, sampling, recorded=False).generate(states, mask, torch.arange(clips) + 5, 6)
        assert torch.equal(codes, plain)


def test_clips_that_fit_count_the_idle_rows() -> None:
    decoder = make_decoder(build_musicgen(), Sampling(), recorded=True)
    assert [decoder.clips_within(n) for n in (0, 1, 2, 3, 5, 8, 9, 23, 24, 47)] == [1, 1, 2, 2, 4, 8, 8, 16, 24, 40]
