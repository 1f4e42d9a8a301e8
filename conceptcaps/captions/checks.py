"""Checks of a caption against its tags: what it says, what it contradicts, and whether it reads as a caption."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from conceptcaps.captions.grammar import is_absence
from conceptcaps.captions.prompts import refuse
from conceptcaps.config.captions import ChecksConfig
from conceptcaps.contradictions import Family, load_families

Synonyms = Mapping[str, Sequence[str]]

_STOP = "."
_WORD_OR_STOP = re.compile(r"[^\W_]+(?:['’&][^\W_]+)*|[.;:!?]")
_WORD = re.compile(r"[^\W_]+(?:['’&][^\W_]+)*")
_CLAUSE = re.compile(r"[.,;:!?()]|\b(?:and|but|while|with|over|alongside|as well as)\b", re.IGNORECASE)
_NEGATORS = frozenset({"no", "not", "without", "lacks", "lack", "lacking", "never", "none", "absence", "free"})
_NEGATION_REACH = 3
"""Words before a tag in which a negator denies it: 'without any real drums'."""
_NAME = re.compile(
    r"\b(?:by|of|like|from|à la|reminiscent of)\s+(?:the\s+)?(?:[A-Z][\w'’.-]*\s+){1,3}[A-Z][\w'’.-]*|\b(?:feat|ft)\."
)
_ENGLISH = frozenset(
    {"a", "an", "the", "and", "of", "with", "in", "is", "it", "this", "has", "to", "on", "at", "by", "are", "for"}
    | {"that", "its", "one", "can", "be", "there", "song", "music", "piece"}
)
_LEAST_ENGLISH = 0.12
"""Share of words that are common in any English paragraph; other languages stay below 0.05."""


@dataclass(frozen=True)
class Verdict:
    """What the checks found.

    Attributes:
        missing: tags that the caption does not say.
        contradicted: tags that it denies.
        problem: code of the first check that failed and its detail; None for a good caption.
        num_tags: of the row.
    """

    missing: tuple[str, ...]
    contradicted: tuple[str, ...]
    problem: tuple[str, str] | None
    num_tags: int

    @property
    def coverage(self) -> float:
        """Share of the tags that are said, in [0, 1]; 1 for no tags."""
        return 1 - len(self.missing) / self.num_tags if self.num_tags else 1.0

    @property
    def rank(self) -> tuple[bool, int, float]:
        """Higher is better, to choose among candidates."""
        return self.problem is None, -len(self.contradicted), self.coverage


def judge(caption: str, tags: Sequence[str], config: ChecksConfig, synonyms: Synonyms | None = None) -> Verdict:
    """All checks of one caption.

    Args:
        caption: cleaned.
        tags: of the row.
        config: which checks fail a caption.
        synonyms: tag -> other ways to say it.
    """
    verdict = assess(caption, tags, synonyms)
    return replace(verdict, problem=_problem(caption, verdict, config))


def assess(caption: str, tags: Sequence[str], synonyms: Synonyms | None = None) -> Verdict:
    """What the caption says and denies of the tags, without a judgement."""
    missing = tuple(tag for tag in tags if not is_said(caption, tag, (synonyms or {}).get(tag, ())))
    return Verdict(missing, contradicted(caption, tags), None, len(tags))


def _problem(caption: str, verdict: Verdict, config: ChecksConfig) -> tuple[str, str] | None:
    code = refuse(caption)
    if code:
        return code, ""
    num_words = len(caption.split())
    if num_words < config.min_words:
        return "too_short", f"{num_words} words"
    if num_words > config.max_words:
        return "too_long", f"{num_words} words"
    if config.names and (name := _NAME.search(caption)):
        return "name", name.group(0)
    if config.language and not is_english(caption):
        return "language", ""
    if config.contradictions and verdict.contradicted:
        return "contradiction", ", ".join(verdict.contradicted)
    if verdict.coverage < config.min_coverage:
        return "coverage", "does not say " + ", ".join(verdict.missing)
    return None


def stem(word: str) -> str:
    """A word without its inflection, roughly: 'strummed' is as 'strumming', 'drums' as 'drum', 'calmly' as 'calm'.

    A light suffix stripper (after Porter 1980, step 1): it need not give a word, only the same thing for both forms.
    """
    word = word.lower().replace("’", "'").removesuffix("'s")
    for suffix, least in (("ingly", 4), ("edly", 4), ("ing", 3), ("ed", 3), ("ly", 3), ("es", 3), ("s", 3)):
        if word.endswith(suffix) and len(word) - len(suffix) >= least and not word.endswith("ss"):
            word = word.removesuffix(suffix)
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiouls":
        word = word[:-1]
    if len(word) > 3 and word[-1] in "ey":
        word = word[:-1]
    return word[:-1] if len(word) > 3 and word[-1] == "i" else word


@lru_cache(maxsize=65536)
def stems(text: str) -> tuple[str, ...]:
    """The stems of a text's words, hyphens read as spaces."""
    return tuple(stem(word) for word in _WORD.findall(text.replace("-", " ")))


