"""Tags as written to tags of a vocabulary, and rows to the columns that the later stages read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from conceptcaps.errors import InputError
from conceptcaps.schema import ASPECT_COLUMNS
from conceptcaps.taxonomy.cleaning import clean
from conceptcaps.taxonomy.phrases import remove_quality
from conceptcaps.vocabulary import Vocabulary

ROWS = pa.schema([pa.field("caption", pa.string()), *(pa.field(c, pa.list_(pa.string())) for c in ASPECT_COLUMNS)])
"""Training rows of the tag model: a caption and its tags of the vocabulary, in vocabulary order."""


@dataclass(frozen=True)
class Matcher:
    """Finds the vocabulary's tag for a tag as written.

    Attributes:
        vocabulary: the tags to find.
        home: cleaned text -> tag of the vocabulary.
    """

    vocabulary: Vocabulary
    home: Mapping[str, str]

    @classmethod
    def of(cls, vocabulary: Vocabulary, canonical: Mapping[str, str] | None = None, where: str = "taxonomy") -> Matcher:
        """A matcher by equal cleaned text and, where given, by canonical tags.

        Args:
            canonical: cleaned tag -> cleaned canonical tag; two tags match when their canonical tags are equal.

        Raises:
            InputError: two tags of the vocabulary are the same when cleaned.
        """
        home: dict[str, str] = {}
        for tag in vocabulary.tags:
            if (other := home.setdefault(clean(tag), tag)) != tag:
                problem = f"is the same tag as {other!r} but for case, spaces or punctuation"
                raise InputError(f"{where}, tag {tag!r}", problem, "Keep one of them")
        return cls(vocabulary, home if canonical is None else _with_synonyms(home, canonical))

    def match(self, tags: Iterable[str]) -> list[str]:
        """The vocabulary's tags among tags as written; repeats possible."""
        return [home for tag in tags if (home := self.home.get(clean(tag))) is not None]

    def rows(self, parsed: pa.Table, min_categories: int, clean_captions: bool = False) -> pa.Table:
        """The rows of schema `ROWS` among parsed rows: those with tags in at least `min_categories` categories."""
        kept: dict[str, list] = {name: [] for name in ROWS.names}
        for caption, tags in zip(parsed["caption"].to_pylist(), parsed["tags"].to_pylist(), strict=True):
            columns = self.vocabulary.columns(self.match(tags))
            if sum(bool(columns[name]) for name in ASPECT_COLUMNS[1:]) < min_categories:
                continue
            kept["caption"].append(remove_quality(caption) if clean_captions else caption)
            for name, values in columns.items():
                kept[name].append(values)
        return pa.table(kept, schema=ROWS)


def _with_synonyms(home: Mapping[str, str], canonical: Mapping[str, str]) -> dict[str, str]:
    by_canonical: dict[str, str] = {}
    for text, tag in home.items():
        by_canonical.setdefault(canonical.get(text, text), tag)
    wider = {text: by_canonical[to] for text, to in canonical.items() if to in by_canonical}
    return {**wider, **by_canonical, **home}
