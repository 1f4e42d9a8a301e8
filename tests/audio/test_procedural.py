"""Every attribute that the synthesiser renders is measured in its samples, over many seeds."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import signal
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from conceptcaps.audio.arrangement import Arrangement, arrange
from conceptcaps.audio.percussion import KITS
from conceptcaps.audio.procedural import SAMPLING_RATE, ProceduralSynthesiser, render
from conceptcaps.config.audio import AudioConfig

RATE = SAMPLING_RATE
SECONDS = 6.0
SEEDS = range(10)
HOP = 256


def clip(arrangement: Arrangement, seed: int, seconds: float = SECONDS) -> np.ndarray:
    return render(arrangement, seconds, RATE, seed)[0]


def drawn(seed: int, *tags: str) -> Arrangement:
    """An arrangement whose other attributes are anything."""
    return arrange(tags, seed)


def spectrogram(wave: np.ndarray, size: int = 2048) -> tuple[np.ndarray, np.ndarray]:
    f, _, power = signal.spectrogram(wave, RATE, nperseg=size, noverlap=size - (HOP if size < 2048 else size // 2))
    return f, power


def onset_envelope(wave: np.ndarray) -> np.ndarray:
    """Positive spectral flux at RATE / HOP frames per second."""
    _, power = spectrogram(wave, 1024)
    loud = np.log1p(1e6 * power)
    flux = np.maximum(np.diff(loud, axis=1), 0).sum(0)
    return flux - flux.mean()


def pulse_strength(wave: np.ndarray, bpm: float) -> float:
    """Autocorrelation of the onset envelope at the beat, relative to that at lag zero."""
    envelope = onset_envelope(wave)
    spectrum = np.abs(np.fft.rfft(envelope, 2 * envelope.size)) ** 2
    correlation = np.fft.irfft(spectrum)[: envelope.size]
    correlation /= correlation[0] * np.arange(envelope.size, 0, -1) / envelope.size
    lag = 60 / bpm * RATE / HOP
    return float(correlation[round(lag) - 1 : round(lag) + 2].max())


def band(wave: np.ndarray, low: float, high: float) -> float:
    f, power = spectrogram(wave, 4096)
    return float(power[(f >= low) & (f < high)].sum())


def centroid(wave: np.ndarray) -> float:
    f, power = spectrogram(wave)
    return float((f[:, None] * power).sum() / power.sum())


def chroma(wave: np.ndarray) -> np.ndarray:
    """Energy by pitch class, 150 to 2,000 Hz."""
    f, power = spectrogram(wave, 16384)
    use = (f > 150) & (f < 2000)
    classes = np.round(12 * np.log2(f[use] / 440) + 69).astype(int) % 12
    return np.bincount(classes, np.sqrt(power[use]).sum(1), 12)


def log_mel(wave: np.ndarray) -> np.ndarray:
    """Means and deviations over time of 40 log bands, and of their changes."""
    f, power = spectrogram(wave)
    edges = np.geomspace(60, 14_000, 41)
    bands = np.stack([power[(f >= lo) & (f < max(hi, lo + 20))].sum(0) for lo, hi in itertools.pairwise(edges)])
    loud = np.log(bands + 1e-10)
    loud -= loud.mean()
    return np.concatenate([loud.mean(1), loud.std(1), np.abs(np.diff(loud, axis=1)).mean(1)])


def held_out_accuracy(features: list[np.ndarray], labels: list) -> float:
    """A linear classifier fitted on even rows, read on odd ones."""
    x, y = np.stack(features), np.array(labels)
    scaler = StandardScaler().fit(x[::2])
    model = LogisticRegression(C=0.1, max_iter=500).fit(scaler.transform(x[::2]), y[::2])
    return float(model.score(scaler.transform(x[1::2]), y[1::2]))


@pytest.mark.parametrize(
    ("tag", "low", "high"), [("slow tempo", 60, 78), ("medium tempo", 92, 110), ("fast tempo", 132, 168)]
)
def test_tempo_beats_in_the_family_named(tag, low, high):
    found = []
    for seed in SEEDS:
        arrangement = replace(drawn(seed, tag), feel="straight")
        assert low <= arrangement.bpm <= high
        wave = clip(arrangement, seed)
        off_beat = [pulse_strength(wave, arrangement.bpm * ratio) for ratio in (0.87, 1.15)]
        found.append(pulse_strength(wave, arrangement.bpm) - max(off_beat))
    assert np.mean(np.array(found) > 0.05) >= 0.9


def test_faster_tempo_has_more_onsets():
    found = []
    for seed in SEEDS:
        counts = []
        for tag in ("slow tempo", "medium tempo", "fast tempo"):
            arrangement = replace(drawn(seed, "pop"), bpm=drawn(seed, tag).bpm)
            envelope = onset_envelope(clip(arrangement, seed))
            # Low enough to count what sounds between the accents too.
            peaks, _ = signal.find_peaks(envelope, height=0.5 * envelope.std(), distance=8)
            counts.append(len(peaks))
        found.append(counts)
    slow, medium, fast = np.array(found).T
    assert np.all(slow < fast)
    assert slow.mean() * 1.15 < medium.mean() < fast.mean() / 1.15


def test_percussion_is_broadband_and_sudden():
    """Onsets above 7 kHz, where the other parts of a dark clip have next to nothing."""
    on, off = [], []
    for seed in SEEDS:
        arrangement = replace(drawn(seed), lead="piano", others=(), brightness=0.4)
        for value, found in ((True, on), (False, off)):
            f, power = spectrogram(clip(replace(arrangement, percussion=value), seed), 512)
            found.append(np.log(power[f > 7000].sum(0).std()))
    assert np.mean(np.array(on) > np.array(off)) >= 0.85
    assert np.mean(np.array(on)[:, None] > np.array(off)) > 0.9


def test_mode_is_the_third_of_the_tonic():
    right = 0
    for seed in SEEDS:
        arrangement = replace(drawn(seed), percussion=False, tense=False)
        for mode in ("major", "minor"):
            energy = np.roll(chroma(clip(replace(arrangement, mode=mode), seed)), -arrangement.key)
            right += (energy[4] > 1.2 * energy[3]) if mode == "major" else (energy[3] > 1.2 * energy[4])
    assert right >= 0.9 * 2 * len(SEEDS)


def test_bass_line_fills_the_lowest_octaves():
    for seed in SEEDS:
        arrangement = replace(drawn(seed), percussion=False, voice=None)
        with_bass, without = (clip(replace(arrangement, bass=value), seed) for value in (True, False))
        assert band(with_bass, 30, 110) > 5 * band(without, 30, 110)


def test_brightness_moves_the_spectral_centroid():
    for seed in SEEDS:
        arrangement = drawn(seed)
        dark, plain, bright = (centroid(clip(replace(arrangement, brightness=b), seed)) for b in (0.08, 0.5, 0.92))
        assert dark < 0.8 * plain < 0.8 * 0.8 * bright


def test_energy_is_level():
    for seed in SEEDS:
        arrangement = drawn(seed)
        soft, loud = (np.std(clip(replace(arrangement, energy=e), seed)) for e in (0.06, 0.95))
        assert 20 * np.log10(loud / soft) > 6


def test_clips_of_equal_energy_are_equally_loud():
    levels = [20 * np.log10(np.std(clip(replace(drawn(s), energy=0.5), s))) for s in range(30)]
    assert np.ptp(levels) < 8
    assert np.std(levels) < 2


def test_voice_is_told_from_its_absence_and_its_sex():
    features, presence, sexed, sexes = [], [], [], []
    for seed in range(24):
        arrangement = drawn(seed)
        for voice in (None, "male", "female"):
            found = log_mel(clip(replace(arrangement, voice=voice, choir=False, spoken=False), seed, 4.0))
            features.append(found)
            presence.append(voice is not None)
            if voice is not None:
                sexed.append(found)
                sexes.append(voice)
    order = np.random.default_rng(0).permutation(len(features))
    assert held_out_accuracy([features[i] for i in order], [presence[i] for i in order]) > 0.75
    order = np.random.default_rng(0).permutation(len(sexed))
    assert held_out_accuracy([sexed[i] for i in order], [sexes[i] for i in order]) > 0.9


def test_lead_instruments_are_told_apart():
    leads = ("piano", "distorted_guitar", "acoustic_guitar", "strings", "flute", "trumpet", "organ", "synth")
    features, labels = [], []
    for seed in range(20):
        arrangement = drawn(seed)
        for lead in leads:
            alone = replace(arrangement, lead=lead, others=(), percussion=False, bass=False, voice=None)
            features.append(log_mel(clip(alone, seed, 2.0)))
            labels.append(lead)
    order = np.random.default_rng(0).permutation(len(features))
    assert held_out_accuracy([features[i] for i in order], [labels[i] for i in order]) > 0.75  # chance is 1 in 8


def test_genres_are_told_apart():
    genres = ("techno", "rock", "reggae", "jazz", "ambient", "classical")
    features, labels = [], []
    for seed in range(12):
        for genre in genres:
            features.append(log_mel(clip(drawn(seed, genre), seed, 4.0)))
            labels.append(genre)
    order = np.random.default_rng(0).permutation(len(features))
    assert held_out_accuracy([features[i] for i in order], [labels[i] for i in order]) > 0.8


def test_flipping_one_part_leaves_the_others_sample_identical():
    """Parts are mixed at fixed levels: what percussion adds to a clip is the same with and without a voice."""
    base = Arrangement(energy=0.0, space=0.0, voice=None, bass=False, percussion=False)
    for seed in range(4):
        plain, drums, voice, both = (
            clip(replace(base, **change), seed).astype(np.float64)
            for change in ({}, {"percussion": True}, {"voice": "male"}, {"percussion": True, "voice": "male"})
        )
        # Tilting rescales by the mix's own loudness, so parts agree in shape, and nearly in level.
        residual = both - voice - (drums - plain)
        assert np.std(residual) < 0.2 * np.std(drums - plain)


def test_same_bits_whatever_the_batch():
    synthesiser = ProceduralSynthesiser(AudioConfig(duration=2.0))
    tags = [["rock", "male voice"], ["ambient", "flute"], [], ["jazz", "piano", "no percussion"]]
    whole = synthesiser({"seed": [1, 2, 3, 4], "aspect_list": tags})
    for i in range(4):
        alone = ProceduralSynthesiser(AudioConfig(duration=2.0))({"seed": [i + 1], "aspect_list": [tags[i]]})[0]
        assert np.array_equal(whole[i], alone)
    assert not np.array_equal(whole[0], synthesiser({"seed": [9], "aspect_list": [tags[0]]})[0])


def test_waveforms_are_as_the_protocol_says():
    synthesiser = ProceduralSynthesiser(AudioConfig(duration=1.37))
    for wave in synthesiser(
        {"seed": [5, 6], "aspect_list": [["metal", "loud"], None], "caption": ["x", "A slow flute."]}
    ):
        assert wave.dtype == np.float32
        assert wave.shape == (1, round(1.37 * 32_000))
        assert np.abs(wave).max() <= 1
        assert np.isfinite(wave).all()


def test_caption_stands_in_for_missing_tags():
    synthesiser = ProceduralSynthesiser(AudioConfig(duration=1.0))
    by_tags = synthesiser({"seed": [3], "aspect_list": [["a soft flute", "slow tempo"]]})[0]
    by_caption = synthesiser({"seed": [3], "aspect_list": [None], "caption": ["A soft flute, slow tempo."]})[0]
    assert np.array_equal(by_tags, by_caption)


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100])
def test_every_drum_sounds_at_any_rate(rate):
    for kit in KITS:
        heard = replace(Arrangement(kit=kit), hits=("clap", "cymbal", "hat", "rim", "shaker", "snare", "tom"))
        wave = render(heard, 1.0, rate, 0)
        assert wave.shape == (1, rate)
        assert np.isfinite(wave).all()
