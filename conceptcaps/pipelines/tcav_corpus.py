"""Clips whose attributes are known and can be flipped one by one, rendered by Ray Data for TCAV's ground truth."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import ray.data
import torch

from conceptcaps.audio.arrangement import Arrangement, arrange
from conceptcaps.audio.procedural import render
from conceptcaps.seeding import derive, generator
from conceptcaps.tcav.classifier import LogMel
from conceptcaps.tcav.ground_truth import ATTRIBUTES, Corpus, draw_attributes
from conceptcaps.tcav.networks import NUM_MELS

RATE, SECONDS, HOP = 16_000, 3.0, 400
_CLIPS_PER_BLOCK = 60


def arrangement_of(attributes: np.ndarray, seed: int) -> Arrangement:
    """An arrangement with these attributes; all else (key, pattern, tune) is drawn from the seed.

    Args:
        attributes: bool (len(ATTRIBUTES),).
        seed: of the clip.
    """
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


def make_corpus(num_clips: int, num_pairs: int, phi: float, seed: int) -> Corpus:
    """Render a corpus and its flipped twins.

    Args:
        num_clips: clips with attributes drawn by coin.
        num_pairs: how many of them, the last ones, are rendered again with each attribute flipped; even. Every second
            one has the attributes that the one before lacks, so that no attribute is common by chance where another
            is flipped: the mean effect of a flip is then known better from the same number of clips.
        phi: correlation of the attributes of a pair.
        seed: of attributes and clips.
    """
    attributes = draw_attributes(num_clips, phi, generator(seed, "attributes"))
    paired = np.arange(num_clips - num_pairs, num_clips)
    attributes[paired[1::2]] = ~attributes[paired[::2]]
    flips = np.repeat(attributes[paired][None], len(ATTRIBUTES), axis=0)
    flips[np.arange(len(ATTRIBUTES)), :, np.arange(len(ATTRIBUTES))] ^= True
    wanted = np.concatenate([attributes, flips.reshape(-1, len(ATTRIBUTES))])
    clips = np.concatenate([np.arange(num_clips), np.tile(paired, len(ATTRIBUTES))])
    seeds = [derive(seed, "clip", int(i)) for i in clips]
    rows = ray.data.range(len(wanted), override_num_blocks=-(-len(wanted) // _CLIPS_PER_BLOCK)).map_batches(
        partial(_render, wanted=wanted, seeds=seeds), batch_size=_CLIPS_PER_BLOCK, num_cpus=1
    )
    mel = np.empty((len(wanted), NUM_MELS, 1 + round(SECONDS * RATE) // HOP), np.float16)
    for batch in rows.iter_batches(batch_size=None):
        mel[batch["id"]] = batch["mel"]
    return Corpus(mel[:num_clips], attributes, mel[num_clips:].reshape(len(ATTRIBUTES), num_pairs, *mel.shape[1:]))


def _render(batch: dict[str, np.ndarray], wanted: np.ndarray, seeds: list[int]) -> dict[str, np.ndarray]:
    torch.set_num_threads(1)
    log_mel = LogMel(RATE, 1024, HOP, NUM_MELS)
    waves = np.stack([render(arrangement_of(wanted[i], seeds[i]), SECONDS, RATE, seeds[i])[0] for i in batch["id"]])
    return {"id": batch["id"], "mel": log_mel(torch.from_numpy(waves)).numpy().astype(np.float16)}
