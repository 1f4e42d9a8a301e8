"""Captions against their tags and against human captions: every metric that can be had, and why not where it cannot."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from conceptcaps.captions.checks import Synonyms, contradicted, is_said, judge
from conceptcaps.config.captions import ChecksConfig
from conceptcaps.config.evaluation import EvaluationConfig
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


@dataclass
class Measured:
    """What could be measured of one system's captions.

    Attributes:
        values: metric -> number; None where it could not be had or does not apply.
        missing: metric -> why it could not be had.
    """

    values: Measures = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, metric: Callable[[], float | None]) -> None:
        """Take a metric, or note why there is none: a missing package or model costs its own metric only."""
        try:
            value = metric()
            self.values[name] = value if value is None or math.isfinite(value) else None
        except InputError as error:
            logger.warning("%s is left out: %s", name, error)
            self.values[name], self.missing[name] = None, str(error)


def measure(
    captions: Sequence[str],
    tags: Sequence[Sequence[str]],
    references: Sequence[str] | None = None,
    vocabulary: Sequence[str] = (),
    settings: EvaluationConfig | None = None,
    checks: ChecksConfig | None = None,
    synonyms: Synonyms | None = None,
    seed: int = 0,
) -> Measured:
    """All measures of one system's captions.

    Args:
        captions: (num_captions,).
        tags: of each caption's row.
        references: a human caption for each; None for the human captions themselves.
        vocabulary: all tags, for the precision.
        settings: which models there are.
        checks: of the run, for the share of captions that pass them.
        synonyms: tag -> other ways to say it.
        seed: of what is drawn.
    """
    chosen = settings or EvaluationConfig()
    found = Measured(tag_measures(captions, tags, vocabulary, synonyms))
    if checks is not None:
        passed = [
            judge(caption, row, checks, synonyms).problem is None for caption, row in zip(captions, tags, strict=True)
        ]
        found.values["passes_checks"] = float(np.mean(passed))
    sizes = text.lengths(captions)
    found.values |= {
        "distinct_1": text.distinct(captions, 1),
        "distinct_2": text.distinct(captions, 2),
        "vocabulary": float(text.vocabulary_size(captions)),
        "mean_words": float(sizes.mean()),
        "in_20_to_80_words": float(((sizes >= 20) & (sizes <= 80)).mean()),
    }
    found.add("self_bleu", lambda: text.self_bleu(captions, seed=seed))
    if references is not None:
        found.add("bleu", lambda: text.bleu(captions, references))
        found.add("rouge_l", lambda: text.rouge_l(captions, references))
        found.add("meteor", lambda: text.meteor(captions, references))
    _add_model_metrics(found, captions, references, chosen, seed)
    return found


def _add_model_metrics(
    found: Measured,
    captions: Sequence[str],
    references: Sequence[str] | None,
    settings: EvaluationConfig,
    seed: int,
) -> None:
    from conceptcaps.captions import model_metrics as models

    def of(key: str, value: str | None) -> str:
        if value is None:
            raise InputError(f"key 'evaluation.{key}'", "names no model", "Give a local path")
        return value

    found.add("perplexity", lambda: models.perplexity(captions, of("language_model", settings.language_model)))
    if references is not None:
        encoder, layer = settings.bert_model, settings.bert_layer
        found.add("bert_score", lambda: models.bert_score(captions, references, of("bert_model", encoder), layer))
        found.add(
            "mauve", lambda: models.mauve(captions, references, of("feature_model", settings.feature_model), seed)
        )
