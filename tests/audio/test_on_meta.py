"""The path that a GPU takes, on the meta device: every operation stays there, and none waits for a value."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from meta_device import META, OnlyMeta, to_meta
from tiny_musicgen import build_musicgen

from conceptcaps.audio import musicgen
from conceptcaps.audio.decoding import Decoder, Window
from conceptcaps.audio.musicgen import MusicgenSynthesiser
from conceptcaps.audio.sampling import Sampling
from conceptcaps.audio.transformer import Transformer
from conceptcaps.config.audio import AudioConfig


def decoder_on_meta(dtype: torch.dtype, channels: int, sampling: Sampling, **kwargs: Any) -> Decoder:
    model = build_musicgen(channels=channels)
    return Decoder(Transformer(to_meta(model.decoder.to(dtype))), sampling, channels, Window(12, 7), **kwargs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("channels", "sampling"),
    [
        (1, Sampling()),
        (2, Sampling(guidance_scale=1.0)),
        (1, Sampling(top_k=1)),
        (2, Sampling(top_p=0.9, temperature=0.8)),
    ],
    ids=["top-k", "no guidance", "greedy", "nucleus"],
)
def test_decoding_never_leaves_the_device(dtype: torch.dtype, channels: int, sampling: Sampling) -> None:
    decoder = decoder_on_meta(dtype, channels, sampling, recorded=True)
    states = torch.empty(3, 5, 32, device=META)
    mask = torch.empty(3, 5, dtype=torch.bool, device=META)
    with OnlyMeta() as seen:
        codes, finite = decoder.generate(states, mask, torch.empty(3, dtype=torch.int64, device=META), 16)
    assert codes.shape == (3, 4 * channels, 16)
    assert finite.shape == (3,)
    assert seen.calls["aten::index_copy_"] > 100  # steps write where a position on the device says


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (lambda x: x.sum().item(), r"item\(\) cannot be called on meta"),
        (lambda x: x[x > 0], "nonzero"),
        (lambda x: x[torch.tensor([0, 1])], r"aten\.index\.Tensor on the device takes a tensor of \{'cpu'\}"),
        (lambda x: x @ torch.ones(4, 2), r"aten\.mm\.default on the device takes a tensor of \{'cpu'\}"),
        (lambda x: x.copy_(torch.ones(3, 4)), r"aten\.copy_\.default on the device takes a tensor of \{'cpu'\}"),
        (lambda x: x.cpu(), "Cannot copy out of meta tensor"),
    ],
    ids=["value", "shape from values", "host index", "host factor", "host source", "copy to the host"],
)
def test_what_a_gpu_would_wait_for_is_refused(wrong: Callable[[torch.Tensor], Any], problem: str) -> None:
    """The meta device refuses some of it, `OnlyMeta` the rest."""
    with pytest.raises((AssertionError, RuntimeError), match=problem), OnlyMeta():
        wrong(torch.empty(3, 4, device=META))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_batch_waits_for_the_device_thrice(
    mono_checkpoint: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For transformers' look at the text's mask, for the codes' health, and for the clips."""
    config = AudioConfig(engine="musicgen", duration=0.15, musicgen={"model": str(mono_checkpoint), "dtype": dtype})
    monkeypatch.setattr(musicgen, "device_for", lambda *_: META)
    engine = MusicgenSynthesiser(config)
    rows = {"caption": ["slow piano", "calm", "fast loud drums"], "seed": [1, 2, 3]}
    with OnlyMeta(read_back=True) as seen:
        waveforms = engine(rows)
    assert [waveform.shape for waveform in waveforms] == [(1, 240)] * 3
    assert seen.read == 2 + 3
