import numpy as np
import pytest
import torch

from conceptcaps.errors import InputError
from conceptcaps.tcav.classifier import (
    ClassifierShape,
    GenreClassifier,
    LogMel,
    SpecAugment,
    fit_length,
    from_bytes,
    mel_bank,
    to_bytes,
)
from conceptcaps.tcav.layers import LayerReader


def test_mel_bank_covers_every_band_in_order() -> None:
    bank = mel_bank(16_000, 1024, 64)
    np.testing.assert_allclose(bank.sum(1), 1)
    assert (np.diff(bank @ np.arange(513)) > 0).all()


def test_log_mel_puts_a_sine_in_its_band() -> None:
    time = torch.arange(16_000) / 16_000
    mel = LogMel(16_000, 1024, 320, 64)(torch.sin(2 * torch.pi * 1000 * time)[None])
    assert mel.shape == (1, 64, 51)
    centres = mel_bank(16_000, 1024, 64) @ np.linspace(0, 8000, 513)
    assert abs(centres[int(mel[0].mean(-1).argmax())] - 1000) < 60


def test_last_block_sees_two_beats_of_a_slow_tempo_and_the_first_does_not() -> None:
    torch.manual_seed(0)
    model = GenreClassifier(ClassifierShape(("a", "b"), width=4))
    reach = LayerReader(model, model.layers).time_reach(torch.randn(1, 5 * 16_000), 16_000)
    assert reach["block1"] < 0.2
    assert 1.8 < reach["block5"] < 2.2
    assert reach["bottleneck"] == reach["block5"]


def test_every_named_layer_has_gradients_and_any_length_is_taken() -> None:
    model = GenreClassifier(ClassifierShape(("a", "b", "c"), width=4, bottleneck_dim=16))
    for samples in (16_000, 50_000):
        reading = LayerReader(model, model.layers).read(torch.randn(2, samples), classes=range(3))
        assert reading.logits.shape == (2, 3)
        assert all(np.abs(reading.gradients[layer]).sum() > 0 for layer in model.layers)


def test_augmentation_masks_in_training_only() -> None:
    torch.manual_seed(0)
    augment, x = SpecAugment(0.5), torch.ones(8, 1, 32, 40)
    assert torch.equal(augment.eval()(x), x)
    masked = augment.train()(x)
    assert 0.5 < masked.mean() < 1
    assert not torch.equal(masked[0], masked[1])


def test_round_trip_of_weights_and_shape() -> None:
    model = GenreClassifier(ClassifierShape(("a", "b"), width=4, bottleneck_dim=8)).eval()
    again = from_bytes(to_bytes(model))
    x = torch.randn(2, 16_000)
    assert again.shape == model.shape
    assert torch.equal(again(x), model(x))
    with pytest.raises(InputError, match="no genre classifier"):
        from_bytes(b"nonsense")


def test_fit_length_crops_or_pads() -> None:
    clip = np.arange(10, dtype=np.float32)
    assert fit_length(clip, 4, 0.0).tolist() == [0, 1, 2, 3]
    assert fit_length(clip, 4, 1.0).tolist() == [6, 7, 8, 9]
    assert fit_length(clip, 12).tolist() == [*range(10), 0, 0]
