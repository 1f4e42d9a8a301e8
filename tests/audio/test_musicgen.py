from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_musicgen import build_musicgen, save_musicgen
from transformers import BertConfig

from conceptcaps.audio import make_synthesiser, musicgen
from conceptcaps.audio.musicgen import MusicgenSynthesiser
from conceptcaps.config.audio import AudioConfig
from conceptcaps.errors import InputError

CAPTIONS = ["slow piano", "fast loud drums with guitar and techno 120 bpm", "calm", "jazz", "warm bright song"]
ROWS = {"caption": CAPTIONS, "seed": [11, 2**62 + 5, 13, 14, 15]}


def config(checkpoint: Path | str, duration: float = 0.25, **settings: Any) -> AudioConfig:
    return AudioConfig(
        engine="musicgen", duration=duration, musicgen={"model": str(checkpoint), "top_k": 20, **settings}
    )


@pytest.fixture(scope="module")
def engine(mono_checkpoint: Path) -> MusicgenSynthesiser:
    return MusicgenSynthesiser(config(mono_checkpoint))


def pick(rows: list[int]) -> dict[str, list[Any]]:
    return {name: [values[i] for i in rows] for name, values in ROWS.items()}


def test_waveforms_have_rate_length_and_range(engine: MusicgenSynthesiser) -> None:
    waveforms = engine(ROWS)
    assert engine.sampling_rate == 1600
    assert len(waveforms) == 5
    for waveform in waveforms:
        assert waveform.dtype == np.float32
        assert waveform.shape == (1, 400)
        assert np.abs(waveform).max() <= 1
        assert np.isfinite(waveform).all()


def test_stereo_has_two_channels(stereo_checkpoint: Path) -> None:
    waveforms = make_synthesiser(config(stereo_checkpoint, 0.2))(ROWS)
    assert {waveform.shape for waveform in waveforms} == {(2, 320)}
    assert not np.array_equal(waveforms[0][0], waveforms[0][1])


@pytest.mark.parametrize("duration", [0.1, 0.1001, 0.333, 1 / 1600])
def test_length_is_exact(mono_checkpoint: Path, duration: float) -> None:
    waveform = MusicgenSynthesiser(config(mono_checkpoint, duration))(pick([0]))[0]
    assert waveform.shape[1] == round(duration * 1600)


def test_a_clip_has_the_same_bits_in_any_batch(engine: MusicgenSynthesiser) -> None:
    whole = engine(ROWS)
    for rows in ([0], [4], [1, 3], [3, 2, 1]):
        for row, waveform in zip(rows, engine(pick(rows)), strict=True):
            assert np.array_equal(waveform, whole[row])


def test_a_clip_has_the_same_bits_in_another_worker(engine: MusicgenSynthesiser, mono_checkpoint: Path) -> None:
    again = MusicgenSynthesiser(config(mono_checkpoint, clips_at_once=2))
    assert all(np.array_equal(a, b) for a, b in zip(engine(ROWS), again(ROWS), strict=True))


def test_the_seed_makes_the_clip(engine: MusicgenSynthesiser) -> None:
    one, two, three = engine({"caption": ["calm"] * 3, "seed": [1, 2, 1]})
    assert np.array_equal(one, three)
    assert not np.array_equal(one, two)


def test_global_random_state_is_neither_read_nor_moved(engine: MusicgenSynthesiser) -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = engine(pick([0]))[0]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert np.array_equal(engine(pick([0]))[0], first)


def test_a_long_clip_continues_beyond_the_positions(tmp_path: Path) -> None:
    checkpoint = save_musicgen(tmp_path, build_musicgen(max_position_embeddings=50))
    # 50 positions are under half a second at 100 frames a second, whatever the windows wished for
    waveform = MusicgenSynthesiser(config(checkpoint, 1.0, extend_stride=0.3))(pick([0]))[0]
    assert waveform.shape == (1, 1600)
    start = MusicgenSynthesiser(config(checkpoint, 0.45, extend_stride=0.3))(pick([0]))[0]
    assert np.allclose(waveform[:, :600], start[:, :600], atol=0.02)
    assert np.abs(waveform[:, 800:]).max() > 0.02


