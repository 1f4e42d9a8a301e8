"""Waveform checks on signals of known measure, and collection distances against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import linalg

from conceptcaps.metrics import audio

RATE = 48_000


def sine(frequency: float, amplitude: float, seconds: float = 3.0, rate: int = RATE) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)).astype(np.float32)[None]


def noise(seconds: float = 3.0, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal((1, int(seconds * RATE)))).astype(np.float32)


@pytest.mark.parametrize("rate", [16_000, 32_000, 44_100, 48_000])
def test_loudness_of_the_standards_own_tone(rate):
    """BS.1770-4: a 997 Hz sine at full scale in one channel reads -3.01 LKFS; at -20 dBFS, 20 less."""
    assert audio.loudness(sine(997, 1.0, rate=rate), rate) == pytest.approx(-3.01, abs=0.1)
    assert audio.loudness(sine(997, 0.1, rate=rate), rate) == pytest.approx(-23.01, abs=0.1)


def test_loudness_adds_channels_and_gates_pauses():
    tone = sine(997, 0.1)
    assert audio.loudness(np.concatenate([tone, tone]), RATE) == pytest.approx(-20.0, abs=0.1)
    paused = np.concatenate([tone, np.zeros((1, 5 * RATE), np.float32)], axis=1)
    assert audio.loudness(paused, RATE) == pytest.approx(audio.loudness(tone, RATE), abs=0.5)
    assert audio.loudness(np.zeros((1, RATE), np.float32), RATE) == -120
    assert np.isfinite(audio.loudness(sine(997, 0.1, 0.1), RATE))


def test_low_tones_weigh_less():
    assert audio.loudness(sine(40, 0.3), RATE) < audio.loudness(sine(1000, 0.3), RATE) - 3


def test_silent_fraction():
    half = np.concatenate([sine(440, 0.2, 1.0), np.zeros((1, RATE), np.float32)], axis=1)
    assert audio.silent_fraction(half, RATE) == pytest.approx(0.5, abs=0.03)
    assert audio.silent_fraction(sine(440, 0.2), RATE) == 0
    assert audio.silent_fraction(np.zeros((2, 100), np.float32), RATE) == 1
    one_sided = np.concatenate([sine(440, 0.2, 1.0), np.zeros((1, RATE), np.float32)])
    assert audio.silent_fraction(one_sided, RATE) == 0


def test_clipped_fraction():
    clean = sine(440, 0.99)
    clipped = np.clip(2.0 * clean, -0.99, 0.99)
    assert audio.clipped_fraction(clean) < 0.001
    # A sine of twice the limit is beyond it for 2/3 of the time.
    assert audio.clipped_fraction(clipped) == pytest.approx(2 / 3, abs=0.02)
    assert audio.clipped_fraction(np.clip(sine(440, 0.4), -0.2, 0.2)) == 0
    assert audio.clipped_fraction(np.zeros((1, 0), np.float32)) == 0


def test_dc_offset():
    assert audio.dc_offset(sine(440, 0.5)) < 1e-3
    assert audio.dc_offset(np.concatenate([sine(440, 0.5), sine(440, 0.5) - 0.2])) == pytest.approx(0.2, abs=1e-3)


def test_flatness_tells_noise_from_tones():
    assert audio.spectral_flatness(noise()) == pytest.approx(np.exp(-np.euler_gamma), abs=0.02)
    assert audio.spectral_flatness(sine(440, 0.5)) < 0.01
    assert audio.spectral_flatness(np.zeros((1, 10_000), np.float32)) == 1
    assert 0 < audio.spectral_flatness(sine(440, 0.5, 0.01)) <= 1


def test_repetition_finds_loops():
    loop = np.tile(noise(0.75), 4)
    assert audio.repetition(loop, RATE) > 0.99
    assert audio.repetition(noise(), RATE) < 0.1
    assert audio.repetition(np.zeros((1, RATE * 2), np.float32), RATE) == 0
    assert audio.repetition(noise(0.2), RATE) == 0


def test_moments_of_parts_add_up():
    x = np.random.default_rng(0).standard_normal((90, 5)).astype(np.float32)
    whole = audio.Moments.of(x)
    parts = audio.Moments.of(x[:20]) + audio.Moments.of(x[20:21]) + audio.Moments.of(x[21:])
    np.testing.assert_allclose(parts.mean, x.mean(0), atol=1e-6)
    np.testing.assert_allclose(parts.covariance, np.cov(x.T), atol=1e-6)
    assert parts.count == whole.count == 90


def test_frechet_distance_agrees_with_the_matrix_square_root():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((200, 6)), rng.standard_normal((150, 6)) @ rng.standard_normal((6, 6)) + 0.3
    a, b = np.cov(x.T), np.cov(y.T)
    wanted = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real)
    found = audio.frechet_distance(audio.Moments.of(x), audio.Moments.of(y))
    assert found == pytest.approx(wanted, rel=1e-6)
    assert found == pytest.approx(audio.frechet_distance(audio.Moments.of(y), audio.Moments.of(x)))
    assert audio.frechet_distance(audio.Moments.of(x), audio.Moments.of(x)) == pytest.approx(0, abs=1e-8)
    with pytest.raises(ValueError, match="two clips"):
        audio.frechet_distance(audio.Moments.of(x[:1]), audio.Moments.of(y))


def test_kernel_distance_is_unbiased_and_sees_a_shift():
    rng = np.random.default_rng(2)
    same = [
        audio.kernel_distance(rng.standard_normal((30, 8)), rng.standard_normal((40, 8)), bandwidth=4.0)
        for _ in range(60)
    ]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(len(same))
    assert min(same) < 0
    shifted = audio.kernel_distance(rng.standard_normal((30, 8)) + 1, rng.standard_normal((40, 8)), bandwidth=4.0)
    assert shifted > max(same)


def test_kernel_distance_by_the_definition():
    x, y = np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]])
    k = lambda d: np.exp(-(d**2) / 8)  # noqa: E731
    wanted = k(1) + k(2) - 2 * np.mean([k(0), k(2), k(1), k(1)])
    assert audio.median_distance(y) == 2
    assert audio.kernel_distance(x, y) == pytest.approx(wanted)


def test_kernel_means_of_parts_add_up_to_the_kernel_distance():
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((60, 8)) + 0.7, rng.standard_normal((80, 8))
    width = audio.median_distance(y)
    parts = audio.KernelMean.of(x[:25], width) + audio.KernelMean.of(x[25:], width)
    found = parts.distance(audio.KernelMean.of(y, width))
    assert found == pytest.approx(audio.kernel_distance(x, y, width), abs=0.03)
    assert found == pytest.approx(audio.KernelMean.of(x, width).distance(audio.KernelMean.of(y, width)))
