"""Tag frequencies to a vocabulary: canonical tags, their categories, the choice of N, what became of the rest."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from conceptcaps.taxonomy import synonyms
from conceptcaps.taxonomy.categories import OTHER, Categoriser, Verdict
from conceptcaps.taxonomy.lexicon import QUALITY
from conceptcaps.taxonomy.selection import Candidates, choose
from conceptcaps.taxonomy.synonyms import Entry
from conceptcaps.vocabulary import CATEGORIES, Vocabulary

CANDIDATES_PER_TAG = 4
"""Candidates considered for each tag to choose."""
MAX_EVIDENCE = 1500
"""Tags of the canonical table whose co-occurrence is counted, the most frequent first."""


@dataclass(frozen=True)
class Distiller:
    """Everything that follows from tag frequencies and a canonical table.

    Attributes:
        tags: cleaned tag -> rows (or uses) that have it.
        entries: the canonical table.
        categorise: tag -> `Verdict`.
        num_rows: rows counted; 0 where there are frequencies only.
    """

    tags: Mapping[str, int]
    entries: tuple[Entry, ...]
    categorise: Categoriser
    num_rows: int = 0

    @classmethod
    def of(cls, tags: Mapping[str, int], edited: list[Entry] | None = None) -> Distiller:
        """With a proposed canonical table, or with the edited one."""
        categoriser = Categoriser()
        entries = synonyms.propose(tags, categoriser, categoriser.lexicon) if edited is None else edited
        return cls(tags, tuple(entries), categoriser)

    @cached_property
    def canonical(self) -> dict[str, str]:
        """tag -> its canonical tag, for every tag."""
        table = synonyms.mapping(self.entries)
        return {**table, **{tag: table.get(tag, tag) for tag in self.tags}}

    @cached_property
    def groups(self) -> Counter[str]:
        """Canonical tag -> uses of all its tags."""
        total = Counter[str]()
        for tag, count in self.tags.items():
            total[self.canonical[tag]] += count
        return total

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """Canonical tag -> where it belongs."""
        return {tag: self.categorise(tag) for tag in self.groups}

    def candidates(self, num_tags: int, min_count: int) -> Candidates:
        """Canonical tags that may be chosen, from frequencies alone."""
        categories = {tag: verdict.category for tag, verdict in self.verdicts.items()}
        return Candidates.of(self.groups, categories, min_count, CANDIDATES_PER_TAG * num_tags)

    def evidence_tags(self) -> list[str]:
        """The most frequent tags of the canonical table and their canonical tags."""
        named = {t for e in self.entries for t in (e.tag, e.canonical) if t in self.tags}
        return sorted(named, key=lambda t: (-self.tags[t], t))[:MAX_EVIDENCE]

    def with_pairs(self, evidence: list[str], pairs: np.ndarray, num_rows: int) -> Distiller:
        """The same with evidence from rows in its table.

        Args:
            evidence: tags counted, (num_tags,).
            pairs: int64 (num_tags, num_tags) as `counting.pair_counts` returns them.
            num_rows: rows counted.
        """
        entries = synonyms.with_evidence(self.entries, evidence, pairs, num_rows)
        return replace(self, entries=tuple(entries), num_rows=num_rows)

    def with_suggestions(self, candidates: Candidates) -> Distiller:
        """The same with pairs of candidates that are used alike, listed for people to decide on."""
        if candidates.pairs is None:
            return self
        homes = dict(zip(candidates.tags, candidates.categories, strict=True))
        num_rows = max(self.num_rows, int(candidates.counts.max(initial=1)))
        return replace(
            self, entries=(*self.entries, *synonyms.suggest(candidates.tags, candidates.pairs, num_rows, homes))
        )

    def coverage(self) -> dict[str, Any]:
        """Uses by where they land: 'quality', each category, 'other' by kind; and the recognised share of the rest.

        A use is recognised when its canonical tag is of a category, or 'other' for a known reason.
        """
        uses = Counter[str]()
        for tag, count in self.groups.items():
            verdict = self.verdicts[tag]
            uses[verdict.category if verdict.category != OTHER else f"{OTHER}: {verdict.kind}"] += count
        rest = self.groups.total() - uses[QUALITY]
        known = sum(n for t, n in self.groups.items() if self.verdicts[t].is_reasoned) - uses[QUALITY]
        return {
            "uses": self.groups.total(),
            "distinct_tags": len(self.tags),
            "canonical_tags": len(self.groups),
            "uses_by_class": dict(uses.most_common()),
            "recognised_share": round(known / rest, 4) if rest else None,
        }

    def choose(self, num_tags: int, min_count: int, candidates: Candidates | None = None) -> Vocabulary:
        """The vocabulary, from candidates with pair counts where there are rows."""
        chosen = self.candidates(num_tags, min_count) if candidates is None else candidates
        return choose(chosen, num_tags)

    def categories_csv(self, vocabulary: Vocabulary) -> str:
        """What became of every tag: canonical tag, category, kind, confidence, reason, and whether it was chosen."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["tag", "count", "canonical", "category", "kind", "confidence", "reason", "chosen"])
        for tag, count in sorted(self.tags.items(), key=lambda item: (-item[1], item[0])):
            home = self.canonical[tag]
            verdict = self.verdicts[home]
            chosen = "yes" if home in vocabulary.index else "no"
            sure = round(verdict.confidence, 3)
            writer.writerow([tag, count, home, verdict.category, verdict.kind, sure, verdict.reason, chosen])
        return text.getvalue()


def differences(distiller: Distiller, ours: Vocabulary, theirs: Vocabulary) -> list[dict[str, Any]]:
    """One row per tag of another taxonomy: where we file it, whether that agrees, what became of it, and why."""
    rules = {entry.tag: entry.rule for entry in distiller.entries if entry.apply == "yes"}
    return [_difference(tag, distiller, ours, theirs, rules) for tag in theirs.tags]


def _difference(
    tag: str, distiller: Distiller, ours: Vocabulary, theirs: Vocabulary, rules: Mapping[str, str]
) -> dict[str, Any]:
    before, verdict = theirs.category_of(tag), distiller.categorise(tag)
    agrees = before == verdict.category
    argument = "" if agrees else f"{verdict.reason}; {_argument(tag, before, verdict.category, distiller)}"
    home = distiller.canonical.get(tag, tag)
    if home in ours.index:
        fate = "chosen" if home == tag else f"counts as {home!r} ({rules[tag]})"
    else:
        uses = distiller.groups.get(home, 0)
        fate = (
            "not in these annotations"
            if not uses
            else f"not chosen: {uses} uses as {home!r}, or rows that others cover"
        )
    return {
        "tag": tag,
        "theirs": before,
        "ours": verdict.category,
        "agrees": "yes" if agrees else "no",
        "fate": fate,
        "argument": argument.rstrip("; "),
    }


def _argument(tag: str, before: str, after: str, distiller: Distiller) -> str:
    lexicon = distiller.categorise.lexicon
    return lexicon.arguments.get(lexicon.fold(tag)) or lexicon.arguments.get(f"{before}>{after}", "")


def differences_csv(rows: list[dict[str, Any]]) -> str:
    """The differences as a table."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["tag", "theirs", "ours", "agrees", "fate", "argument"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def agreement(rows: list[dict[str, Any]]) -> float:
    """The share of tags that both file under one category."""
    return sum(row["agrees"] == "yes" for row in rows) / len(rows)


def balance(vocabulary: Vocabulary) -> dict[str, int]:
    """Tags per category."""
    return {category: len(vocabulary.tags_by_category[category]) for category in CATEGORIES}
