"""A tag's category, how sure that is, and why: the lexicon first, a classifier for words it does not know."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from conceptcaps.taxonomy.cleaning import clean, is_latin
from conceptcaps.taxonomy.lexicon import QUALITY, Lexicon
from conceptcaps.vocabulary import CATEGORIES

OTHER = "other"
UNKNOWN, FOREIGN = "unknown", "another language or script"
_RHYTHM_FIRST = ("rhythmic", "syncopated", "polyrhythmic")
_RHYTHM_LAST = ("rhythm", "pattern", "tempo", "bpm", "groove", "pace", "paced", "uptempo", "meter")


@dataclass(frozen=True)
class Verdict:
    """Where a tag belongs.

    Attributes:
        category: one of `CATEGORIES`, 'other', or 'quality' for a remark on the recording.
        kind: for 'other', what it is instead ('setting', 'structure', ..., 'unknown'); else the category.
        confidence: in [0, 1]; for a word of no list, calibrated on held-out words of the lexicon.
        reason: in words.
    """

    category: str
    kind: str
    confidence: float
    reason: str

    @property
    def is_reasoned(self) -> bool:
        """Whether the tag was recognised, be it as something that is none of the categories."""
        return self.kind not in (UNKNOWN, FOREIGN)


class Categoriser:
    """Tags to categories.

    Args:
        lexicon: None for the packaged one.
        threshold: a word of no list is categorised from this confidence, and 'other' below it.
    """

    def __init__(self, lexicon: Lexicon | None = None, threshold: float = 0.8):
        self.lexicon = Lexicon.load() if lexicon is None else lexicon
        self.threshold = threshold
        self._cache: dict[str, Verdict] = {}

    def __call__(self, tag: str) -> Verdict:
        if tag not in self._cache:
            self._cache[tag] = self._known(tag) or self._guessed(tag)
        return self._cache[tag]

    def _known(self, tag: str) -> Verdict | None:
        text, folded = clean(tag), self.lexicon.fold(tag)
        if (kind := self.lexicon.classes.get(folded)) and self.lexicon.is_category(kind):
            return _verdict(kind, 1.0, f"{folded!r} is listed as {kind}")
        if self.lexicon.is_quality(tag):
            return Verdict(QUALITY, QUALITY, 1.0, "a remark on the recording")
        if kind:
            return _verdict(kind, 1.0, f"{folded!r} is listed as {kind}")
        words = folded.split()
        if not words or not is_latin(text):
            return Verdict(OTHER, FOREIGN, 1.0, "not written in Latin letters")
        return self._by_rhythm(words) or self._by_head(words)

    def _by_rhythm(self, words: list[str]) -> Verdict | None:
        if words[-1] in _RHYTHM_LAST:
            return _verdict("tempo", 0.95, f"its head {words[-1]!r} says how the music moves")
        if words[0] in _RHYTHM_FIRST:
            return _verdict("tempo", 0.9, f"{words[0]!r} says how the music moves")
        return None

    def _by_head(self, words: list[str]) -> Verdict | None:
        """The class of the last listed phrase; nouns that only say what an instrument does come after the others."""
        found = [(end, phrase, self.lexicon.classes[phrase]) for end, phrase in self._phrases(words)]
        content = [f for f in found if f[1] not in self.lexicon.generic | self.lexicon.function]
        if sources := [f for f in content if f[2] == "instrument"]:
            # A listed sound source outweighs what follows it ('flute melody in the background').
            content = [f for f in content if f[2] == "setting" and f[0] == len(words)] or sources
        for end, phrase, kind in [*content, *found]:
            sure = 0.95 if end == len(words) else 0.85
            return _verdict(kind, sure, f"its head {phrase!r} is listed as {kind}")
        return None

    def _phrases(self, words: list[str]) -> list[tuple[int, str]]:
        """Listed phrases, the last first, longest first, none inside another: (end, phrase)."""
        found, end = [], len(words)
        while end:
            start = next((s for s in range(end) if " ".join(words[s:end]) in self.lexicon.classes), None)
            if start is None:
                end -= 1
                continue
            found.append((end, " ".join(words[start:end])))
            end = start
        return found

    def _guessed(self, tag: str) -> Verdict:
        kind, confidence = classifier()(self.lexicon.fold(tag))
        if kind in CATEGORIES and confidence >= self.threshold:
            return _verdict(kind, confidence, f"its letters are like those of listed words of {kind}")
        return Verdict(OTHER, UNKNOWN, 1 - confidence if kind in CATEGORIES else confidence, "no listed word")


def _verdict(kind: str, confidence: float, reason: str) -> Verdict:
    return Verdict(kind if kind in CATEGORIES else OTHER, kind, confidence, reason)


class LetterClassifier:
    """Naive Bayes on character n-grams of the lexicon's phrases, temperature-calibrated on held-out phrases.

    Source: Cavnar and Trenkle (1994) for the features; Guo et al. (2017), section 4.2, for the temperature.

    Attributes:
        temperature: log probabilities are divided by this.
        accuracy: share of held-out phrases of the lexicon put in their class.
    """

    classes = (*CATEGORIES, OTHER)

    def __init__(self, lexicon: Lexicon, num_folds: int = 5):
        phrases = sorted(lexicon.classes)
        target = np.array([self._class_of(lexicon.classes[p]) for p in phrases])
        # Every num_folds-th phrase of the sorted list: neighbours fall apart, and no random number is needed.
        fold = np.arange(len(phrases)) % num_folds
        held_out = np.empty((len(phrases), len(self.classes)))
        for k in range(num_folds):
            self._fit([p for p, f in zip(phrases, fold, strict=True) if f != k], target[fold != k])
            held_out[fold == k] = [self._scores(p) for p, f in zip(phrases, fold, strict=True) if f == k]
        self._fit(phrases, target)
        grid = np.geomspace(1, 50, 60)
        self.temperature = float(grid[np.argmin([_log_loss(held_out / t, target) for t in grid])])
        self.accuracy = float((held_out.argmax(1) == target).mean())

    def __call__(self, folded: str) -> tuple[str, float]:
        """(class, its probability) of a folded tag."""
        probabilities = _softmax(self._scores(folded)[None] / self.temperature)[0]
        best = int(probabilities.argmax())
        return self.classes[best], float(probabilities[best])

    def _class_of(self, kind: str) -> int:
        return self.classes.index(kind) if kind in self.classes else len(CATEGORIES)

    def _fit(self, phrases: list[str], target: np.ndarray) -> None:
        counts: dict[str, np.ndarray] = {}
        for phrase, k in zip(phrases, target, strict=True):
            for gram in letter_grams(phrase):
                counts.setdefault(gram, np.zeros(len(self.classes)))[k] += 1
        smooth = np.array(list(counts.values())) + 0.1
        self._weights = dict(zip(counts, np.log(smooth / smooth.sum(0)), strict=True))
        self._prior = np.log(np.bincount(target, minlength=len(self.classes)) / len(target))

    def _scores(self, phrase: str) -> np.ndarray:
        known = [self._weights[gram] for gram in letter_grams(phrase) if gram in self._weights]
        return self._prior + np.sum(known, axis=0)


def letter_grams(phrase: str, shortest: int = 2, longest: int = 5) -> set[str]:
    """The character n-grams of each word, with its edges marked by spaces."""
    padded = [f" {word} " for word in phrase.split()]
    return {w[i : i + n] for w in padded for n in range(shortest, longest + 1) for i in range(len(w) - n + 1)}


@functools.lru_cache(maxsize=1)
def classifier() -> LetterClassifier:
    """The classifier of the packaged lexicon, fitted once per process."""
    return LetterClassifier(Lexicon.load())


def _softmax(scores: np.ndarray) -> np.ndarray:
    shifted = np.exp(scores - scores.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def _log_loss(scores: np.ndarray, target: np.ndarray) -> Any:
    return -np.log(_softmax(scores)[np.arange(len(target)), target] + 1e-12).mean()
