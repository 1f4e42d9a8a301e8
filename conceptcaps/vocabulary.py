"""Vocabulary: four concept categories and their tags, and multi-hot vectors over them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from conceptcaps.errors import InputError

CATEGORIES = ("genre", "mood", "instrument", "tempo")
"""The concept categories, in the order of the published dataset's columns."""


def aspects_column(category: str) -> str:
    """The column that holds a row's tags of one category, e.g. 'genre_aspects'."""
    return f"{category}_aspects"


@dataclass(frozen=True)
class Vocabulary:
    """An ordered set of tags, each in exactly one category.

    Tag order is the multi-hot order: categories in the order of `CATEGORIES`, tags in the order given.
    """

    tags_by_category: Mapping[str, tuple[str, ...]]

    @classmethod
    def from_mapping(cls, mapping: Any, where: str = "taxonomy") -> Vocabulary:
        """Build from the published layout `{category: [tag, ...]}`, checking it.

        Raises:
            InputError: an unknown or missing category, a tag in two categories or listed twice, or no tag at all.
        """
        if not isinstance(mapping, Mapping):
            raise InputError(where, "is not a JSON object of category -> list of tags", "Use the published layout")
        unknown = sorted(set(mapping) - set(CATEGORIES))
        if unknown:
            raise InputError(where, f"has unknown categories {unknown}", f"Use only {list(CATEGORIES)}")
        home: dict[str, str] = {}
        for category, tags in mapping.items():
            if not isinstance(tags, Sequence) or isinstance(tags, str) or not all(isinstance(t, str) for t in tags):
                raise InputError(f"{where}, key {category!r}", "is not a list of strings", "List the tags as strings")
            for tag in tags:
                if tag != tag.strip() or not tag:
                    raise InputError(f"{where}, tag {tag!r}", "is empty or has outer white space", "Trim or remove it")
                if tag in home:
                    both = (
                        f"in {home[tag]!r} and in {category!r}" if home[tag] != category else f"twice in {category!r}"
                    )
                    raise InputError(f"{where}, tag {tag!r}", f"stands {both}", "Keep it in one place only")
                home[tag] = category
        if not home:
            raise InputError(where, "holds no tags", "List at least one tag in each category you need")
        return cls({c: tuple(mapping.get(c, ())) for c in CATEGORIES})

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "taxonomy") -> Vocabulary:
        """Build from the text of a `concepts_to_tags.json`."""
        try:
            mapping = json.loads(text)
        except ValueError as error:
            raise InputError(where, f"is not JSON ({error})", "Mend the file or give another one") from error
        return cls.from_mapping(mapping, where)

    def to_json(self) -> str:
        """The published layout, categories in fixed order."""
        return json.dumps({c: list(t) for c, t in self.tags_by_category.items()}, indent=4, ensure_ascii=False)

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """All tags in multi-hot order."""
        return tuple(tag for category in CATEGORIES for tag in self.tags_by_category[category])

    @cached_property
    def index(self) -> dict[str, int]:
        """tag -> its column in a multi-hot matrix."""
        return {tag: i for i, tag in enumerate(self.tags)}

    @cached_property
    def category_indices(self) -> np.ndarray:
        """int64 (num_tags,): the position in `CATEGORIES` of each tag's category."""
        sizes = [len(self.tags_by_category[c]) for c in CATEGORIES]
        return np.repeat(np.arange(len(CATEGORIES)), sizes)

    def __len__(self) -> int:
        return len(self.tags)

    def category_of(self, tag: str) -> str:
        """The category of a tag (KeyError if it is not in the vocabulary)."""
        return CATEGORIES[self.category_indices[self.index[tag]]]

    def encode(self, tag_sets: Iterable[Iterable[str]]) -> np.ndarray:
        """uint8 (num_rows, num_tags) multi-hot matrix; tags outside the vocabulary are left out."""
        rows = [[self.index[t] for t in tags if t in self.index] for tags in tag_sets]
        matrix = np.zeros((len(rows), len(self)), dtype=np.uint8)
        for i, columns in enumerate(rows):
            matrix[i, columns] = 1
        return matrix

    def decode(self, matrix: np.ndarray) -> list[list[str]]:
        """The tag sets of a multi-hot (num_rows, num_tags) matrix, tags in vocabulary order."""
        return [[self.tags[j] for j in np.flatnonzero(row)] for row in matrix]

    def columns(self, tags: Iterable[str]) -> dict[str, list[str]]:
        """A row's aspect columns: `aspect_list` and one `<category>_aspects` per category, in vocabulary order."""
        known = sorted((t for t in set(tags) if t in self.index), key=self.index.__getitem__)
        split: dict[str, list[str]] = {"aspect_list": known}
        for category in CATEGORIES:
            split[aspects_column(category)] = [t for t in known if self.category_of(t) == category]
        return split

    def num_categories(self, matrix: np.ndarray) -> np.ndarray:
        """int (num_rows,): in how many categories each multi-hot row has a tag."""
        return np.stack([matrix[:, self.category_indices == k].any(1) for k in range(len(CATEGORIES))]).sum(0)