@lru_cache(maxsize=65536)
def _sentences(text: str) -> tuple[str, ...]:
    """The stems of a text's words, with `_STOP` where a sentence or a clause ends."""
    found = _WORD_OR_STOP.findall(text.replace("-", " "))
    return tuple(stem(word) if word[0].isalnum() else _STOP for word in found)


def is_said(caption: str, tag: str, synonyms: Iterable[str] = ()) -> bool:
    """Whether the caption says the tag, or a synonym of it, in any inflection and without denying it."""
    return any(_says(_sentences(caption), phrase) for phrase in (tag, *synonyms))


def _says(caption: tuple[str, ...], phrase: str) -> bool:
    if is_absence(phrase):
        return _denies(caption, stems(phrase.split(" ", 1)[1].removeprefix("of ")))
    wanted = stems(phrase)
    # A tag that carries its own negator ('not sad') is looked for as it is.
    free = bool(_NEGATORS & set(phrase.lower().split()))
    return any(free or not _is_denied(caption, at) for at in _places(caption, wanted))


def _denies(caption: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    return any(_is_denied(caption, at) for at in _places(caption, wanted))


def _places(caption: tuple[str, ...], wanted: tuple[str, ...]) -> list[int]:
    size = len(wanted)
    return [i for i in range(len(caption) - size + 1) if caption[i : i + size] == wanted] if size else []


def _is_denied(caption: tuple[str, ...], at: int) -> bool:
    before = caption[max(0, at - _NEGATION_REACH) : at]
    if _STOP in before:
        before = before[len(before) - before[::-1].index(_STOP) :]
    return bool(_STEMMED_NEGATORS & set(before))


_STEMMED_NEGATORS = frozenset(stem(word) for word in _NEGATORS)


@lru_cache(maxsize=1)
def _families() -> tuple[Family, ...]:
    return load_families()


def contradicted(caption: str, tags: Sequence[str]) -> tuple[str, ...]:
    """The tags that some clause of the caption contradicts, by the packaged families of exclusive tags.

    A family on whose sides the tags themselves disagree denies nothing: whatever the caption says, a tag asks for it.
    """
    clauses = [clause.strip() for clause in _CLAUSE.split(caption) if clause.strip()]
    found: list[str] = []
    for family in _families():
        sides = {tag: family.sides_of(tag) for tag in tags}
        asked = frozenset().union(*sides.values())
        asserted = [side for clause in clauses if (side := family.sides_of(clause))]
        if asked and any(not side & asked for side in asserted):
            found += [tag for tag, side in sides.items() if side]
    return tuple(found)


def is_english(text: str) -> bool:
    """Whether enough of the words are those of any English paragraph."""
    words = [word.lower() for word in _WORD.findall(text)]
    return bool(words) and sum(word in _ENGLISH for word in words) / len(words) >= _LEAST_ENGLISH
