"""Misspelt words: rare words one slip away from a known one."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

_SHORTEST = 5
"""Letters a word needs: shorter ones have too many neighbours."""
_DOMINANCE = 20
"""How many times as frequent as the slip a word outside the lexicon must be."""


def corrections(tags: Mapping[str, int], known: Iterable[str]) -> dict[str, str]:
    """Misspelt word -> the word meant: one insertion, deletion, substitution or swap away, and far more frequent.

    Args:
        tags: folded tag -> uses.
        known: words that are never corrected, and may be corrected to.
    """
    uses = Counter[str]()
    for tag, count in tags.items():
        for word in set(tag.split()):
            uses[word] += count
    listed = set(known)
    common = listed | {word for word, count in uses.items() if count >= _DOMINANCE}
    found = {}
    for word, count in uses.items():
        if word in common or len(word) < _SHORTEST or not word.isascii() or not word.isalpha():
            continue
        near = {c for c in slips(word) if c in common and _is_slip(word, c)}
        near = {c for c in near if c in listed or uses[c] >= _DOMINANCE * count}
        if near:
            found[word] = max(sorted(near), key=lambda c: uses[c])
    return found


def slips(word: str) -> Iterator[str]:
    """All strings at Damerau-Levenshtein distance 1 (Damerau 1964)."""
    splits = [(word[:i], word[i:]) for i in range(len(word) + 1)]
    for left, right in splits:
        if right:
            yield left + right[1:]
            yield from (left + letter + right[1:] for letter in string.ascii_lowercase)
        if len(right) > 1:
            yield left + right[1] + right[0] + right[2:]
        yield from (left + letter + right for letter in string.ascii_lowercase)


def _is_slip(word: str, meant: str) -> bool:
    """Not another word of the same stem ('dancer', 'dance'), and the first letter is right."""
    is_derived = word.startswith(meant) or meant.startswith(word)
    return word != meant and word[0] == meant[0] and len(meant) >= _SHORTEST and not is_derived
