"""Tags to musical cues, by the words in them: any string is read, known tag or not."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from conceptcaps.audio.words import WORDS, Value

_NEGATION = re.compile(r"^(no|not|non|without|lacking|free of|zero)\b[ -]?(?:any )?(.*)$|^(.*?)[ -]?(less|free)$")


@dataclass
class Cues:
    """What a tag set says, before contradictions are settled and gaps are drawn."""

    on: set[str] = field(default_factory=set)  # parts asked for: percussion, bass, voice, male, female
    off: set[str] = field(default_factory=set)  # parts refused; a refusal wins
    tempo: list[tuple[float, float]] = field(default_factory=list)
    mode: list[str] = field(default_factory=list)
    patterns: list[str] = field(default_factory=list)
    leanings: list[str] = field(default_factory=list)  # patterns that fit, where none is named
    instruments: list[str] = field(default_factory=list)
    hits: list[str] = field(default_factory=list)
    bass_style: list[str] = field(default_factory=list)
    feel: list[str] = field(default_factory=list)
    kit: list[str] = field(default_factory=list)
    brightness: list[float] = field(default_factory=list)
    energy: list[float] = field(default_factory=list)
    space: list[float] = field(default_factory=list)
    flags: set[str] = field(default_factory=set)  # words of `words.WORDS["flags"]`


def read(tags: Iterable[str]) -> Cues:
    """The cues of a set of tags (or of whole sentences). The order of the tags does not matter."""
    cues = Cues()
    for tag in sorted({_plain(tag) for tag in tags}):
        refused = _refused(tag)
        for kind, value in _matches(refused or tag):
            if refused is None:
                _add(cues, kind, value)
            else:
                _refuse(cues, kind, value)
        if tag in ("instrumental", "instrumental music", "instrumental cover"):
            cues.off.add("voice")
        if tag in ("a cappella", "acapella"):
            cues.off.update(("percussion", "bass"))
    return cues


def _add(cues: Cues, kind: str, value: Value) -> None:
    if kind in ("on", "flags"):
        getattr(cues, kind).add(value)
        if value in ("male", "female"):
            cues.on.add("voice")
    else:
        getattr(cues, kind).append(value)
        if kind in ("hits", "kit"):
            cues.on.add("percussion")


def _refuse(cues: Cues, kind: str, value: Value) -> None:
    if kind == "on" or kind in ("hits", "instruments"):
        cues.off.add(str(value))


def _plain(text: str) -> str:
    """Lower case, words only, plurals cut: 'Shimmering hi-hats' -> 'shimmering hi hat'."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    return " ".join(
        w[:-1] if len(w) > 3 and w.endswith("s") and not w.endswith(("ss", "us", "is")) else w for w in words
    )


def _refused(tag: str) -> str | None:
    """What a negated tag refuses: 'no percussion' -> 'percussion', 'drumless' -> 'drum'; None if it is no negation."""
    found = _NEGATION.match(tag)
    return (found.group(2) or found.group(3)) if found else None


@lru_cache(maxsize=1)
def _phrases() -> dict[str, dict[str, Value | None]]:
    """Kind of cue -> plain phrase -> value."""
    return {
        kind: {_plain(phrase): value for value, text in table.items() for phrase in text.split(";")}
        for kind, table in WORDS.items()
    }


@lru_cache(maxsize=8192)
def _matches(tag: str) -> tuple[tuple[str, Value], ...]:
    """(kind, value) of every cue in a plain text."""
    words = tag.split()
    return tuple((kind, value) for kind, phrases in _phrases().items() for value in _longest(words, phrases))


def _longest(words: list[str], phrases: dict[str, Value | None], most: int = 5) -> list[Value]:
    """Values of the longest phrases from left to right; each word counts once."""
    found: list[Value] = []
    at = 0
    while at < len(words):
        lengths = range(min(most, len(words) - at), 0, -1)
        length = next((n for n in lengths if " ".join(words[at : at + n]) in phrases), 0)
        value = phrases[" ".join(words[at : at + length])] if length else None
        if value is not None:
            found.append(value)
        at += max(length, 1)
    return found
