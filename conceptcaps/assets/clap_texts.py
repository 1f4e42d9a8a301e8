"""Second lesson of the embedded CLAP: its text tower alone, the audio tower locked (Zhai et al. 2022).

A row's tags are not all that its clip has, and few rows say the plain things ('percussion'). Here single tags are
taught with the truth about every clip of a batch: a tag is true of a clip that has whatever the tag makes certain,
and none of what it rules out. Whole texts are taught beside them, by contrast, as before.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from conceptcaps.alignment.tags import PROMPTS
from conceptcaps.assets.tag_words import TagSet
from conceptcaps.audio.keywords import read
from conceptcaps.audio.words import WORDS

logger = logging.getLogger(__name__)

NUM_FREQUENT = 700
"""Tags of the training sets that are taught beside the synthesiser's dictionary."""
COMPANY = (
    "pop",
    "folk",
    "techno",
    "jazz",
    "classical",
    "blues",
    "reggae",
    "country",
    "funk",
    "latin",
    "ambient",
    "rock",
)
"""Genres beside which a tag is arranged, one per seed: what it means in all of them is not its genre's doing."""
RARE, COMMON = 0.004, 0.96
"""Share of clips within which a statement must be true."""
_CATEGORIES = {
    "genre": ("patterns",),
    "mood": ("mode", "brightness", "energy", "space", "flags"),
    "instrument": ("instruments", "hits", "bass_style", "kit", "on"),
    "tempo": ("tempo", "feel"),
}
"""category -> tables of the dictionary."""

Hear = Callable[[Sequence[str], int], list[str]]
"""(tags, seed) -> words for what an arrangement of them has."""


@dataclass(frozen=True)
class Statements:
    """Tags that can be true of a clip.

    Attributes:
        tags: (num_statements,) (category, tag).
        true: bool (num_clips, num_statements).
    """

    tags: list[tuple[str, str]]
    true: np.ndarray

    def say(self, chosen: Iterable[int], rng: np.random.Generator) -> list[str]:
        """The chosen ones in prompts of their categories."""
        prompts = [(PROMPTS[self.tags[i][0]], self.tags[i][1]) for i in chosen]
        return [options[int(rng.integers(len(options)))].format(tag) for options, tag in prompts]


def make_statements(sets: Sequence[TagSet], heard: Sequence[Sequence[str]], hear: Hear) -> Statements:
    """What can be said of the clips of some sets, and of which it is true.

    Args:
        sets: the tag set of each clip.
        heard: what each clip has, in words.
        hear: gives such words for any tags.
    """
    index = {word: k for k, word in enumerate(sorted({word for words in heard for word in words}))}
    has = np.stack([_encode(words, index) for words in heard])

    def arranged(*tags: str, alone: bool) -> np.ndarray:
        others = [[] if alone else [genre] for genre in COMPANY]
        return np.stack([_encode(hear([*tags, *more], seed), index) for seed, more in enumerate(others)])

    plain = {alone: arranged(alone=alone) for alone in (True, False)}
    tags, true = [], []
    for category, tag in _candidates(sets):
        alone = bool(read([tag]).patterns)
        asked, refused = _meaning(arranged(tag, alone=alone), plain[alone])
        fits = has[:, asked].all(1) & ~has[:, refused].any(1)
        if (asked.any() or refused.any()) and RARE <= fits.mean() <= COMMON:
            tags.append((category, tag))
            true.append(fits)
    return Statements(tags, np.stack(true, axis=1))


def _candidates(sets: Sequence[TagSet]) -> list[tuple[str, str]]:
    """(category, tag) of the dictionary's phrases and of the most frequent tags."""
    known = [
        (category, phrase)
        for category, kinds in _CATEGORIES.items()
        for kind in kinds
        for value, phrases in WORDS[kind].items()
        if value is not None
        for phrase in phrases.split("; ")
    ]
    counts = Counter((category, tag) for tags in sets for category, group in tags.items() for tag in group)
    frequent = [key for key, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:NUM_FREQUENT]]
    return list(dict.fromkeys([*known, *frequent]))


def _meaning(told: np.ndarray, plain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """bool (num_words,) twice: what a tag makes certain and what it rules out, where silence leaves either open.

    Args:
        told: bool (num_seeds, num_words), arrangements of the tag.
        plain: bool (num_seeds, num_words), arrangements of nothing under the same seeds.
    """
    sure, usual = told.astype(float).mean(0), plain.astype(float).mean(0)
    return (sure == 1) & (usual < 1), (sure == 0) & (usual > 0)


def _encode(words: Sequence[str], index: dict[str, int]) -> np.ndarray:
    found = np.zeros(len(index), bool)
    found[[index[word] for word in words if word in index]] = True
    return found


def truth_loss(logits: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Cross entropy with several right answers, from statement to clip and back.

    Args:
        logits: (num_clips, num_statements).
        true: float (num_clips, num_statements) in {0, 1}.
    """
    losses = []
    for scores, right in ((logits.T, true.T), (logits, true)):
        some = right.sum(1) > 0
        shares = right[some] / right[some].sum(1, keepdim=True)
        losses.append(-(shares * functional.log_softmax(scores[some], dim=1)).sum(1).mean())
    return (losses[0] + losses[1]) / 2
