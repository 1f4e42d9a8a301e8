"""Contradictions: which tags cannot hold of one piece of music, and which tag sets say so all the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import Any

import numpy as np

from conceptcaps.errors import InputError
from conceptcaps.vocabulary import Vocabulary

TABLE = "contradictions.json"
"""The packaged table of exclusive families, below `conceptcaps/assets`."""


@dataclass(frozen=True)
class Family:
    """Sides that exclude each other, e.g. tempo: slow, medium, fast.

    Attributes:
        name: of the family.
        sides: name of a side -> patterns; a tag is on a side when one of them is found in it.
        exceptions: patterns of tags that are on no side although a pattern finds them.
    """

    name: str
    sides: dict[str, tuple[re.Pattern[str], ...]]
    exceptions: tuple[re.Pattern[str], ...] = ()

    def sides_of(self, tag: str) -> frozenset[str]:
        """The sides a tag stands on; a range such as 'medium to uptempo' stands on two."""
        text = " ".join(tag.lower().split())
        if any(p.search(text) for p in self.exceptions):
            return frozenset()
        return frozenset(side for side, patterns in self.sides.items() if any(p.search(text) for p in patterns))


def load_families(text: str | bytes | None = None, where: str = TABLE) -> tuple[Family, ...]:
    """The families of a table in the packaged layout; the packaged one when `text` is None.

    Raises:
        InputError: not JSON, a missing key or a pattern that does not compile.
    """
    if text is None:
        text = resources.files("conceptcaps.assets").joinpath(TABLE).read_text(encoding="utf-8")
    try:
        return tuple(_family(entry) for entry in json.loads(text)["families"])
    except (ValueError, KeyError, TypeError, AttributeError, re.error) as error:
        raise InputError(where, f"is no table of contradictions ({error!r})", "Follow the packaged table") from error


def _family(entry: dict[str, Any]) -> Family:
    sides = {side: tuple(map(re.compile, patterns)) for side, patterns in entry["sides"].items()}
    return Family(entry["name"], sides, tuple(map(re.compile, entry.get("not", ()))))


@dataclass(frozen=True)
class Contradictions:
    """The contradicting pairs of one vocabulary.

    Attributes:
        tags: the vocabulary's tags, in multi-hot order.
        family_pairs: family name -> index pairs (i < j) of tags that contradict each other in it.
    """

    tags: tuple[str, ...]
    family_pairs: dict[str, tuple[tuple[int, int], ...]]

    @classmethod
    def for_vocabulary(cls, vocabulary: Vocabulary, families: Sequence[Family] | None = None) -> Contradictions:
        """The pairs that the packaged (or given) families forbid in this vocabulary."""
        tags = vocabulary.tags
        chosen = load_families() if families is None else families
        return cls(tags, {family.name: _exclusive_pairs(tags, family) for family in chosen})

    @cached_property
    def pairs(self) -> np.ndarray:
        """bool (num_tags, num_tags), symmetric, False diagonal: True where two tags contradict each other."""
        matrix = np.zeros((len(self.tags), len(self.tags)), dtype=bool)
        for found in self.family_pairs.values():
            for i, j in found:
                matrix[i, j] = matrix[j, i] = True
        return matrix

    @cached_property
    def _involved(self) -> tuple[np.ndarray, np.ndarray]:
        columns = np.flatnonzero(self.pairs.any(0))
        return columns, self.pairs[np.ix_(columns, columns)].astype(np.float32)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {tag: i for i, tag in enumerate(self.tags)}

    def violations(self, matrix: np.ndarray) -> np.ndarray:
        """bool (num_rows,): whether each multi-hot (num_rows, num_tags) row holds a contradicting pair."""
        columns, excluded = self._involved
        if not len(columns):
            return np.zeros(len(matrix), dtype=bool)
        present = (np.asarray(matrix)[:, columns] != 0).astype(np.float32)
        return (present * (present @ excluded)).any(axis=1)

    def conflicts(self, tags: Iterable[str]) -> list[tuple[str, str, str]]:
        """(family, tag, tag) of every contradicting pair in a tag set; tags outside the vocabulary are ignored."""
        held = {self._index[t] for t in tags if t in self._index}
        return [
            (family, self.tags[i], self.tags[j])
            for family, found in self.family_pairs.items()
            for i, j in found
            if i in held and j in held
        ]

    def describe(self, tags: Iterable[str]) -> list[str]:
        """One line per contradicting pair of a tag set, e.g. "tempo: 'slow tempo' and 'fast tempo'"."""
        return [f"{family}: {one!r} and {other!r}" for family, one, other in self.conflicts(tags)]

    def to_json(self) -> str:
        """The pairs by family, tags by name: readable by people and by `from_json`."""
        named = {f: [[self.tags[i], self.tags[j]] for i, j in found] for f, found in self.family_pairs.items()}
        return json.dumps({"tags": self.tags, "pairs": named}, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes, where: str = TABLE) -> Contradictions:
        """What `to_json` wrote.

        Raises:
            InputError: not JSON of that layout, or a pair names a tag that is not listed.
        """
        try:
            value = json.loads(text)
            index = {tag: i for i, tag in enumerate(value["tags"])}
            family_pairs = {
                family: tuple((min(index[a], index[b]), max(index[a], index[b])) for a, b in found)
                for family, found in value["pairs"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(where, f"does not list contradictions ({error!r})", "Run the taxonomy again") from error
        return cls(tuple(index), family_pairs)


def _exclusive_pairs(tags: Sequence[str], family: Family) -> tuple[tuple[int, int], ...]:
    placed = [(i, sides) for i, tag in enumerate(tags) if (sides := family.sides_of(tag))]
    return tuple(
        (i, j) for position, (i, mine) in enumerate(placed) for j, theirs in placed[position + 1 :] if not mine & theirs
    )
