"""The packaged lexicon: which words name a genre, a mood, an instrument or a tempo, and how words are folded."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from conceptcaps.taxonomy.cleaning import clean
from conceptcaps.vocabulary import CATEGORIES

ASSET = "lexicon.json"
QUALITY = "quality"
_SEPARATORS = re.compile(r"[\s\-_/]+")
_ES = ("ches", "shes", "xes", "sses", "zes")


@dataclass(frozen=True)
class Lexicon:
    """What the lexicon says, by folded phrase.

    Attributes:
        classes: folded phrase -> a category, or a kind of 'other' (production, setting, structure, ...).
        generic: nouns that add nothing to a tag ('jazz music' is 'jazz').
        function: nouns that say what an instrument does ('piano melody'); its class decides.
        quality: patterns of remarks on the recording.
        synonyms: (canonical tag, pattern of its synonyms).
        spelling: word -> its usual spelling.
        invariant: words whose last 's' is no plural.
        arguments: why a tag, or a tag of a category 'theirs>ours', belongs where it is filed here.
        words: every word of a listed phrase, and other words that are no misspelling of one.
    """

    classes: Mapping[str, str]
    generic: frozenset[str]
    function: frozenset[str]
    quality: tuple[re.Pattern[str], ...]
    synonyms: tuple[tuple[str, re.Pattern[str]], ...]
    spelling: Mapping[str, str]
    invariant: frozenset[str]
    words: frozenset[str]
    arguments: Mapping[str, str]

    @classmethod
    @functools.lru_cache(maxsize=1)
    def load(cls) -> Lexicon:
        """The packaged lexicon."""
        table = json.loads(resources.files("conceptcaps.assets").joinpath(ASSET).read_text(encoding="utf-8"))
        spelling, invariant = table["spelling"], frozenset(table["invariant"])
        listed = {**table["other"], **table["categories"]}
        classes = {fold(phrase, spelling, invariant): kind for kind, phrases in listed.items() for phrase in phrases}
        return cls(
            classes=classes,
            generic=frozenset(table["generic"]),
            function=frozenset(table["function"]),
            quality=tuple(map(re.compile, table["quality"])),
            synonyms=tuple((canonical, re.compile(pattern)) for canonical, pattern in table["synonyms"]),
            spelling=spelling,
            invariant=invariant,
            words=frozenset(word for phrase in [*classes, *table["real_words"]] for word in phrase.split()),
            arguments=table["arguments"],
        )

    def fold(self, tag: str) -> str:
        """Spelling variants, hyphens and plurals gone: 'E-Guitars' -> 'electric guitar'."""
        return fold(tag, self.spelling, self.invariant)

    def is_quality(self, tag: str) -> bool:
        """Whether a tag is a remark on the recording rather than on the music."""
        text = clean(tag)
        return any(pattern.search(text) for pattern in self.quality)

    def synonym_of(self, tag: str) -> str | None:
        """The canonical tag of the first synonym pattern that matches, or None."""
        forms = (clean(tag), self.fold(tag))
        return next((name for name, pattern in self.synonyms if any(map(pattern.search, forms))), None)

    def is_category(self, kind: str | None) -> bool:
        return kind in CATEGORIES


def fold(tag: str, spelling: Mapping[str, str], invariant: frozenset[str]) -> str:
    """See `Lexicon.fold`."""
    respelled = " ".join(spelling.get(word, word) for word in clean(tag).split())
    words = [w for w in _SEPARATORS.split(respelled) if w]
    return " ".join(singular(spelling.get(word, word), invariant) for word in words)


def singular(word: str, invariant: frozenset[str]) -> str:
    """A noun's singular by English rules: 'claps' -> 'clap', 'melodies' -> 'melody', "children's" -> 'children'."""
    if word.endswith("'s"):
        return word[:-2]
    if word in invariant or len(word) < 4 or word.endswith(("ss", "us", "is")) or not word.endswith("s"):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-2] if word.endswith(_ES) else word[:-1]
