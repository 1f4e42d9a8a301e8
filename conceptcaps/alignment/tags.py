"""Tag-level verification: does the audio carry each of its row's tags, rather than others of the category?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from conceptcaps.engines import Aligner
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


def verified(
    row_margins: np.ndarray, tags: Sequence[str], vocabulary: Vocabulary, threshold: float = 0.0
) -> dict[str, float]:
    """tag -> margin of the row's tags that stand above `threshold`.

    Args:
        row_margins: (num_tags,) of `margins`.
        tags: the row's tags; those outside the vocabulary cannot be verified.
        vocabulary: as in `margins`.
        threshold: least margin.
    """
    known = {tag: float(row_margins[vocabulary.index[tag]]) for tag in tags if tag in vocabulary.index}
    return {tag: margin for tag, margin in known.items() if margin > threshold}
