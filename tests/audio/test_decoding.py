from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from conceptcaps.audio.decoding import Decoder, Window
from conceptcaps.audio.sampling import Sampling
from conceptcaps.audio.transformer import Transformer

FRAMES = 24
WINDOW = Window(200, 120)
CAPTIONS = ["slow piano", "fast loud drums with guitar and techno 120 bpm", "calm"]


def encode(model: Any, tokens: Any) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        states = model.text_encoder(**tokens).last_hidden_state
        if hasattr(model, "enc_to_dec_proj"):
            states = model.enc_to_dec_proj(states)
    return states * tokens.attention_mask[..., None], tokens.attention_mask.bool()


def reference_codes(model: Any, tokens: Any, frames: int, guidance: float) -> torch.Tensor:
    """Codes that transformers' own generate decodes to audio."""
    seen = []
    decode = model.audio_encoder.decode
    model.audio_encoder.decode = lambda codes, **kwargs: (seen.append(codes[0]), decode(codes, **kwargs))[1]
    lag = 3
    model.generate(**tokens, max_new_tokens=frames + lag, do_sample=False, guidance_scale=guidance)
    model.audio_encoder.decode = decode
    if len(seen) == 1:
        return seen[0]
    return torch.stack(seen, 2).flatten(1, 2)


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
def test_greedy_tokens_equal_the_reference(
    musicgen_builder: Any, musicgen_tokenizer: Any, shape: dict[str, Any], channels: int, guidance: float
) -> None:
    model = musicgen_builder(channels=channels, **shape)
    tokens = musicgen_tokenizer(CAPTIONS, padding=True, return_tensors="pt")
    expected = reference_codes(model, tokens, FRAMES, guidance)
    codes = our_codes(model, tokens, FRAMES, Sampling(guidance_scale=guidance, top_k=1))
    assert torch.equal(codes, expected)
    assert codes.unique().numel() > 12


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_logits_equal_the_reference(musicgen_builder: Any, musicgen_tokenizer: Any, guidance: float) -> None:
    model = musicgen_builder(hidden=64, layers=3)
    tokens = musicgen_tokenizer(CAPTIONS, padding=True, return_tensors="pt")
    states, mask = encode(model, tokens)
    guided = guidance > 1
    rows = states if not guided else torch.cat([states, torch.zeros_like(states)])
    attention = tokens.attention_mask if not guided else torch.cat([tokens.attention_mask, tokens.attention_mask * 0])
    columns = torch.randint(0, 64, (3, 4, 11), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.decoder(
            input_ids=columns.repeat(1 + guided, 1, 1).flatten(0, 1),
            encoder_hidden_states=rows,
            encoder_attention_mask=attention,
        ).logits.view(len(rows), 4, 11, -1)
    transformer = Transformer(model.decoder)
    cache, text = transformer.new_cache(3, 11, guided), transformer.read(states, mask)
    one_by_one = [
        transformer.step(columns[:, :, t : t + 1], t, t + 1, cache, text, guided) for t in range(columns.shape[2])
    ]
    scale = expected.abs().max()
    assert ((torch.stack(one_by_one, 2) - expected).abs().max() / scale) < 1e-4
    at_once = transformer.step(columns, 0, 11, transformer.new_cache(3, 11, guided), text, guided)
    assert ((at_once - expected[:, :, -1]).abs().max() / scale) < 1e-4


def test_a_row_has_the_same_bits_in_any_batch(musicgen_builder: Any, musicgen_tokenizer: Any) -> None:
    model = musicgen_builder(hidden=512, layers=2, num_attention_heads=8)
    captions = [f"{a} {b} 120 bpm" for a in ("slow", "fast", "calm") for b in ("piano", "rock with a guitar", "jazz")]
    tokens = musicgen_tokenizer(captions, padding=True, return_tensors="pt")
    states, mask = encode(model, tokens)
    seeds = torch.arange(9) * 1_000_003 + 17
    decoder = make_decoder(model, Sampling(top_k=40), Window(12, 8))
    whole, _ = decoder.generate(states, mask, seeds, 16)
    assert len({tuple(row.flatten().tolist()) for row in whole}) == 9
    for rows in ([0], [8], [3, 1], [7, 2, 5], [4, 3, 2, 1, 0]):
        length = int(mask[rows].sum(1).max())
        part, _ = decoder.generate(states[rows, :length], mask[rows, :length], seeds[rows], 16)
        assert torch.equal(part, whole[rows])


def test_the_last_logits_have_the_same_bits_in_any_batch(musicgen_builder: Any) -> None:
    transformer = Transformer(musicgen_builder(hidden=512, layers=2, num_attention_heads=8).decoder)
    states, mask = torch.randn(17, 32, 512), torch.ones(17, 32, dtype=torch.bool)
    columns = torch.randint(0, 64, (17, 4, 7))

    def last(rows: list[int]) -> torch.Tensor:
        cache, text = transformer.new_cache(len(rows), 7, True), transformer.read(states[rows], mask[rows])
        for t in range(7):
            logits = transformer.step(columns[rows, :, t : t + 1], t, t + 1, cache, text, True)
        return logits.view(2, len(rows), 4, -1)

    whole = last(list(range(17)))
    for rows in ([0, 1], [16, 2, 9], list(range(5, 16))):
        assert torch.equal(last(rows), whole[:, rows])


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_recorded_steps_equal_plain_ones(musicgen_builder: Any, musicgen_tokenizer: Any, guidance: float) -> None:
    model = musicgen_builder()
    tokens = musicgen_tokenizer(CAPTIONS, padding=True, return_tensors="pt")
    sampling = Sampling(guidance_scale=guidance, top_k=20)
    plain = our_codes(model, tokens, 90, sampling, window=Window(70, 40), recorded=False)
    decoder = make_decoder(model, sampling, Window(70, 40), recorded=True)
    for _ in range(2):  # the second time on the buffers of the first
        codes, _ = decoder.generate(*encode(model, tokens), torch.arange(3) + 5, 90)
        assert torch.equal(codes, plain)


def test_a_longer_clip_continues_in_windows(musicgen_builder: Any, musicgen_tokenizer: Any) -> None:
    model = musicgen_builder()
    tokens = musicgen_tokenizer(CAPTIONS, padding=True, return_tensors="pt")
    codes = our_codes(model, tokens, 50, Sampling(top_k=1), window=Window(24, 14))
    assert codes.shape == (3, 4, 50)
    assert torch.equal(codes[:, :, :24], reference_codes(model, tokens, 24, 3.0))
    # The next window is what the reference makes of the last 10 frames as its prompt.
    prompt = codes[:, :, 14:24].flatten(0, 1)
    expected = continue_reference(model, tokens, prompt, 24)
    assert torch.equal(codes[:, :, 14:38], expected)


def continue_reference(model: Any, tokens: Any, prompt: torch.Tensor, frames: int) -> torch.Tensor:
    seen = []
    decode = model.audio_encoder.decode
    model.audio_encoder.decode = lambda codes, **kwargs: (seen.append(codes[0]), decode(codes, **kwargs))[1]
    model.generate(
        **tokens,
        decoder_input_ids=prompt,
        max_new_tokens=frames + 3 - prompt.shape[1],
        do_sample=False,
        guidance_scale=3.0,
    )
    model.audio_encoder.decode = decode
    return seen[0]


def test_numbers_that_overflow_are_told(musicgen_builder: Any, musicgen_tokenizer: Any) -> None:
    model = musicgen_builder()
    tokens = musicgen_tokenizer(CAPTIONS, padding=True, return_tensors="pt")
    states, mask = encode(model, tokens)
    states[1, 0, 0] = torch.nan
    _, finite = make_decoder(model, Sampling()).generate(states, mask, torch.arange(3), 5)
    assert finite.tolist() == [True, False, True]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near(musicgen_builder: Any, musicgen_tokenizer: Any, dtype: torch.dtype) -> None:
    model = musicgen_builder()
    tokens = musicgen_tokenizer(CAPTIONS, padding=True, return_tensors="pt")
    states, mask = encode(model, tokens)
    columns = torch.randint(0, 64, (3, 4, 1))
    logits = {}
    for kind in (torch.float32, dtype):
        transformer = Transformer(model.decoder.to(kind))
        text = transformer.read(states.to(kind), mask)
        logits[kind] = transformer.step(columns, 0, 1, transformer.new_cache(3, 1, True), text, True).float()
    assert (logits[dtype] - logits[torch.float32]).abs().max() < 0.1 * logits[torch.float32].abs().max()


def test_memory_is_counted(musicgen_builder: Any) -> None:
    transformer = Transformer(musicgen_builder().decoder)
    cache = transformer.new_cache(3, 10, True)
    held = sum(x.nbytes for side in (cache.keys, cache.values) for x in side)
    assert transformer.cache_bytes(10, True) * 3 == held


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_tokens_on_a_gpu_equal_those_on_a_cpu(musicgen_builder: Any, musicgen_tokenizer: Any) -> None:
    model = musicgen_builder()
    tokens = musicgen_tokenizer(CAPTIONS * 40, padding=True, return_tensors="pt")
    states, mask = encode(model, tokens)
    seeds = torch.arange(120)
    expected, _ = make_decoder(model, Sampling(top_k=20)).generate(states, mask, seeds, 40)
    model.decoder.cuda()
    decoder = make_decoder(model, Sampling(top_k=20))
    codes, _ = decoder.generate(states.cuda(), mask.cuda(), seeds.cuda(), 40)
    same = (codes.cpu() == expected).flatten(1).all(1).float().mean()
    assert same >= 0.99


def test_musicgen_fixtures_are_where_a_user_would_put_them(mono_checkpoint: Path) -> None:
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {p.name for p in mono_checkpoint.iterdir()}
