"""Tag-level verification: does the audio carry each of its row's tags, rather than others of the category?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from conceptcaps.config.alignment import AlignmentConfig
from conceptcaps.engines import Aligner
from conceptcaps.errors import InputError
from conceptcaps.vocabulary import CATEGORIES, Vocabulary

PROMPTS: dict[str, tuple[str, ...]] = {
    "genre": ("{}", "music with {}", "This is a {} track.", "A piece in a {} style.", "tags: {}"),
    "mood": ("{}", "music with {}", "The mood is {}.", "The overall feeling is {}.", "tags: {}"),
    "instrument": ("{}", "music with {}", "The music features {}.", "One can hear {}.", "tags: {}"),
    "tempo": ("{}", "music with {}", "The piece moves at a {}.", "The rhythm rests on {}.", "tags: {}"),
}
"""category -> what a tag is said in; the embeddings of all are averaged (Radford et al. 2021, section 3.1.4)."""


def embed_tags(
    aligner: Aligner, vocabulary: Vocabulary, prompts: dict[str, tuple[str, ...]] | None = None
) -> np.ndarray:
    """float32 (num_tags, dim): unit-length mean of the prompts of each tag, in vocabulary order."""
    prompts = PROMPTS | (prompts or {})
    texts = [prompt.format(tag) for tag in vocabulary.tags for prompt in prompts[vocabulary.category_of(tag)]]
    embeddings = aligner.embed_text(texts)
    sizes = [len(prompts[vocabulary.category_of(tag)]) for tag in vocabulary.tags]
    means = np.add.reduceat(embeddings, np.cumsum([0, *sizes[:-1]]), axis=0)
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def tag_scores(audio: np.ndarray, tags: np.ndarray, baseline: np.ndarray | None = None) -> np.ndarray:
    """float32 (num_clips, num_tags): cosines, less each tag's mean over other clips.

    Args:
        audio: (num_clips, dim) unit-length embeddings.
        tags: (num_tags, dim) of `embed_tags`.
        baseline: (num_tags,) mean cosine of each tag over a collection of clips; None: over these clips. Texts differ
            in how near they are to any audio, which says nothing about a clip.
    """
    cosines = audio @ tags.T
    return cosines - (cosines.mean(0) if baseline is None else baseline)


def margins(scores: np.ndarray, rows: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """How far each tag of a row stands above the tags of its category that the row lacks.

    Args:
        scores: (num_clips, num_tags) of `tag_scores`.
        rows: (num_clips, num_tags) multi-hot tag sets.
        vocabulary: gives the categories.

    Returns:
        float32 (num_clips, num_tags): score less the mean of the absent tags' scores, in units of their standard
        deviation; for absent tags the same against the other absent ones. NaN where a category has fewer than two
        absent tags.
    """
    found = np.full(scores.shape, np.nan, np.float32)
    for k in range(len(CATEGORIES)):
        inside = vocabulary.category_indices == k
        absent = inside & (rows == 0)
        counted = absent.sum(1) >= 2
        others = np.where(absent, scores, np.nan)[counted]
        if not len(others):
            continue
        mean, spread = np.nanmean(others, axis=1, keepdims=True), np.nanstd(others, axis=1, keepdims=True)
        standard = (scores[counted] - mean) / np.maximum(spread, 1e-6)
        found[counted] = np.where(inside, standard, found[counted])
    return found


@dataclass(frozen=True)
class TagReference:
    """What a run's tags are verified against.

    Attributes:
        vocabulary: gives the categories.
        audio_mean: float (dim,), mean embedding of clips of the run; texts differ in how near they are to any audio.
    """

    vocabulary: Vocabulary
    audio_mean: tuple[float, ...]


@dataclass(frozen=True)
class Verifier:
    """Which of a row's tags its audio carries.

    Attributes:
        vocabulary: of the rows' tags.
        tags: float32 (num_tags, dim) of `embed_tags`.
        baseline: float32 (num_tags,), each tag's cosine with the run's mean clip.
        min_margin: least margin of a verified tag.
    """

    vocabulary: Vocabulary
    tags: np.ndarray
    baseline: np.ndarray
    min_margin: float

    @classmethod
    def make(cls, aligner: Aligner, reference: TagReference, config: AlignmentConfig) -> Verifier:
        """Embed every tag once, with the run's aligner.

        Raises:
            InputError: a file of prompts that cannot be used.
        """
        tags = embed_tags(aligner, reference.vocabulary, read_prompts(config.tag_prompts))
        mean = np.array(reference.audio_mean, np.float32)
        return cls(reference.vocabulary, tags, tags @ mean, config.min_margin)

    def __call__(self, audio: np.ndarray, aspects: Sequence[str]) -> tuple[list[str], list[float | None]]:
        """The verified tags of a row, and the margin of each of its tags; None for one that cannot be verified.

        Args:
            audio: (dim,) unit-length embedding.
            aspects: the row's tags.
        """
        scores = tag_scores(audio[None], self.tags, self.baseline)
        found = margins(scores, self.vocabulary.encode([list(aspects)]), self.vocabulary)[0]
        own = [float(found[self.vocabulary.index[tag]]) if tag in self.vocabulary.index else np.nan for tag in aspects]
        known = [None if np.isnan(margin) else margin for margin in own]
        return [t for t, m in zip(aspects, known, strict=True) if m is not None and m > self.min_margin], known


def read_prompts(path: str | None) -> dict[str, tuple[str, ...]]:
    """category -> texts with {} for the tag, from a YAML file; {} for None.

    Raises:
        InputError: the file is not there, or a text of it has no {}.
    """
    if path is None:
        return {}
    where, mend = f"key 'alignment.tag_prompts', file {path}", "Map each category to a list of texts with {} in them"
    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InputError(where, f"cannot be read ({error})", mend) from error
    if not isinstance(found, dict) or not set(found) <= set(CATEGORIES):
        raise InputError(where, f"has keys other than {', '.join(CATEGORIES)}", mend)
    for category, texts in found.items():
        if not isinstance(texts, list) or not texts or any("{}" not in str(text) for text in texts):
            raise InputError(where, f"{category}: a text without {{}}", mend)
    return {category: tuple(map(str, texts)) for category, texts in found.items()}
