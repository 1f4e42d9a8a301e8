"""Captions against their tags and against human captions: every metric that can be had, and why not where it cannot."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from conceptcaps.captions.checks import Synonyms, contradicted, is_said
from conceptcaps.errors import InputError
from conceptcaps.metrics import text

logger = logging.getLogger(__name__)

Measures = dict[str, float | None]


def tag_measures(
    captions: Sequence[str],
    tags: Sequence[Sequence[str]],
    vocabulary: Sequence[str] = (),
    synonyms: Synonyms | None = None,
) -> Measures:
    """How captions and tags agree, each in [0, 1].

    Returns:
        `coverage`: share of the tags that are said. `complete`: share of captions that say all of theirs.
        `contradiction_rate`: share of captions that deny a tag. `precision`: of the vocabulary's tags that are said,
        the share that the row has (None without a vocabulary); a tag inside a longer tag of the row is not counted
        against the caption, as 'drums' in 'acoustic drums'.
    """
    ways = synonyms or {}
    hits = [[is_said(c, tag, ways.get(tag, ())) for tag in row] for c, row in zip(captions, tags, strict=True)]
    flat = [hit for row in hits for hit in row]
    denied = [bool(contradicted(c, row)) for c, row in zip(captions, tags, strict=True)]
    return {
        "coverage": float(np.mean(flat)) if flat else None,
        "complete": float(np.mean([all(row) for row in hits])) if hits else None,
        "contradiction_rate": float(np.mean(denied)) if denied else None,
        "precision": _precision(captions, tags, vocabulary, ways) if vocabulary else None,
    }


def _precision(
    captions: Sequence[str], tags: Sequence[Sequence[str]], vocabulary: Sequence[str], ways: Synonyms
) -> float | None:
    right = wrong = 0
    for caption, row in zip(captions, tags, strict=True):
        for tag in vocabulary:
            if is_said(caption, tag, ways.get(tag, ())):
                own = tag in row
                right += own
                wrong += not own and not any(tag in other for other in row)
    return right / (right + wrong) if right + wrong else None


def variety_measures(captions: Sequence[str], seed: int = 0) -> Measures:
    """Distinct-1 and -2, self-BLEU, size of the vocabulary, and words per caption."""
    sizes = text.lengths(captions)
    return {
        "distinct_1": text.distinct(captions, 1),
        "distinct_2": text.distinct(captions, 2),
        "self_bleu": _or_none("self_bleu", lambda: text.self_bleu(captions, seed=seed)),
        "vocabulary": float(text.vocabulary_size(captions)),
        "mean_words": float(sizes.mean()),
        "in_20_to_80_words": float(((sizes >= 20) & (sizes <= 80)).mean()),
    }


def reference_measures(captions: Sequence[str], references: Sequence[str]) -> Measures:
    """BLEU, ROUGE-L and METEOR against one human caption each; None where its package is not installed."""
    return {
        name: _or_none(name, lambda metric=metric: metric(captions, references))  # type: ignore[misc]
        for name, metric in (("bleu", text.bleu), ("rouge_l", text.rouge_l), ("meteor", text.meteor))
    }


def perplexity(texts: Sequence[str], source: str, batch_size: int = 16) -> float:
    """exp of the mean nats per token under a causal LM, every text from its beginning; lower is more usual.

    Args:
        texts: to score.
        source: local path or hub id of the LM.
        batch_size: texts per forward pass.

    Raises:
        InputError: no model there.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from conceptcaps.captions.lora import Example, answer_loss, collate

    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    except (OSError, ValueError) as error:
        raise InputError(f"language model {source}", f"cannot be loaded ({error})", "Give a local path") from error
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    longest = model.config.max_position_embeddings
    examples = [Example([begin, *tokenizer(t, add_special_tokens=False)["input_ids"]][:longest], 1) for t in texts]
    examples.sort(key=lambda e: len(e.ids))
    with torch.no_grad():
        total = sum(
            float(answer_loss(model, collate(examples[i : i + batch_size], begin)))
            for i in range(0, len(examples), batch_size)
        )
    return math.exp(total / sum(e.num_answer for e in examples))


def measure(
    captions: Sequence[str],
    tags: Sequence[Sequence[str]],
    references: Sequence[str] | None = None,
    vocabulary: Sequence[str] = (),
    language_model: str | None = None,
) -> dict[str, Any]:
    """All measures of one system's captions; a metric that cannot be had is None and the log says why."""
    found: Measures = tag_measures(captions, tags, vocabulary) | variety_measures(captions)
    if references is not None:
        found |= reference_measures(captions, references)
    if language_model:
        found["perplexity"] = _or_none("perplexity", lambda: perplexity(captions, language_model))
    return found


def _or_none(name: str, metric: Callable[[], float]) -> float | None:
    try:
        return metric()
    except InputError as error:
        logger.warning("%s is left out: %s", name, error)
        return None
