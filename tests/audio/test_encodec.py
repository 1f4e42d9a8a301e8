from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_musicgen import build_musicgen

from conceptcaps.audio.encodec import Codec

CPU = torch.device("cpu")


def test_audio_equals_the_model_s_own() -> None:
    encodec = build_musicgen().audio_encoder
    codes = torch.randint(0, 64, (3, 4, 20))
    with torch.no_grad():
        expected = encodec.decode(codes[None], [None]).audio_values
    audio = Codec(encodec, 1, CPU).decode(codes, 300)
    assert audio.shape == (3, 1, 300)
    assert torch.allclose(audio, expected[..., :300], atol=1e-5)


def test_left_and_right_alternate() -> None:
    encodec = build_musicgen().audio_encoder
    codes = torch.randint(0, 64, (2, 8, 10))
    mono, stereo = Codec(encodec, 1, CPU), Codec(encodec, 2, CPU)
    audio = stereo.decode(codes, 160)
    assert audio.shape == (2, 2, 160)
    assert torch.equal(audio[:, :1], mono.decode(codes[:, ::2], 160))
    assert torch.equal(audio[:, 1:], mono.decode(codes[:, 1::2], 160))


def test_a_clip_has_the_same_bits_in_any_batch() -> None:
    codec = Codec(build_musicgen().audio_encoder, 1, CPU)
    codes = torch.randint(0, 64, (5, 4, 30))
    assert torch.equal(codec.decode(codes, 480)[3:4], codec.decode(codes[3:4], 480))


def test_frames_cover_the_samples() -> None:
    codec = Codec(build_musicgen().audio_encoder, 1, CPU)
    assert [codec.num_frames(n) for n in (1, 16, 17, 160)] == [1, 1, 2, 10]


def test_full_scale_is_kept() -> None:
    encodec = build_musicgen().audio_encoder
    for layer in encodec.quantizer.layers:
        layer.codebook.embed.mul_(1000)
    audio = Codec(encodec, 1, CPU).decode(torch.randint(0, 64, (1, 4, 30)), 480).numpy()
    assert np.abs(audio).max() == 1


def test_chunks_that_do_not_fit_are_halved_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Codec(build_musicgen().audio_encoder, 1, CPU)
    codes = torch.randint(0, 64, (6, 4, 30))
    expected = codec.decode(codes, 480)
    decode, tried = codec._model.decode, []

    def small(part: torch.Tensor, *args: object) -> object:
        tried.append(part.shape[1])
        if part.shape[1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(part, *args)

    monkeypatch.setattr(codec._model, "decode", small)
    monkeypatch.setattr(codec, "_chunk", lambda frames: max(1, int(codec._chunk_seconds / 40)))
    for sizes in ([6, 3, 1, 1, 1, 1, 1, 1], [1] * 6):
        assert torch.allclose(codec.decode(codes, 480), expected, atol=1e-5)
        assert tried == sizes
        tried.clear()
