"""The canonical table: which tags mean the same, by which rule, on what evidence; proposed here, edited by people."""

from __future__ import annotations

import csv
import difflib
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace

import numpy as np

from conceptcaps.errors import InputError
from conceptcaps.taxonomy.categories import Verdict
from conceptcaps.taxonomy.cleaning import clean
from conceptcaps.taxonomy.lexicon import Lexicon
from conceptcaps.taxonomy.spelling import corrections
from conceptcaps.vocabulary import CATEGORIES

FORM, GENERIC, SYNONYM, MISSPELLING, NARROWER, SUGGESTED = (
    "spelling or inflection",
    "generic noun",
    "synonym",
    "misspelling",
    "narrower",
    "similar use",
)
"""Why two tags are one. 'narrower': a rare tag counts as the broader one inside it ('dry flat male vocal').
'similar use' rows are for people to decide and are not applied."""

_RARE = 5000
"""A tag with fewer than one in so many uses is rare, and may count as a broader one."""
_BROADER = 5
"""How many times as frequent as the rare tag the broader one must be."""


@dataclass(frozen=True)
class Entry:
    """One row of synonyms.csv: `tag` counts as `canonical` where `apply` is yes.

    Attributes:
        similarity: of the two strings, in [0, 1] (Ratcliff and Obershelp's ratio).
        together: rows that have both; empty without rows.
        lift: together against what independence would give.
        context: cosine of their co-occurrence with other tags (positive PMI), in [0, 1].
    """

    tag: str
    count: int
    canonical: str
    rule: str
    similarity: float
    together: int | None = None
    lift: float | None = None
    context: float | None = None
    apply: str = "yes"


def propose(tags: Mapping[str, int], categorise: Callable[[str], Verdict], lexicon: Lexicon) -> list[Entry]:
    """The canonical table of cleaned tags and their counts: a row for each tag that is not canonical itself.

    A group's canonical tag is its most frequent member.
    """
    fixes = corrections(_folded_counts(tags, lexicon), lexicon.words)
    keys = {tag: _key(tag, lexicon, fixes) for tag in tags}
    _join_compounds(keys, tags)
    groups: dict[str, list[str]] = defaultdict(list)
    for tag, (key, _) in keys.items():
        groups[key].append(tag)
    head = {key: min(members, key=lambda t: (-tags[t], t)) for key, members in groups.items()}
    totals = {key: sum(tags[t] for t in members) for key, members in groups.items()}
    broader = _broader(head, totals, categorise, lexicon)
    entries = []
    for tag, (key, rule) in keys.items():
        wider = broader.get(key)
        canonical = head[wider or key]
        if tag != canonical:
            entries.append(Entry(tag, tags[tag], canonical, NARROWER if wider else rule, _similarity(tag, canonical)))
    weight = Counter({head[key]: total for key, total in totals.items()})
    return sorted(entries, key=lambda e: (-weight[e.canonical], e.canonical, -e.count, e.tag))


def with_evidence(entries: Iterable[Entry], tags: list[str], counts: np.ndarray, num_rows: int) -> list[Entry]:
    """The table with how its pairs stand in rows; a misspelling that stands beside its correction is not applied.

    Args:
        tags: the tags counted, (num_tags,).
        counts: int (num_tags, num_tags), as `counting.pair_counts` returns them.
        num_rows: rows counted.
    """
    index = {tag: i for i, tag in enumerate(tags)}
    profiles = _profiles(counts, num_rows)
    seen = []
    for entry in entries:
        i, j = index.get(entry.tag), index.get(entry.canonical)
        if i is not None and j is not None:
            together = int(counts[i, j])
            lift = together * num_rows / max(1, int(counts[i, i]) * int(counts[j, j]))
            doubtful = entry.rule == MISSPELLING and together > 0.3 * counts[i, i]
            entry = replace(
                entry,
                together=together,
                lift=round(lift, 3),
                context=round(float(profiles[i] @ profiles[j]), 3),
                apply="no" if doubtful else "yes",
            )
        seen.append(entry)
    return seen


def suggest(
    tags: list[str], counts: np.ndarray, num_rows: int, categories: Mapping[str, str], least: float = 0.4
) -> list[Entry]:
    """Pairs of one category used in the same company but not in the same rows, for people to decide on.

    Args:
        tags, counts, num_rows: as for `with_evidence`, of canonical tags.
        categories: canonical tag -> category.
        least: cosine of contexts from which a pair is listed.
    """
    profiles = _profiles(counts, num_rows)
    similar = np.triu(profiles @ profiles.T, k=1)
    single = np.diag(counts)
    found = []
    for pair in np.argwhere(similar >= least):
        rare, common = sorted(pair, key=lambda k: (single[k], tags[k]))
        lift = counts[rare, common] * num_rows / max(1, int(single[rare]) * int(single[common]))
        if lift >= 1 or categories.get(tags[rare]) != categories.get(tags[common]):
            continue
        entry = Entry(
            tags[rare], int(single[rare]), tags[common], SUGGESTED, _similarity(tags[rare], tags[common]), apply="no"
        )
        context = round(float(similar[tuple(pair)]), 3)
        found.append(replace(entry, together=int(counts[rare, common]), lift=round(float(lift), 3), context=context))
    return sorted(found, key=lambda e: (-(e.context or 0), e.tag))


def mapping(entries: Iterable[Entry]) -> dict[str, str]:
    """tag -> canonical tag of the rows that apply; every other tag is its own."""
    return {entry.tag: entry.canonical for entry in entries if entry.apply == "yes"}


