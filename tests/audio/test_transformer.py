from __future__ import annotations

import pytest
import torch
from tiny_musicgen import build_musicgen, encode, tokenize

from conceptcaps.audio.transformer import Linear, Transformer

CAPTIONS = ["slow piano", "fast loud drums with guitar and techno 120 bpm", "calm"]


@pytest.mark.parametrize("inputs", [32, 512, 2048])
def test_a_product_has_the_same_bits_in_any_batch(inputs: int) -> None:
    linear, x, residual = Linear(torch.randn(96, inputs)), torch.randn(40, inputs), torch.randn(40, 96)
    plain, gelu, added = linear(x), linear.gelu(x), linear.add(x, residual)
    for rows in ([3, 7], [39, 0, 12], list(range(5, 22))):
        assert torch.equal(linear(x[rows]), plain[rows])
        assert torch.equal(linear.gelu(x[rows]), gelu[rows])
        assert torch.equal(linear.add(x[rows], residual[rows]), added[rows])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_follows_a_product_is_fused_in(dtype: torch.dtype) -> None:
    weight, x, residual = torch.randn(24, 16).to(dtype), torch.randn(5, 16).to(dtype), torch.randn(5, 24).to(dtype)
    linear, product = Linear(weight), torch.nn.functional.linear(x, weight)
    close = {"atol": 1e-4, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 0.1, "rtol": 0.02}
    torch.testing.assert_close(linear(x), product, **close)
    torch.testing.assert_close(linear.gelu(x), torch.nn.functional.gelu(product), **close)
    torch.testing.assert_close(linear.add(x, residual), product + residual, **close)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_logits_equal_the_reference(guidance: float) -> None:
    model = build_musicgen(hidden=64, layers=3)
    tokens = tokenize(CAPTIONS)
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


def test_the_last_logits_have_the_same_bits_in_any_batch() -> None:
    transformer = Transformer(build_musicgen(hidden=512, layers=2, num_attention_heads=8).decoder)
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near(dtype: torch.dtype) -> None:
    model = build_musicgen()
    tokens = tokenize(CAPTIONS)
    states, mask = encode(model, tokens)
    columns = torch.randint(0, 64, (3, 4, 1))
    logits = {}
    for kind in (torch.float32, dtype):
        transformer = Transformer(model.decoder.to(kind))
        text = transformer.read(states.to(kind), mask)
        logits[kind] = transformer.step(columns, 0, 1, transformer.new_cache(3, 1, True), text, True).float()
    assert (logits[dtype] - logits[torch.float32]).abs().max() < 0.1 * logits[torch.float32].abs().max()


def test_memory_is_counted() -> None:
    transformer = Transformer(build_musicgen().decoder)
    cache = transformer.new_cache(3, 10, True)
    held = sum(x.nbytes for side in (cache.keys, cache.values) for x in side)
    assert transformer.cache_bytes(10, True) * 3 == held
