"""Which canonical tags become the vocabulary: frequent, adding rows, set apart, balanced over categories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from conceptcaps.vocabulary import CATEGORIES, Vocabulary


@dataclass(frozen=True)
class Candidates:
    """Canonical tags that may be chosen.

    Attributes:
        tags: (num_candidates,), the most frequent first.
        categories: category of each.
        counts: int64 (num_candidates,): rows that have it.
        pairs: int64 (num_candidates, num_candidates) as `counting.pair_counts` returns them; None without rows.
    """

    tags: list[str]
    categories: list[str]
    counts: np.ndarray
    pairs: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        counts: Mapping[str, int],
        categories: Mapping[str, str],
        min_count: int,
        most: int,
    ) -> Candidates:
        """The `most` most frequent tags of the four categories that at least `min_count` rows have."""
        tags = [t for t, n in counts.items() if n >= min_count and categories.get(t) in CATEGORIES]
        tags = sorted(tags, key=lambda t: (-counts[t], t))[:most]
        return cls(tags, [categories[t] for t in tags], np.array([counts[t] for t in tags], dtype=np.int64))

    def with_pairs(self, pairs: np.ndarray) -> Candidates:
        """The same with pair counts of rows, whose diagonal replaces the counts."""
        return replace(self, counts=np.diag(pairs), pairs=pairs)


def choose(candidates: Candidates, num_tags: int) -> Vocabulary:
    """The vocabulary: an equal share of `num_tags` for each category, what one cannot fill going to the others.

    Within a category tags are taken greedily by the rows they add over the chosen tag that shares most with them:
    n(tag) - max n(tag, chosen). A frequent tag adds many, one that hardly ever stands without another adds few.
    Without rows, the most frequent are taken.
    """
    ranked = {c: _ranked(candidates, c) for c in CATEGORIES}
    quota = shares({c: len(r) for c, r in ranked.items()}, num_tags)
    return Vocabulary({c: tuple(ranked[c][: quota[c]]) for c in CATEGORIES})


def shares(available: Mapping[str, int], total: int) -> dict[str, int]:
    """`total` split as evenly as the available numbers allow; earlier names get the remainder."""
    given = dict.fromkeys(available, 0)
    for _ in range(min(total, sum(available.values()))):
        open_names = [name for name in available if given[name] < available[name]]
        given[min(open_names, key=given.__getitem__)] += 1
    return given


def _ranked(candidates: Candidates, category: str) -> list[str]:
    """A category's candidates in the order in which they are chosen."""
    members = np.flatnonzero(np.array(candidates.categories) == category)
    if candidates.pairs is None:
        return [candidates.tags[i] for i in members]
    shared = np.zeros(len(candidates.tags), dtype=np.int64)
    order: list[int] = []
    left = list(members)
    while left:
        best = max(left, key=lambda i: (candidates.counts[i] - shared[i], candidates.counts[i], -i))
        order.append(best)
        left.remove(best)
        shared = np.maximum(shared, candidates.pairs[best])
    return [candidates.tags[i] for i in order]
