"""Checks of a waveform, and distances between collections of clips by their embeddings. Arrays in, floats out."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy import fft

from conceptcaps.seeding import generator
from conceptcaps.signal import downmix, resample

SILENT_DBFS = -60.0
_QUIETEST_LUFS = -120.0
_REPEATS_RATE = 8000  # Hz


def silent_fraction(waveform: np.ndarray, rate: int, threshold: float = SILENT_DBFS) -> float:
    """Fraction in [0, 1] of 50 ms frames whose loudest channel is below `threshold` dBFS.

    Args:
        waveform: float (channels, samples).
        rate: Hz.
        threshold: dB relative to full scale, root mean square.
    """
    size = max(1, min(waveform.shape[-1], round(0.05 * rate)))
    frames = waveform[:, : waveform.shape[-1] // size * size].reshape(waveform.shape[0], -1, size)
    power = np.mean(np.square(frames, dtype=np.float64), axis=-1).max(0)
    return float(np.mean(power < 10 ** (threshold / 10)))


def clipped_fraction(waveform: np.ndarray, run: int = 3) -> float:
    """Fraction in [0, 1] of samples in runs of at least `run` that stand at the clip's own ceiling or floor.

    Music touches its peak once; a clipped wave stays there. Clips that peak below -6 dBFS are never called clipped.
    """
    peak = float(np.abs(waveform).max(initial=0.0))
    if peak < 0.5:
        return 0.0
    at_limit = np.stack([waveform >= 0.9999 * peak, waveform <= -0.9999 * peak])
    padded = np.pad(at_limit, [(0, 0), (0, 0), (run - 1, run - 1)])
    whole = np.lib.stride_tricks.sliding_window_view(padded, run, axis=-1).all(-1)
    member = np.lib.stride_tricks.sliding_window_view(whole, run, axis=-1).any(-1)
    return float(member.any(0).mean())


def dc_offset(waveform: np.ndarray) -> float:
    """Largest absolute mean of a channel, in [0, 1]; 0 is best."""
    return float(np.abs(waveform.mean(-1, dtype=np.float64)).max())


def loudness(waveform: np.ndarray, rate: int) -> float:
    """Integrated loudness in LUFS (ITU-R BS.1770-4), by pyloudnorm with De Man's filters, exact at any rate.

    Clips shorter than one block of 400 ms are one block. Silence is -120.
    """
    import pyloudnorm  # brings SciPy's signal tools, a second that workers which measure nothing should not pay

    block = min(0.4, waveform.shape[-1] / rate)
    meter = pyloudnorm.Meter(rate, filter_class="DeMan", block_size=block)
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # silence has no loud block, and NumPy says so of its mean
        found = meter.integrated_loudness(waveform.T.astype(np.float64))
    return max(float(found), _QUIETEST_LUFS) if np.isfinite(found) else _QUIETEST_LUFS


def spectral_flatness(waveform: np.ndarray, size: int = 2048) -> float:
    """Mean over frames of geometric over arithmetic mean power, in (0, 1]; white noise is near 0.56, music below 0.1.

    Frames without energy are left out; a clip without any has flatness 1.
    """
    mono = waveform.mean(0, dtype=np.float64)
    mono = np.pad(mono, (0, max(0, size - mono.size)))
    frames = np.lib.stride_tricks.sliding_window_view(mono, size)[:: size // 2]
    power = np.abs(np.fft.rfft(frames * np.hanning(size), axis=-1)[:, 1:]) ** 2
    power = power[power.max(-1) > 1e-10]
    if not power.size:
        return 1.0
    return float(np.mean(np.exp(np.log(power + 1e-20).mean(-1)) / power.mean(-1)))


def repetition(waveform: np.ndarray, rate: int, shortest: float = 0.5) -> float:
    """Largest normalised autocorrelation at lags from `shortest` seconds to half the clip, in [-1, 1]; a loop is 1.

    Measured below about 4 kHz, which holds what repeats, at a fraction of the cost.
    """
    mono = resample(downmix(waveform)[None], rate, min(rate, _REPEATS_RATE))[0].astype(np.float64)
    mono, rate = mono - mono.mean(), min(rate, _REPEATS_RATE)
    lags = np.arange(round(shortest * rate), mono.size // 2 + 1)
    energy = np.concatenate([[0.0], np.cumsum(mono**2)])
    if not lags.size or energy[-1] == 0:
        return 0.0
    spectrum = fft.rfft(mono, fft.next_fast_len(2 * mono.size, real=True))
    products = fft.irfft(spectrum * spectrum.conj(), fft.next_fast_len(2 * mono.size, real=True))[lags]
    head, tail = energy[mono.size - lags], energy[-1] - energy[lags]
    return float(np.max(products / np.maximum(np.sqrt(head * tail), 1e-12)))


@dataclass(frozen=True)
class Moments:
    """Sums of embeddings from which mean and covariance follow exactly; those of parts add up to those of the whole."""

    count: int
    total: np.ndarray  # float64 (dim,)
    outer: np.ndarray  # float64 (dim, dim)

    @classmethod
    def of(cls, embeddings: np.ndarray) -> Moments:
        """Of (num_clips, dim) embeddings."""
        wide = embeddings.astype(np.float64)
        return cls(len(wide), wide.sum(0), wide.T @ wide)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.total + other.total, self.outer + other.outer)

    @property
    def mean(self) -> np.ndarray:
        return self.total / self.count

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased; needs two clips."""
        return (self.outer - np.outer(self.total, self.mean)) / (self.count - 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Frechet distance of two Gaussians (Kilgour et al. 2019, FAD), >= 0; 0 is best.

    Biased upwards in small samples: compare collections of one size only.

    Raises:
        ValueError: a collection of fewer than two clips.
    """
    if min(a.count, b.count) < 2:
        raise ValueError(f"the Frechet distance needs two clips on each side, not {a.count} and {b.count}")
    root = _square_root(a.covariance)
    # The product of two covariances has the eigenvalues of this symmetric matrix.
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ b.covariance @ root), 0, None)).sum()
    gap = np.sum((a.mean - b.mean) ** 2) + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross
    return float(max(gap, 0.0))


def _square_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def median_distance(reference: np.ndarray) -> float:
    """Median Euclidean distance of pairs: the kernel's bandwidth in KAD."""
    from scipy.spatial.distance import pdist

    return float(np.median(pdist(reference)))


def kernel_distance(clips: np.ndarray, reference: np.ndarray, bandwidth: float | None = None) -> float:
    """Kernel audio distance (Chung et al. 2025): unbiased squared MMD under a Gaussian kernel; near 0 is best.

    Args:
        clips: (num_clips, dim) embeddings, at least two.
        reference: (num_reference, dim) embeddings, at least two.
        bandwidth: of the kernel; None: the median distance within `reference`.

    Returns:
        The unscaled statistic, at most 2; it may be slightly negative.
    """
    width = median_distance(reference) if bandwidth is None else bandwidth
    within = [_gaussian(x, x, width) for x in (clips, reference)]
    same = [(k.sum() - len(k)) / (len(k) * (len(k) - 1)) for k in within]
    return float(sum(same) - 2 * _gaussian(clips, reference, width).mean())


def _gaussian(x: np.ndarray, y: np.ndarray, bandwidth: float) -> np.ndarray:
    from scipy.spatial.distance import cdist

    return np.exp(-cdist(x, y, "sqeuclidean") / (2 * bandwidth**2))


@dataclass(frozen=True)
class KernelMean:
    """Sum of random Fourier features of embeddings (Rahimi and Recht 2007); those of parts add up to the whole's.

    With the bandwidth fixed beforehand, workers need not exchange embeddings to compute a kernel distance.
    """

    count: int
    total: np.ndarray  # float64 (2 * num_features,)

    @classmethod
    def of(cls, embeddings: np.ndarray, bandwidth: float, seed: int = 0, num_features: int = 2048) -> KernelMean:
        """Of (num_clips, dim) embeddings; bandwidth, seed and num_features must agree in all that are compared."""
        directions = generator(seed, "fourier").standard_normal((embeddings.shape[1], num_features)) / bandwidth
        angles = embeddings.astype(np.float64) @ directions
        features = np.concatenate([np.cos(angles), np.sin(angles)], axis=1) / np.sqrt(num_features)
        return cls(len(embeddings), features.sum(0))

    def __add__(self, other: KernelMean) -> KernelMean:
        return KernelMean(self.count + other.count, self.total + other.total)

    def distance(self, other: KernelMean) -> float:
        """`kernel_distance`, within about 1 / sqrt(num_features)."""
        # Every feature vector has unit length, so each clip's pair with itself counts one.
        same = [(m.total @ m.total - m.count) / (m.count * (m.count - 1)) for m in (self, other)]
        return float(sum(same) - 2 * (self.total @ other.total) / (self.count * other.count))
