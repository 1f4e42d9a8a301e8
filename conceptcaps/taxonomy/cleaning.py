"""Raw aspect text to its cleaned form: Unicode, case, white space, outer punctuation."""

from __future__ import annotations

import functools
import re
import unicodedata

_PUNCTUATION = str.maketrans(
    {"’": "'", "‘": "'", "´": "'", "`": "'", "“": '"', "”": '"', "‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "-"}
    | dict.fromkeys("\u200b\u200c\u200d\ufeff\u00ad", None)
)
_SPACE = re.compile(r"\s+")
_HYPHEN = re.compile(r"\s*-+\s*")
_OUTER = " \t.,;:!?\"'()[]{}*_-/\\"


@functools.lru_cache(maxsize=2**16)
def clean(text: str) -> str:
    """The form in which two tags are the same tag: NFKC, lower case, straight quotes, single spaces, no outer marks.

    '  Hip‑Hop ' -> 'hip-hop'; inner punctuation as in 'r&b', '808' or "children's song" stays.
    """
    text = unicodedata.normalize("NFKC", text).translate(_PUNCTUATION).lower()
    return _HYPHEN.sub("-", _SPACE.sub(" ", text)).strip(_OUTER)


def is_latin(text: str) -> bool:
    """Whether most letters of a text are of the Latin script; True without letters."""
    letters = [c for c in text if c.isalpha()]
    return not letters or sum("LATIN" in unicodedata.name(c, "") for c in letters) > len(letters) / 2
