"""Clips whose attributes are known and can be flipped one by one, for the ground truth of TCAV."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from conceptcaps.audio.arrangement import Arrangement, arrange
from conceptcaps.audio.procedural import render
from conceptcaps.seeding import derive, generator
from conceptcaps.tcav.classifier import LogMel

ATTRIBUTES = (
    "fast", "percussion", "bass", "voice", "strings", "bells",
    "bright", "loud", "minor", "reverb", "distorted guitar", "arpeggio",
)  # fmt: skip
RATE, SECONDS, HOP, NUM_MELS = 16_000, 4.0, 400, 48


@dataclass(frozen=True)
class Corpus:
    """Log-mel spectrograms and the attributes they were rendered with.

    Args:
        mel: float16 (num_clips, NUM_MELS, frames).
        attributes: bool (num_clips, len(ATTRIBUTES)).
        flipped: float16 (len(ATTRIBUTES), num_pairs, NUM_MELS, frames), the last `num_pairs` clips with one attribute
            turned over and the same seed.
    """

    mel: np.ndarray
    attributes: np.ndarray
    flipped: np.ndarray


def draw_attributes(num_clips: int, phi: float, rng: np.random.Generator) -> np.ndarray:
    """bool (num_clips, len(ATTRIBUTES)): fair coins; each second column has correlation phi to the one before."""
    coins = rng.random((num_clips, len(ATTRIBUTES))) < 0.5
    copied = rng.random((num_clips, len(ATTRIBUTES) // 2)) < phi
    coins[:, 1::2] = np.where(copied, coins[:, ::2], coins[:, 1::2])
    return coins


def arrangement_of(attributes: np.ndarray, seed: int) -> Arrangement:
    """An arrangement with these attributes; all else (key, pattern, tune) is drawn from the seed."""
    on = dict(zip(ATTRIBUTES, attributes.tolist(), strict=True))
    low, high = (60, 78) if not on["fast"] else (132, 168)
    extra = ("strings", "bells", "distorted_guitar")
    return replace(
        arrange((), seed),
        bpm=low + (high - low) * generator(seed, "corpus bpm").random(),
        percussion=on["percussion"],
        kit="acoustic",
        bass=on["bass"],
        bass_style="bass",
        voice="female" if on["voice"] else None,
        lead="piano",
        others=("keyboard", *(name for name in extra if on[name.replace("_", " ")])),
        brightness=0.7 if on["bright"] else 0.3,
        energy=0.7 if on["loud"] else 0.3,
        mode="minor" if on["minor"] else "major",
        space=0.6 if on["reverb"] else 0.05,
        arpeggio=on["arpeggio"],
        feel="straight",
    )


def make_corpus(num_clips: int, num_pairs: int, phi: float, seed: int, workers: int = 2) -> Corpus:
    """Render a corpus and its flipped twins."""
    attributes = draw_attributes(num_clips, phi, generator(seed, "attributes"))
    seeds = [derive(seed, "clip", i) for i in range(num_clips)]
    jobs = list(zip(attributes, seeds, strict=True))
    for j in range(len(ATTRIBUTES)):
        for i in range(num_clips - num_pairs, num_clips):
            flipped = attributes[i].copy()
            flipped[j] = ~flipped[j]
            jobs.append((flipped, seeds[i]))
    chunks = [jobs[i : i + 50] for i in range(0, len(jobs), 50)]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        mel = np.concatenate(list(pool.imap(_render_chunk, chunks)))
    flips = mel[num_clips:].reshape(len(ATTRIBUTES), num_pairs, *mel.shape[1:])
    return Corpus(mel[:num_clips], attributes, flips)


def _render_chunk(jobs: Sequence[tuple[np.ndarray, int]]) -> np.ndarray:
    torch.set_num_threads(1)
    log_mel = LogMel(RATE, 1024, HOP, NUM_MELS)
    waves = np.stack([render(arrangement_of(a, seed), SECONDS, RATE, seed)[0] for a, seed in jobs])
    return log_mel(torch.from_numpy(waves)).numpy().astype(np.float16)
