"""ClapAligner against transformers' own processor and model, on tiny checkpoints of the true architecture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_clap import RATE, TEXTS, tones, write_checkpoint
from transformers import ClapFeatureExtractor, LlamaConfig

from conceptcaps.alignment.clap import ClapAligner, load_checkpoint
from conceptcaps.alignment.mel import MelFrontEnd
from conceptcaps.config.alignment import AlignmentConfig
from conceptcaps.config.base import Resources
from conceptcaps.errors import InputError


@pytest.fixture(scope="module")
def unfused(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("unfused"), fusion=False)


def aligner(folder: Path | str, batch_size: int = 4) -> ClapAligner:
    return ClapAligner(AlignmentConfig(model=str(folder), resources=Resources(batch_size=batch_size)))


@pytest.mark.parametrize("padding", ["repeatpad", "repeat", "pad"])
@pytest.mark.parametrize("truncation", ["rand_trunc", "fusion"])
def test_front_end_equals_the_extractor_up_to_one_window(padding, truncation):
    extractor = ClapFeatureExtractor(truncation=truncation, padding=padding)
    front_end = MelFrontEnd(extractor, torch.device("cpu"))
    for wave in tones(0.7, 3.3, 10.0, rate=48_000):
        wanted = extractor(wave[0], sampling_rate=48_000, return_tensors="pt")["input_features"]
        found, is_longer = front_end.features(front_end.windows(wave[0]))
        assert found.shape == wanted.shape
        assert (found - wanted).abs().max() < 1e-4
        assert not is_longer.any()


def test_front_end_equals_the_extractor_on_a_window_of_a_long_clip(monkeypatch):
    extractor = ClapFeatureExtractor(truncation="rand_trunc")
    front_end = MelFrontEnd(extractor, torch.device("cpu"))
    wave = tones(14.0, rate=48_000)[0][0]
    windows = front_end.windows(wave)
    assert [w.shape[0] for w in windows] == [480_000, 480_000]
    monkeypatch.setattr(np.random, "randint", lambda low, high: high - 1)
    wanted = extractor(wave, sampling_rate=48_000, return_tensors="pt")["input_features"]
    assert (front_end.features(windows)[0][1] - wanted[0]).abs().max() < 1e-4


def test_fused_long_clip_equals_the_extractor_that_draws_the_middles(monkeypatch):
    extractor = ClapFeatureExtractor(truncation="fusion")
    front_end = MelFrontEnd(extractor, torch.device("cpu"))
    wave = tones(17.0, rate=48_000)[0][0]
    monkeypatch.setattr(np.random, "choice", lambda options: options[len(options) // 2])
    wanted = extractor(wave, sampling_rate=48_000, return_tensors="pt")
    found, is_longer = front_end.features(front_end.windows(wave))
    assert (found - wanted["input_features"]).abs().max() < 1e-3
    assert (found - wanted["input_features"]).abs().mean() < 1e-5
    assert is_longer.all()


def test_embeddings_equal_those_of_processor_and_model(unfused):
    engine = aligner(unfused)
    model, tokenizer, extractor = load_checkpoint(str(unfused))
    model.eval()
    waves = tones(0.4, 1.0, 0.9, 1.0, 0.7)
    with torch.inference_mode():
        inputs = extractor([w[0] for w in waves], sampling_rate=RATE, return_tensors="pt")
        audio = model.get_audio_features(**inputs).pooler_output.numpy()
        tokens = tokenizer(TEXTS, padding=True, return_tensors="pt")
        text = model.get_text_features(tokens["input_ids"], tokens["attention_mask"]).pooler_output.numpy()
    np.testing.assert_allclose(engine.embed_audio(waves, RATE), audio, atol=1e-5)
    np.testing.assert_allclose(engine.embed_text(TEXTS), text, atol=1e-5)


def test_embeddings_are_unit_float32_and_differ(unfused):
    engine = aligner(unfused)
    audio, text = engine.embed_audio(tones(0.5, 2.5), RATE), engine.embed_text(TEXTS)
    for found in (audio, text):
        assert found.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert abs(float(audio[0] @ audio[1])) < 0.9999
    assert engine.embed_text([]).shape == (0, 24)


def test_row_keeps_its_embedding_in_any_batch(unfused):
    waves = tones(0.5, 1.0, 3.2, 0.8, 1.7)
    whole = aligner(unfused, batch_size=8).embed_audio(waves, RATE)
    for i, wave in enumerate(waves):
        np.testing.assert_allclose(aligner(unfused, batch_size=1).embed_audio([wave], RATE)[0], whole[i], atol=1e-5)


def test_long_clip_is_the_mean_of_its_windows(unfused):
    engine = aligner(unfused)
    wave = tones(2.0)[0]
    parts = engine.embed_audio([wave[:, :RATE], wave[:, RATE:]], RATE)
    mean = parts.sum(0) / np.linalg.norm(parts.sum(0))
    np.testing.assert_allclose(engine.embed_audio([wave], RATE)[0], mean, atol=1e-5)
    windows, short = engine.embed_windows([wave, wave[:, :RATE]], RATE)
    np.testing.assert_allclose(windows, parts, atol=1e-5)
    assert short.shape == (1, 24)


def test_other_rates_and_stereo_are_brought_to_the_models(unfused):
    engine = aligner(unfused)
    slow, fast = tones(1.0, rate=RATE)[0], tones(1.0, rate=2 * RATE)[0]
    stereo = np.concatenate([slow, slow])
    np.testing.assert_allclose(engine.embed_audio([stereo], RATE), engine.embed_audio([slow], RATE), atol=1e-5)
    assert engine.embed_audio([fast], 2 * RATE).shape == (1, 24)


def test_fused_checkpoint_hears_long_clips_in_one_pass(tmp_path):
    engine = aligner(write_checkpoint(tmp_path, fusion=True))
    found = engine.embed_audio(tones(0.5, 3.0), RATE)
    assert found.shape == (2, 24)
    np.testing.assert_allclose(found, engine.embed_audio(tones(0.5, 3.0), RATE))


def test_texts_are_embedded_once(unfused, monkeypatch):
    engine = aligner(unfused)
    first = engine.embed_text([TEXTS[0], TEXTS[0], TEXTS[1]])
    monkeypatch.setattr(engine, "forward_texts", lambda texts: pytest.fail(f"embedded again: {texts}"))
    np.testing.assert_array_equal(engine.embed_text([TEXTS[1], TEXTS[0]]), first[[2, 0]])


def test_too_long_text_is_cut_not_refused(unfused):
    assert aligner(unfused).embed_text(["piano " * 400]).shape == (1, 24)


def test_clip_without_samples_is_refused(unfused):
    with pytest.raises(ValueError, match="clip 1 has no samples"):
        aligner(unfused).embed_audio([*tones(0.5), np.zeros((1, 0), np.float32)], RATE)


def test_path_that_is_no_checkpoint(tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        aligner(tmp_path / "nothing")
    with pytest.raises(InputError, match="no checkpoint that can be reached"):
        aligner(tmp_path)


def test_checkpoint_of_another_architecture(tmp_path):
    LlamaConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="'llama' checkpoint, not a ClapModel"):
        aligner(tmp_path)


def test_hub_out_of_reach(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="nobody/no-such-clap"):
        aligner("nobody/no-such-clap")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_embeddings_on_a_gpu_are_a_cpus(unfused):
    resources = Resources(batch_size=4, num_gpus=0.1)
    on_gpu, on_cpu = ClapAligner(AlignmentConfig(model=str(unfused), resources=resources)), aligner(unfused)
    waves = tones(0.4, 1.0, 2.5)
    assert np.abs(on_gpu.embed_audio(waves, RATE) - on_cpu.embed_audio(waves, RATE)).max() < 1e-3
    assert np.abs(on_gpu.embed_text(TEXTS) - on_cpu.embed_text(TEXTS)).max() < 1e-3
