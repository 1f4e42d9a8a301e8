"""Which alignment scores are accepted: an absolute value, or one calibrated on mismatched pairs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from conceptcaps.alignment.windows import unit
from conceptcaps.errors import InputError

BELOW = "below_threshold"
"""The reason code of a clip whose score is too low."""
_ENOUGH_TO_CENTRE = 32  # rows: the mean of fewer strays as far as what it should take off
_ALIKE = 1e-3  # texts that differ by no more in any dimension have nothing left without their mean


@dataclass(frozen=True)
class Means:
    """What all embeddings of a run share, float (dim,) of each side."""

    audio: tuple[float, ...]
    text: tuple[float, ...]

    @classmethod
    def of(cls, audio: np.ndarray, text: np.ndarray) -> Means:
        """The means of (num_rows, dim) embeddings."""
        return cls(tuple(audio.mean(0).tolist()), tuple(text.mean(0).tolist()))

    def taken_off(self, audio: np.ndarray, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(..., dim) embeddings less the means, of unit length.

        Texts have a part in common that says nothing of a clip, and so has audio (Liang et al. 2022, 'Mind the gap');
        how large it is for one text sways all its cosines, and with them what one threshold accepts.
        """
        return unit(audio - np.array(self.audio, audio.dtype)), unit(text - np.array(self.text, text.dtype))


@dataclass(frozen=True)
class Threshold:
    """Accepts a clip whose score is at least `value` (any score for method 'none').

    Attributes:
        means: taken off the embeddings before they are scored; None scores plain cosines.
    """

    method: Literal["absolute", "null_quantile", "none"]
    value: float
    means: Means | None = None

    def scores(self, audio: np.ndarray, text: np.ndarray) -> np.ndarray:
        """float32 (num_clips,): what is decided by, of (num_clips, dim) clips and a (dim,) caption."""
        if self.means:
            audio, text = self.means.taken_off(audio, text)
        found: np.ndarray = audio @ text
        return found

    def decide(self, score: float) -> str | None:
        """None to accept, or the reason code of the rejection."""
        return None if self.method == "none" or score >= self.value else BELOW


def mismatched(scores: np.ndarray, labels: Sequence[Hashable]) -> np.ndarray:
    """Scores of all mismatched caption-audio pairs.

    Args:
        scores: float (num_rows, num_rows) of every clip with every caption.
        labels: what makes two rows the same (caption or tag set); pairs with equal labels are no mismatch.

    Returns:
        float32 (num_pairs,), at most num_rows * (num_rows - 1).

    Raises:
        InputError: no two rows differ in their label.
    """
    codes = np.unique(np.array([str(label) for label in labels]), return_inverse=True)[1]
    found = scores[codes[:, None] != codes[None, :]]
    if not found.size:
        raise InputError(
            "calibration of the alignment threshold",
            f"has {len(codes)} rows and no two with different captions",
            "Raise alignment.threshold.num_calibration or specs.num_samples, or use method 'absolute'",
        )
    return found.astype(np.float32)


def centred_scores(audio: np.ndarray, text: np.ndarray) -> np.ndarray:
    """float (num_rows, num_rows): cosine of every clip with every caption, less the means of all rows but these two.

    So are rows scored that had no part in the means; a row that had is taken to be less like the others than it is,
    and a quantile of such scores lies too low.

    Args:
        audio: float (num_rows, dim) unit-length embeddings of clips.
        text: float (num_rows, dim) unit-length embeddings of the same rows' captions.
    """
    own = np.eye(len(audio), dtype=bool)
    scores = np.empty((len(audio), len(audio)), audio.dtype)
    for i, row in enumerate(own):
        left = (len(audio) - 2 + row)[:, None]
        audio_mean, text_mean = (
            (side.sum(0) - side[i] - np.where(row[:, None], 0, side)) / left for side in (audio, text)
        )
        scores[i] = (unit(audio[i] - audio_mean) * unit(text - text_mean)).sum(1)
    return scores


@dataclass(frozen=True)
class Calibration:
    """A threshold, and the scores that it was found among.

    Attributes:
        threshold: method `null_quantile`.
        null_scores: float32 (num_pairs,), of mismatched pairs.
        matched_scores: float32 (num_rows,), of the rows themselves.
    """

    threshold: Threshold
    null_scores: np.ndarray
    matched_scores: np.ndarray


def calibrate(
    audio: np.ndarray, text: np.ndarray, labels: Sequence[Hashable], quantile: float, *, centre: bool
) -> Calibration:
    """The score that a fraction `quantile` of mismatched pairs stays below.

    Args:
        audio: float (num_rows, dim) unit-length embeddings of clips.
        text: float (num_rows, dim) unit-length embeddings of the same rows' captions.
        labels: as of `mismatched`, whose errors it raises.
        quantile: in (0, 1).
        centre: take the embeddings' means off first, where there are 32 rows or more and their texts differ.
    """
    means = None
    if centre and len(audio) >= _ENOUGH_TO_CENTRE and np.ptp(text, axis=0).max() > _ALIKE:
        means = Means.of(audio, text)
    scores = centred_scores(audio, text) if means else audio @ text.T
    null = mismatched(scores, labels)
    threshold = Threshold("null_quantile", float(np.quantile(null, quantile)), means)
    return Calibration(threshold, null, np.diag(scores))
