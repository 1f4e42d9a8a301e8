"""What only a GPU can tell: recorded steps against plain ones and against a CPU's, in every precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_musicgen import build_musicgen, encode, tokenize

from conceptcaps.audio.decoding import Decoder, Window
from conceptcaps.audio.musicgen import MusicgenSynthesiser
from conceptcaps.audio.sampling import Sampling
from conceptcaps.audio.transformer import Transformer
from conceptcaps.config.audio import AudioConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
]
GPU = "cuda"
FRAMES = 330  # two windows, each longer than the columns of one recording
WINDOW = Window(200, 130)
CAPTIONS = ["slow piano", "fast loud drums with guitar and techno 120 bpm", "calm"]


def batches() -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Many clips, few clips with long texts, many again: every buffer serves another batch than it was made for."""
    found = []
    for clips, repeats in ((40, 1), (3, 9), (37, 1)):
        captions = [" ".join([CAPTIONS[i % 3]] * repeats) for i in range(clips)]
        found.append((*encode(build_musicgen(), tokenize(captions)), torch.arange(clips) + 1000 * clips))
    return found


def decode(device: str, dtype: torch.dtype, recorded: bool) -> list[torch.Tensor]:
    transformer = Transformer(build_musicgen().decoder.to(device, dtype))
    decoder = Decoder(transformer, Sampling(top_k=20), 1, WINDOW, recorded)
    codes = []
    for states, mask, seeds in batches():
        made, finite = decoder.generate(states.to(device), mask.to(device), seeds.to(device), FRAMES)
        assert finite.all()
        codes.append(made.cpu())
    return codes


def share_of_equal_rows(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    same = [(a == b).flatten(1).all(1) for a, b in zip(one, other, strict=True)]
    return float(torch.cat(same).float().mean())


def test_tokens_in_single_precision_are_a_cpus() -> None:
    assert share_of_equal_rows(decode(GPU, torch.float32, True), decode("cpu", torch.float32, False)) >= 0.99


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_recorded_steps_are_plain_ones(dtype: torch.dtype) -> None:
    """The same kernels but for the columns that are masked, whose share in a sum is 0."""
    recorded, plain = decode(GPU, dtype, True), decode(GPU, dtype, False)
    assert share_of_equal_rows(recorded, decode(GPU, dtype, True)) == 1
    started = [(a[..., :8] == b[..., :8]).float().mean() for a, b in zip(recorded, plain, strict=True)]
    assert min(started) > (0.99 if dtype == torch.float32 else 0.9)


def test_a_clip_that_overflowed_leaves_nothing_behind() -> None:
    decoder = Decoder(Transformer(build_musicgen().decoder.to(GPU)), Sampling(), 1, WINDOW)
    states, mask, seeds = (x.to(GPU) for x in batches()[1])
    expected, _ = decoder.generate(states, mask, seeds, 20)
    broken = states.clone()
    broken[1, 0, 0] = torch.nan
    assert decoder.generate(broken, mask, seeds, 20)[1].tolist() == [True, False, True]
    decoder.clean()
    codes, finite = decoder.generate(states, mask, seeds, 20)
    assert finite.all()
    assert torch.equal(codes, expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_an_engine_keeps_its_batch_size_and_its_clips(mono_checkpoint: Path, dtype: str) -> None:
    settings = {"model": str(mono_checkpoint), "top_k": 20, "dtype": dtype}
    engine = MusicgenSynthesiser(
        AudioConfig(engine="musicgen", duration=0.5, musicgen=settings, resources={"num_gpus": 1})
    )
    rows = {"caption": CAPTIONS * 5, "seed": list(range(15))}
    first = engine(rows)
    chosen = engine._clips_at_once
    second = engine(rows)
    assert engine._clips_at_once == chosen
    assert all(np.allclose(a, b, atol=1e-4) for a, b in zip(first, second, strict=True))
    assert all(np.isfinite(a).all() and a.shape == (1, 800) for a in first)
