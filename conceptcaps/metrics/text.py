"""Text metrics: captions in, floats out. Each needs no model; packages are named where one is used."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from conceptcaps.extras import require

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def words(text: str) -> list[str]:
    """Lower-case words, without punctuation."""
    return _WORD.findall(text.lower())


def distinct(texts: Sequence[str], n: int) -> float:
    """Distinct n-grams over all n-grams of a collection, in [0, 1], higher is more varied (Li et al. 2016).

    It falls with the size of the collection: compare collections of one size.
    """
    counts = sum((_ngrams(words(text), n) for text in texts), Counter())
    total = sum(counts.values())
    return len(counts) / total if total else float("nan")


def vocabulary_size(texts: Sequence[str]) -> int:
    """Number of different words."""
    return len({word for text in texts for word in words(text)})


def lengths(texts: Sequence[str]) -> np.ndarray:
    """int (num_texts,): words between white space."""
    return np.array([len(text.split()) for text in texts], dtype=np.int64)


def bleu(candidates: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU-4 of sacrebleu, in [0, 1], higher is closer (Papineni et al. 2002).

    Args:
        candidates: (num_texts,).
        references: one for each candidate.
    """
    sacrebleu = require("sacrebleu", "metrics")
    return sacrebleu.corpus_bleu(list(candidates), [list(references)]).score / 100


def self_bleu(texts: Sequence[str], num_texts: int = 200, seed: int = 0) -> float:
    """Mean BLEU-4 of each text against all others, in [0, 1], lower is more varied (Zhu et al. 2018).

    Args:
        texts: a collection; two at least.
        num_texts: how many are drawn, as the cost is quadratic.
        seed: of the draw.
    """
    sacrebleu = require("sacrebleu", "metrics")
    rng = np.random.Generator(np.random.Philox(seed))
    drawn = [texts[i] for i in rng.permutation(len(texts))[:num_texts]]
    if len(drawn) < 2:
        return float("nan")
    measure = sacrebleu.BLEU(effective_order=True)
    scores = [measure.sentence_score(text, drawn[:i] + drawn[i + 1 :]).score for i, text in enumerate(drawn)]
    return float(np.mean(scores)) / 100


def rouge_l(candidates: Sequence[str], references: Sequence[str]) -> float:
    """Mean ROUGE-L F1, in [0, 1], higher is closer (Lin 2004); words are stemmed (rouge-score)."""
    scorer = require("rouge_score.rouge_scorer", "metrics").RougeScorer(["rougeL"], use_stemmer=True)
    scores = [scorer.score(r, c)["rougeL"].fmeasure for c, r in zip(candidates, references, strict=True)]
    return float(np.mean(scores)) if scores else float("nan")


def meteor(candidates: Sequence[str], references: Sequence[str]) -> float:
    """Mean METEOR with exact and stem matches, in [0, 1], higher is closer (Banerjee and Lavie 2005).

    nltk's own adds WordNet synonyms, whose data must be downloaded; this is the same formula without them.
    """
    stem = require("nltk.stem.porter", "metrics").PorterStemmer().stem
    scores = [_meteor(_stemmed(c, stem), _stemmed(r, stem)) for c, r in zip(candidates, references, strict=True)]
    return float(np.mean(scores)) if scores else float("nan")


def _stemmed(text: str, stem: object) -> list[str]:
    assert callable(stem)
    return [stem(word) for word in words(text)]


def _meteor(candidate: list[str], reference: list[str]) -> float:
    pairs = _align(candidate, reference)
    if not pairs:
        return 0.0
    precision, recall = len(pairs) / len(candidate), len(pairs) / len(reference)
    mean = precision * recall / (0.9 * precision + 0.1 * recall)
    chunks = 1 + sum(b != (a[0] + 1, a[1] + 1) for a, b in pairwise(pairs))
    return mean * (1 - 0.5 * (chunks / len(pairs)) ** 3)


def _align(candidate: list[str], reference: list[str]) -> list[tuple[int, int]]:
    """Matches in the candidate's order; each word goes to the free place next to the last match, else the first."""
    free: dict[str, list[int]] = {}
    for j, word in enumerate(reference):
        free.setdefault(word, []).append(j)
    pairs: list[tuple[int, int]] = []
    for i, word in enumerate(candidate):
        places = free.get(word)
        if places:
            wanted = pairs[-1][1] + 1 if pairs else 0
            chosen = wanted if wanted in places else places[0]
            places.remove(chosen)
            pairs.append((i, chosen))
    return pairs


def _ngrams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))
