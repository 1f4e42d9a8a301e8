from __future__ import annotations

import pytest
import torch
from transformers import MusicgenDecoderConfig, MusicgenForCausalLM

from conceptcaps.audio import delay

START = 9


def test_columns_of_four_codebooks() -> None:
    columns = delay.to_columns(torch.empty(1, 4, 0, dtype=torch.int64), 3, delay.delays(4, 1), START)
    assert columns[0].tolist() == [
        [9, -1, -1, -1, 9, 9, 9],
        [9, 9, -1, -1, -1, 9, 9],
        [9, 9, 9, -1, -1, -1, 9],
        [9, 9, 9, 9, -1, -1, -1],
    ]


@pytest.mark.parametrize(("codebooks", "channels"), [(4, 1), (8, 2)])
@pytest.mark.parametrize("known", [0, 3])
def test_columns_are_the_reference_pattern(codebooks: int, channels: int, known: int) -> None:
    config = MusicgenDecoderConfig(
        vocab_size=START, hidden_size=8, num_hidden_layers=1, ffn_dim=8, num_attention_heads=1,
        num_codebooks=codebooks, audio_channels=channels, pad_token_id=START, bos_token_id=START,
    )  # fmt: skip
    codes = torch.randint(0, START, (2, codebooks, known))
    start = torch.full((2 * codebooks, 1), START)
    prompt = torch.cat([start, codes.reshape(2 * codebooks, known)], 1)
    lags = delay.delays(codebooks, channels)
    _, pattern = MusicgenForCausalLM(config).build_delay_pattern_mask(
        prompt, pad_token_id=START, max_length=delay.num_columns(12, lags)
    )
    assert torch.equal(delay.to_columns(codes, 12, lags, START), pattern.view(2, codebooks, -1))


def test_codes_return_from_columns() -> None:
    codes = torch.randint(0, START, (2, 8, 5))
    lags = delay.delays(8, 2)
    assert torch.equal(delay.to_codes(delay.to_columns(codes, 5, lags, START), 5, lags), codes)


def test_every_place_knows_its_frame() -> None:
    frames = delay.frames_of_columns(6, delay.delays(4, 1), torch.device("cpu"))
    assert frames[:, 0].tolist() == [-1, 0, 1, 2, 3, 4]
    assert frames[:, 3].tolist() == [-4, -3, -2, -1, 0, 1]
