"""Counts that add: tag frequencies and pair counts of a batch, and the co-occurrence statistics of their totals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse

from conceptcaps.contradictions import Contradictions
from conceptcaps.taxonomy.cleaning import clean, is_latin
from conceptcaps.taxonomy.matching import Matcher
from conceptcaps.vocabulary import Vocabulary

MAX_LISTED = 1000
"""Malformed rows listed; all are counted."""


@dataclass
class Totals:
    """Sums over parsed rows; the sum of two batches' totals is the totals of both.

    Attributes:
        tags: rows in which each cleaned tag stands.
        pairs: int64 (num_tags, num_tags), `pair_counts` of the kept rows.
        num_good, num_bad: rows that parsed, and that did not.
        num_matched: rows with a tag of the vocabulary.
        num_kept: rows with tags in enough categories.
        num_contradictory: kept rows with a contradiction.
        rejects: file, row and problem of the first `MAX_LISTED` malformed rows.
    """

    pairs: np.ndarray
    tags: Counter[str] = field(default_factory=Counter)
    num_good: int = 0
    num_bad: int = 0
    num_matched: int = 0
    num_kept: int = 0
    num_contradictory: int = 0
    rejects: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def zero(cls, num_tags: int) -> Totals:
        return cls(np.zeros((num_tags, num_tags), dtype=np.int64))

    @classmethod
    def of(cls, parsed: pa.Table, matcher: Matcher, min_categories: int) -> Totals:
        """The totals of parsed rows (schema `annotations.PARSED`)."""
        is_good = np.array([problem is None for problem in parsed["problem"].to_pylist()], dtype=bool)
        good, bad = parsed.filter(pa.array(is_good)), parsed.filter(pa.array(~is_good))
        tag_sets = [{tag for text in row if (tag := clean(text))} for row in good["tags"].to_pylist()]
        matrix = matcher.vocabulary.encode(matcher.match(tags) for tags in tag_sets)
        kept = matrix[matcher.vocabulary.num_categories(matrix) >= min_categories]
        return cls(
            pairs=pair_counts(kept),
            tags=Counter(tag for tags in tag_sets for tag in tags),
            num_good=len(matrix),
            num_bad=len(bad),
            num_matched=int(matrix.any(1).sum()),
            num_kept=len(kept),
            num_contradictory=int(Contradictions.for_vocabulary(matcher.vocabulary).violations(kept).sum()),
            rejects=bad.select(["file", "row", "problem"]).slice(0, MAX_LISTED).to_pylist(),
        )

    def __iadd__(self, other: Totals) -> Totals:
        self.pairs += other.pairs
        self.tags.update(other.tags)
        for name in ("num_good", "num_bad", "num_matched", "num_kept", "num_contradictory"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        listed = sorted(self.rejects + other.rejects, key=lambda r: (r["file"], r["row"]))
        self.rejects = listed[:MAX_LISTED]
        return self

    @property
    def first_reject(self) -> dict[str, Any] | None:
        return self.rejects[0] if self.rejects else None

    def unused(self, matcher: Matcher) -> list[str]:
        """Tags of the vocabulary that no row has."""
        used = {matcher.home.get(tag) for tag in self.tags}
        return [tag for tag in matcher.vocabulary.tags if tag not in used]

    def not_latin(self) -> list[str]:
        """The commonest tags in another script; they match nothing and stay in frequencies.csv."""
        return [tag for tag, _ in self.tags.most_common() if not is_latin(tag)][:MAX_LISTED]

    def facts(self, matcher: Matcher) -> dict[str, int]:
        """The counts that a run's manifest and report show."""
        return {
            "rows_read": self.num_good + self.num_bad,
            "rows_malformed": self.num_bad,
            "rows_matched": self.num_matched,
            "rows_kept": self.num_kept,
            "rows_contradictory": self.num_contradictory,
            "tags": len(matcher.vocabulary),
            "tags_unused": len(self.unused(matcher)),
            "distinct_tags_read": len(self.tags),
            "tag_uses_read": self.tags.total(),
            "tag_uses_matched": sum(n for tag, n in self.tags.items() if tag in matcher.home),
        }


def pair_counts(matrix: np.ndarray | scipy.sparse.spmatrix) -> np.ndarray:
    """int64 (num_tags, num_tags): in how many rows of a multi-hot matrix each pair stands; the diagonal counts tags."""
    sparse = scipy.sparse.csr_matrix(matrix, dtype=np.int64)
    return np.asarray((sparse.T @ sparse).todense())


def indexed_pairs(
    parsed: pa.Table, index: Mapping[str, Sequence[int]], size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pair counts of the good rows among parsed rows, sparse: (rows, columns, counts) of a (size, size) matrix.

    Args:
        index: cleaned tag -> the columns that a row with it has.
        size: number of columns.
    """
    tag_sets = parsed["tags"].to_pylist()
    held = [{i for text in tags for i in index.get(clean(text), ())} for tags in tag_sets]
    ends = np.cumsum([0, *map(len, held)])
    columns = np.fromiter((i for row in held for i in row), dtype=np.int64, count=ends[-1])
    matrix = scipy.sparse.csr_matrix((np.ones(len(columns), np.int64), columns, ends), shape=(len(held), size))
    pairs = (matrix.T @ matrix).tocoo()
    return pairs.row, pairs.col, pairs.data


def pmi(counts: np.ndarray, num_rows: int) -> np.ndarray:
    """float64 (num_tags, num_tags): pointwise mutual information in bits; NaN for pairs that never meet.

    Args:
        counts: as `pair_counts` returns them.
        num_rows: rows counted.
    """
    single = np.diag(counts).astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.log2(counts * num_rows / np.outer(single, single))
    values[counts == 0] = np.nan
    return values


def phi(counts: np.ndarray, num_rows: int) -> np.ndarray:
    """float64 (num_tags, num_tags): correlation of the two indicators, in [-1, 1]; NaN for tags in no or all rows."""
    share = np.diag(counts) / num_rows
    spread = np.sqrt(share * (1 - share))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (counts / num_rows - np.outer(share, share)) / np.outer(spread, spread)


def cooccurrence_table(counts: np.ndarray, num_rows: int, vocabulary: Vocabulary) -> pa.Table:
    """One row per pair of tags (in multi-hot order, each pair once): tags, categories, counts, pmi (bits) and phi."""
    first, second = np.triu_indices(len(vocabulary), k=1)
    single = np.diag(counts)
    tags = np.array(vocabulary.tags, dtype=object)
    homes = np.array([vocabulary.category_of(t) for t in vocabulary.tags], dtype=object)
    columns = {
        "tag_a": tags[first],
        "tag_b": tags[second],
        "category_a": homes[first],
        "category_b": homes[second],
        "count": counts[first, second],
        "count_a": single[first],
        "count_b": single[second],
        "pmi": pmi(counts, num_rows)[first, second],
        "phi": phi(counts, num_rows)[first, second],
    }
    return pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})
