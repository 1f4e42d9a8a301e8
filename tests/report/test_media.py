"""Media: a tone is where it should be in the picture, and survives as MP3."""

import io

import numpy as np
import pytest
from matplotlib.image import imread

from conceptcaps import signal
from conceptcaps.report.media import excerpt, mel_decibels, spectrogram, to_mp3


def tone(frequency, rate, seconds=1.0):
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def mel(frequency):
    return 2595 * np.log10(1 + frequency / 700)


@pytest.mark.parametrize("rate", [8000, 32000, 44100])
@pytest.mark.parametrize("frequency", [220, 1000, 3000])
def test_a_tone_lights_the_band_it_is_in(rate, frequency):
    picture = mel_decibels(tone(frequency, rate), rate)
    band = picture[:, picture.shape[1] // 2].argmax()
    assert abs(band - (mel(frequency) / mel(rate / 2) * 73 - 1)) <= 1.5
    assert picture.max() == 0
    assert picture.min() >= -80
    assert picture.shape[0] == 72


def test_silence_and_a_click_make_a_picture():
    for samples in (np.zeros(4000, np.float32), np.ones(3, np.float32)):
        image = imread(io.BytesIO(spectrogram(samples, 8000)), format="png")
        assert image.shape[0] == 72


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 32000, 44100, 48000])
def test_mp3_plays_for_as_long(rate):
    waveform, got = signal.decode(to_mp3(tone(440, rate), rate))
    assert got <= 32000
    assert waveform.shape[1] / got == pytest.approx(1, abs=0.08)
    spectrum = np.abs(np.fft.rfft(waveform[0]))
    assert spectrum.argmax() * got / waveform.shape[1] == pytest.approx(440, abs=3)


def test_excerpt_is_the_mono_beginning():
    stereo = np.stack([tone(440, 8000), np.zeros(8000, np.float32)])
    mono, rate = excerpt(signal.encode(stereo, 8000), 0.25)
    assert (mono.shape, rate) == ((2000,), 8000)
    assert np.allclose(mono, stereo.mean(0)[:2000], atol=1e-4)
