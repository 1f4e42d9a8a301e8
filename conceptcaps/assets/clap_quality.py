"""How good the embedded CLAP is: audio-to-caption retrieval, and matched against mismatched pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from conceptcaps.alignment.clap import ClapAligner
from conceptcaps.assets import clap_data
from conceptcaps.assets.tag_words import TagSet
from conceptcaps.audio.procedural import SAMPLING_RATE
from conceptcaps.captions.grammar import GrammarCaptioner
from conceptcaps.config.alignment import AlignmentConfig
from conceptcaps.seeding import derive


def measure(model: str, sets: Sequence[TagSet], seed: int, seconds: float = 10.0) -> dict[str, float]:
    """Retrieval and separation of fresh clips of distinct tag sets and their grammar captions.

    Args:
        model: 'embedded' or a checkpoint folder.
        sets: tag sets that the model was not trained on.
        seed: of clips and captions.
        seconds: length of a clip.

    Returns:
        num_clips; r_at_1 and r_at_10 of audio-to-caption retrieval beside what chance gives; auc, the probability that
        a matched pair scores above a mismatched one.
    """
    aligner = ClapAligner(AlignmentConfig(model=model))
    grammar = GrammarCaptioner()
    waves, captions = [], []
    for i, tags in enumerate(sets):
        row_seed = derive(seed, "row", i)
        waves.append(clap_data.clip(tags, row_seed, seconds, SAMPLING_RATE)[None])
        columns = {f"{category}_aspects": [group] for category, group in tags.items()}
        captions += grammar({**columns, "aspect_list": [clap_data.flat(tags)], "seed": [row_seed]})
    scores = aligner.embed_audio(waves, SAMPLING_RATE) @ aligner.embed_text(captions).T
    return retrieval(scores) | {"auc": separation(scores)}


def retrieval(scores: np.ndarray) -> dict[str, float]:
    """R@1 and R@10 of a (num_clips, num_captions) score matrix whose diagonal is matched; ties count against."""
    num = len(scores)
    ranks = (scores >= np.diag(scores)[:, None]).sum(1)
    found = {f"r_at_{k}": float(np.mean(ranks <= k)) for k in (1, 10)}
    chance = {f"chance_r_at_{k}": min(1.0, k / num) for k in (1, 10)}
    return {"num_clips": num, **found, **chance}


def separation(scores: np.ndarray) -> float:
    """Area under the ROC curve of matched (diagonal) against mismatched pairs."""
    matched = np.eye(len(scores), dtype=bool)
    ranks = rankdata(scores).reshape(scores.shape)
    positives, negatives = matched.sum(), (~matched).sum()
    return float((ranks[matched].sum() - positives * (positives + 1) / 2) / (positives * negatives))