def write_csv(entries: Iterable[Entry]) -> str:
    """The table as synonyms.csv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(Entry)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(entry) for entry in entries)
    return text.getvalue()


def read_csv(text: str, where: str) -> list[Entry]:
    """An edited synonyms.csv; only the columns tag and canonical are needed, apply defaults to yes.

    Raises:
        InputError: missing columns, an `apply` that is neither yes nor no, a tag with two canonical tags, or a chain.
    """
    reader = csv.DictReader(io.StringIO(text))
    if missing := {"tag", "canonical"} - set(reader.fieldnames or ()):
        raise InputError(where, f"lacks the columns {sorted(missing)}", "Edit the synonyms.csv of a run")
    entries: dict[str, Entry] = {}
    for row, record in enumerate(reader, start=1):
        entry = _entry(record, f"{where}, row {row}")
        if entry.apply == "no" or entry.tag == entry.canonical:
            continue
        if (before := entries.setdefault(entry.tag, entry)).canonical != entry.canonical:
            problem = f"{entry.tag!r} is {before.canonical!r} above and {entry.canonical!r} here"
            raise InputError(f"{where}, row {row}", problem, "Keep one")
    for entry in entries.values():
        if entry.canonical in entries:
            problem = (
                f"{entry.tag!r} counts as {entry.canonical!r}, which counts as {entries[entry.canonical].canonical!r}"
            )
            raise InputError(where, problem, "Point both to the last")
    return list(entries.values())


def _entry(record: Mapping[str, str], where: str) -> Entry:
    apply = (record.get("apply") or "yes").strip().lower()
    if apply not in ("yes", "no"):
        raise InputError(where, f"apply is {apply!r}", "Write yes or no")
    number = (record.get("count") or "0").strip()
    if not number.isdigit():
        raise InputError(where, f"count is {number!r}", "Give a whole number, or leave it empty")
    tag, canonical = clean(record["tag"] or ""), clean(record["canonical"] or "")
    if not tag or not canonical:
        raise InputError(where, "tag or canonical is empty", "Fill both, or remove the row")
    return Entry(tag, int(number), canonical, record.get("rule") or "edited", _similarity(tag, canonical), apply=apply)


def _folded_counts(tags: Mapping[str, int], lexicon: Lexicon) -> Counter[str]:
    folded = Counter[str]()
    for tag, count in tags.items():
        folded[lexicon.fold(tag)] += count
    return folded


def _key(tag: str, lexicon: Lexicon, fixes: Mapping[str, str]) -> tuple[str, str]:
    """The group of a tag, and the rule that put it there."""
    folded = lexicon.fold(tag)
    fixed = " ".join(fixes.get(word, word) for word in folded.split())
    rule = FORM if fixed == folded else MISSPELLING
    if (synonym := lexicon.synonym_of(tag if fixed == folded else fixed)) is not None:
        return synonym, SYNONYM if fixed == folded else MISSPELLING
    words = fixed.split()
    while len(words) > 1 and words[-1] in lexicon.generic:
        words = words[:-1]
        if lexicon.classes.get(" ".join(words)) in ("genre", "mood"):
            return lexicon.synonym_of(" ".join(words)) or " ".join(words), GENERIC
    return fixed, rule


def _join_compounds(keys: dict[str, tuple[str, str]], tags: Mapping[str, int]) -> None:
    """Give 'folkmusic' and 'folk music' one key: that of the more frequent."""
    best: dict[str, tuple[int, str]] = {}
    weight = Counter[str]()
    for tag, (key, _) in keys.items():
        weight[key] += tags[tag]
    for key, count in weight.items():
        joined = key.replace(" ", "")
        best[joined] = max(best.get(joined, (0, key)), (count, key))
    for tag, (key, rule) in keys.items():
        keys[tag] = best[key.replace(" ", "")][1], rule


def _broader(
    head: Mapping[str, str], totals: Mapping[str, int], categorise: Callable[[str], Verdict], lexicon: Lexicon
) -> dict[str, str]:
    """Rare group -> the frequent group named inside it, of the same category."""
    rare = max(2, sum(totals.values()) // _RARE)
    categories = {key: categorise(head[key]).category for key in head if totals[key] >= rare}
    by_form = {lexicon.fold(head[key]): key for key in categories}
    by_form |= {key: key for key in categories}
    found = {}
    for key, total in totals.items():
        if total >= rare:
            continue
        category = categorise(head[key]).category
        for inner in _inner(key.split(), lexicon) if category in CATEGORIES else ():
            wider = by_form.get(lexicon.synonym_of(inner) or inner, by_form.get(inner))
            if wider and categories[wider] == category and totals[wider] >= _BROADER * total:
                found[key] = wider
                break
    return found


def _inner(words: list[str], lexicon: Lexicon) -> Iterable[str]:
    """What is left of a tag without its first words, then also without trailing nouns of function."""
    while len(words) > 1:
        for start in range(1, len(words)):
            yield " ".join(words[start:])
        if words[-1] not in lexicon.function | lexicon.generic:
            return
        words = words[:-1]
        yield " ".join(words)


def _profiles(counts: np.ndarray, num_rows: int) -> np.ndarray:
    """float (num_tags, num_tags), unit rows: positive PMI with every other tag (Bullinaria and Levy 2007)."""
    single = np.maximum(np.diag(counts), 1).astype(float)
    with np.errstate(divide="ignore"):
        positive = np.maximum(np.log2(counts * num_rows / np.outer(single, single)), 0)
    np.fill_diagonal(positive, 0)
    return positive / np.maximum(np.linalg.norm(positive, axis=1, keepdims=True), 1e-12)


def _similarity(one: str, other: str) -> float:
    return round(difflib.SequenceMatcher(None, one, other).ratio(), 3)
