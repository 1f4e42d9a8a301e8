"""Train, validation and test: whole groups, stratified over the tags, the same from one run to the next.

Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011, algorithm 1) in an online form: rows come in the order
of their ids, and the first row of a group decides for the group, by what its tags still lack in each split. So a row's
split depends on the rows before it only, and adding rows moves none, unless they join two groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from conceptcaps.errors import InputError

SPLITS = ("train", "validation", "test")
_CHANCE = 0.35  # how much the seed's draw weighs against a whole row lacking in a split
_UNKNOWN = -1


@dataclass(frozen=True)
class TagLists:
    """The tags of many rows: row i has `codes[offsets[i]:offsets[i + 1]]`, positions in `names`."""

    names: tuple[str, ...]
    codes: np.ndarray
    """int32 (total tags,)."""
    offsets: np.ndarray
    """int64 (num_rows + 1,)."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def of(self, row: int) -> np.ndarray:
        return self.codes[self.offsets[row] : self.offsets[row + 1]]

    def rows(self) -> np.ndarray:
        """int64 (total tags,): the row of each code."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def take(self, rows: np.ndarray) -> TagLists:
        """The same for some rows, in the order given."""
        lengths = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        at = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths) + np.repeat(self.offsets[rows], lengths)
        return TagLists(self.names, self.codes[at], offsets)

    def counts(self, labels: np.ndarray, num_labels: int) -> np.ndarray:
        """int64 (num_tags, num_labels): rows with each tag and label."""
        flat = self.codes.astype(np.int64) * num_labels + labels[self.rows()]
        return np.bincount(flat, minlength=len(self.names) * num_labels).reshape(-1, num_labels)


@dataclass(frozen=True)
class Unstratified:
    """A concept with enough rows that lacks positives in a split, and why."""

    concept: str
    split: str
    rows: int
    groups: int

    @property
    def reason(self) -> str:
        if self.groups < len(SPLITS):
            return f"its {self.rows} rows form {self.groups} groups that must each stay in one split"
        return f"its {self.groups} groups ({self.rows} rows) are tied to splits given before"

    def __str__(self) -> str:
        return f"{self.concept!r} has no row in {self.split}: {self.reason}"


def stratify(
    groups: np.ndarray,
    tags: TagLists,
    fractions: Sequence[float],
    draws: np.ndarray,
    previous: np.ndarray | None = None,
    min_concept_rows: int = 10,
) -> np.ndarray:
    """The split of each row, as a position in `SPLITS`.

    Args:
        groups: int64 (num_rows,), the position of each row's group's first row; rows in the order of their ids.
        tags: of the same rows.
        fractions: of rows wanted in train, validation and test.
        draws: float (num_rows, 3) in [0, 1), made from the run's seed and the row's id.
        previous: int8 (num_rows,), the splits of an earlier run, -1 for new rows; kept, but for groups joined since.
        min_concept_rows: a concept with as many rows gets positives in each split, where its groups allow.

    Raises:
        InputError: fewer groups than splits.
    """
    num_groups = len(np.unique(groups))
    if num_groups < len(SPLITS):
        raise InputError(
            "the accepted rows",
            f"form {num_groups} groups that must each stay in one split, too few for {', '.join(SPLITS)}",
            "Make more rows, raise dataset.near_duplicate, or set dataset.group=false",
        )
    fixed = _fixed(groups, previous)
    splits = _assign(groups, tags, np.asarray(fractions), draws, fixed)
    return _repair(splits, groups, tags, fixed, min_concept_rows)


def unstratified(splits: np.ndarray, groups: np.ndarray, tags: TagLists, min_rows: int) -> list[Unstratified]:
    """Concepts with at least `min_rows` rows and none of them in some split."""
    counts = tags.counts(splits, len(SPLITS))
    found = []
    for tag, split in np.argwhere((counts == 0) & (counts.sum(1, keepdims=True) >= min_rows)):
        num_groups = len(np.unique(groups[_rows_of(tags, int(tag))]))
        found.append(Unstratified(tags.names[tag], SPLITS[split], int(counts[tag].sum()), num_groups))
    return found


def _fixed(groups: np.ndarray, previous: np.ndarray | None) -> np.ndarray:
    """int8 (num_rows,): at a group's first row the split that most of its rows had before; -1 elsewhere."""
    fixed = np.full(len(groups), _UNKNOWN, np.int8)
    if previous is not None:
        known = previous >= 0
        votes = np.zeros((len(groups), len(SPLITS)), np.int32)
        np.add.at(votes, (groups[known], previous[known]), 1)
        voted = votes.any(1)
        fixed[voted] = votes[voted].argmax(1)
    return fixed


def _assign(
    groups: np.ndarray, tags: TagLists, fractions: np.ndarray, draws: np.ndarray, fixed: np.ndarray
) -> np.ndarray:
    """One pass over the rows: the first of each group chooses the split that its tags need most."""
    of_group = fixed.copy()
    counts = np.zeros((len(tags.names), len(SPLITS)))
    totals = np.zeros(len(SPLITS))
    # What is fixed counts from the start, so that new rows fill what it lacks.
    kept = of_group[groups] >= 0
    if kept.any():
        some = tags.take(np.flatnonzero(kept))
        counts += some.counts(of_group[groups[kept]], len(SPLITS))
        totals += np.bincount(of_group[groups[kept]], minlength=len(SPLITS))
    for row in np.flatnonzero(~kept):
        codes = tags.of(row)
        group = groups[row]
        if of_group[group] == _UNKNOWN:
            of_group[group] = _neediest(counts[codes], totals, fractions, draws[row])
        counts[codes, of_group[group]] += 1
        totals[of_group[group]] += 1
    return of_group[groups]


def _neediest(counts: np.ndarray, totals: np.ndarray, fractions: np.ndarray, draw: np.ndarray) -> int:
    """The split that a row with these tags should go to; rare tags weigh most."""
    seen = counts.sum(1, keepdims=True)
    lacking = fractions * (seen + 1) - counts
    size = (fractions * (totals.sum() + 1) - totals) / np.sqrt(totals.sum() + 1)
    weighted = (lacking / np.sqrt(seen + 1)).sum(0) / max(1, len(counts))
    return int((weighted + size + _CHANCE * draw).argmax())


def _repair(splits: np.ndarray, groups: np.ndarray, tags: TagLists, fixed: np.ndarray, min_rows: int) -> np.ndarray:
    """Move the smallest group that gives a concept positives in a split it lacks, without taking its last elsewhere."""
    splits = splits.copy()
    sizes = np.bincount(groups, minlength=len(groups))
    for lacking in unstratified(splits, groups, tags, min_rows):
        rows = _rows_of(tags, tags.names.index(lacking.concept))
        target = SPLITS.index(lacking.split)
        holders = np.unique(groups[rows])
        held = splits[holders]
        spare = np.bincount(held, minlength=len(SPLITS))[held] > 1
        movable = holders[spare & (fixed[holders] == _UNKNOWN)]
        if target not in held and len(movable):
            splits[groups == movable[np.argmin(sizes[movable])]] = target
    return splits


def _rows_of(tags: TagLists, tag: int) -> np.ndarray:
    return tags.rows()[tags.codes == tag]