def test_out_of_memory_halves_the_batch(
    mono_checkpoint: Path, engine: MusicgenSynthesiser, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    fussy = MusicgenSynthesiser(config(mono_checkpoint))
    generate, sizes = fussy._decoder.generate, []

    def refuse_more_than_two(states: torch.Tensor, *rest: Any) -> Any:
        sizes.append(len(states))
        if len(states) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(states, *rest)

    monkeypatch.setattr(fussy._decoder, "generate", refuse_more_than_two)
    with caplog.at_level(logging.WARNING):
        waveforms = fussy(ROWS)
    assert sizes == [5, 2, 2, 1]
    assert "going on with 2" in caplog.text
    assert all(np.array_equal(a, b) for a, b in zip(waveforms, engine(ROWS), strict=True))
    sizes.clear()
    fussy(ROWS)
    assert sizes == [2, 2, 1]


def test_memory_for_not_even_one_clip_is_an_error(mono_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = MusicgenSynthesiser(config(mono_checkpoint))

    def refuse(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(small._decoder, "generate", refuse)
    with pytest.raises(torch.OutOfMemoryError):
        small(ROWS)


def test_other_errors_pass(engine: MusicgenSynthesiser, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("something else")

    monkeypatch.setattr(engine._decoder, "generate", fail)
    with pytest.raises(RuntimeError, match="something else"):
        engine(ROWS)


def test_batch_size_follows_free_memory(mono_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = MusicgenSynthesiser(config(mono_checkpoint))
    each = engine._decoder.bytes_per_clip(25)
    monkeypatch.setattr(musicgen, "_free_bytes", lambda *_: int(each * 3 / 0.8) + 1)
    assert engine._clips_that_fit() == 3
    monkeypatch.setattr(musicgen, "_free_bytes", lambda *_: 0)
    assert engine._clips_that_fit() == 1


def test_the_batch_size_is_reckoned_once(mono_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Afterwards its own cache has taken what was free."""
    engine = MusicgenSynthesiser(config(mono_checkpoint))
    each = engine._decoder.bytes_per_clip(25)
    seen: list[int] = []
    generate = engine._decoder.generate
    monkeypatch.setattr(engine._decoder, "generate", lambda *args: (seen.append(len(args[2])), generate(*args))[1])
    for free in (int(each * 4 / 0.8) + 1, 0):
        monkeypatch.setattr(musicgen, "_free_bytes", lambda *_, free=free: free)
        engine(ROWS)
    assert seen == [4, 1, 4, 1]


def test_overflow_is_an_error_that_names_the_row(engine: MusicgenSynthesiser, monkeypatch: pytest.MonkeyPatch) -> None:
    generate = engine._decoder.generate

    def overflow(*args: Any) -> Any:
        codes, finite = generate(*args)
        return codes, finite & torch.tensor([True, False])

    monkeypatch.setattr(engine._decoder, "generate", overflow)
    with pytest.raises(FloatingPointError, match="14"):
        engine(pick([0, 3]))


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        MusicgenSynthesiser(config(tmp_path))


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="bert checkpoint, not musicgen"):
        MusicgenSynthesiser(config(tmp_path))


def test_a_checkpoint_without_weights_is_refused(mono_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((mono_checkpoint / "config.json").read_text())
    with pytest.raises(InputError, match="cannot be read"):
        MusicgenSynthesiser(config(tmp_path))


def test_a_hub_out_of_reach_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="network"):
        MusicgenSynthesiser(config("nobody/no-such-model"))


def test_a_clip_without_a_sample_is_refused(mono_checkpoint: Path) -> None:
    with pytest.raises(InputError, match="holds no sample"):
        MusicgenSynthesiser(config(mono_checkpoint, 1e-5))


def test_windows_must_touch() -> None:
    with pytest.raises(ValueError, match="extend_stride"):
        config("x", window=10, extend_stride=11)
