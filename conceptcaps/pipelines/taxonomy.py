"""Annotations -> vocabulary, training rows, frequencies, co-occurrence: one Ray Data job, however many rows.

parts -> read -> parse -> count      totals: frequencies, pairs, malformed rows
parts -> read -> parse -> match      rows
"""

from __future__ import annotations

import csv
import io
import logging
import pickle
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from conceptcaps.config.root import Config
from conceptcaps.config.taxonomy import TaxonomyConfig
from conceptcaps.contradictions import Contradictions
from conceptcaps.errors import InputError
from conceptcaps.rundir import RunDir
from conceptcaps.taxonomy import annotations as sources
from conceptcaps.taxonomy import counting, distill, synonyms
from conceptcaps.taxonomy.annotations import Part
from conceptcaps.taxonomy.cleaning import clean
from conceptcaps.taxonomy.counting import Totals
from conceptcaps.taxonomy.distill import Distiller
from conceptcaps.taxonomy.matching import Matcher
from conceptcaps.vocabulary import CATEGORIES, Vocabulary

logger = logging.getLogger(__name__)

STAGE, ROWS_FOLDER = "taxonomy", "rows"
REPORT = (STAGE, "report.json")
Plan = Callable[[], ray.data.Dataset]
_ROWS_PER_BATCH = 4096
_ROWS_PER_BLOCK = 32_768


def run_taxonomy(config: Config, run: RunDir) -> dict[str, Any]:
    """Write the `taxonomy` folder of a run; returns the counts for its manifest.

    Files: concepts_to_tags.json, rows/*.parquet (`matching.ROWS`), frequencies.csv, cooccurrence.parquet,
    contradictions.json, rejects.json, report.json; where a canonical table is used synonyms.csv and categories.csv;
    and differences.csv where there is a taxonomy to compare with. From a table of frequencies no rows can be made.

    Raises:
        InputError: annotations or taxonomy are missing or malformed, or no row is left; nothing is written then.
    """
    section = config.taxonomy
    given, compared = _given_vocabulary(section), _optional_vocabulary(section.compare_with)
    parts = sources.find_parts(section.annotations)
    if frequencies := _frequencies(parts, section):
        return _from_frequencies(section, frequencies, compared, run)
    plan = parsed_rows(section, parts)
    distiller = None if given and not section.fold_synonyms else _distiller(section, plan)
    if given:
        vocabulary = given
    else:
        vocabulary, distiller = _chosen(section, cast("Distiller", distiller), plan)
    canonical = distiller.canonical if distiller else None
    matcher = Matcher.of(vocabulary, canonical, where=section.taxonomy or "taxonomy")
    totals = count(plan(), matcher, section.min_categories)
    check(section, totals)
    run.delete(STAGE)
    write_rows(plan(), matcher, section, run)
    facts = write_tables(matcher, totals, run)
    if distiller:
        facts |= write_distilled(distiller, vocabulary, compared, run)
    run.write_json(facts | {"unused": totals.unused(matcher), "in_another_script": totals.not_latin()}, *REPORT)
    return facts


def parsed_rows(section: TaxonomyConfig, parts: list[Part]) -> Plan:
    """What builds the part that all plans begin with: annotations -> rows of schema `PARSED`."""
    table = None if parts else sources.load_hub(section.annotations, section.split)

    def plan() -> ray.data.Dataset:
        if table is not None:
            return _each(ray.data.from_arrow(table), sources.parse_table)
        numbers = ray.data.range(len(parts), override_num_blocks=len(parts))
        read: Callable[..., Any] = _read
        raw = numbers.map_batches(read, batch_size=1, fn_kwargs={"parts": parts})
        # Splits a long file's rows between workers.
        return _each(raw.repartition(target_num_rows_per_block=_ROWS_PER_BLOCK), sources.parse_table)

    return plan


def count_pairs(parsed: ray.data.Dataset, index: Mapping[str, Sequence[int]], size: int) -> np.ndarray:
    """int64 (size, size): in how many rows each pair of columns stands; `index` gives a cleaned tag's columns."""
    total = np.zeros((size, size), dtype=np.int64)
    for row in _each(parsed, _count_pairs, index=index, size=size).iter_rows():
        rows, columns, counts = pickle.loads(row["pairs"])
        total[rows, columns] += counts
    return total


def count(parsed: ray.data.Dataset, matcher: Matcher, min_categories: int) -> Totals:
    """One pass over the parsed rows that sums all that the tables need."""
    partial = _each(parsed, _count_batch, matcher=matcher, min_categories=min_categories)
    totals = Totals.zero(len(matcher.vocabulary))
    for row in partial.iter_rows():
        totals += pickle.loads(row["totals"])
    return totals


def check(section: TaxonomyConfig, totals: Totals) -> None:
    """Refuse annotations without a good row, a taxonomy that matches none, and rows that are all left out.

    Raises:
        InputError: which of these it is.
    """
    if not totals.num_good:
        first = totals.first_reject
        problem = f"row {first['row']} {first['problem']}" if first else "it is empty"
        raise InputError(section.annotations, f"has no good row; {problem}", "Mend the file")
    if not totals.num_matched:
        commonest = [tag for tag, _ in totals.tags.most_common(5)]
        problem = f"matches no tag of {section.annotations}, whose commonest are {commonest}"
        raise InputError(section.taxonomy or "taxonomy", problem, "Give the taxonomy of these annotations, or null")
    if not totals.num_kept:
        problem = f"no row has tags in at least {section.min_categories} categories"
        raise InputError(section.annotations, problem, "Lower taxonomy.min_categories, or widen the taxonomy")


def write_rows(parsed: ray.data.Dataset, matcher: Matcher, section: TaxonomyConfig, run: RunDir) -> None:
    """Match the parsed rows and write those with enough categories below taxonomy/rows, captions cleaned."""
    arguments = {"min_categories": section.min_categories, "clean_captions": section.clean_captions}
    rows = _each(parsed, matcher.rows, **arguments)
    # In order: the order of rows decides what a seeded model makes of them.
    rows.context.execution_options.preserve_order = True
    rows.write_parquet(run.path(STAGE, ROWS_FOLDER), filesystem=run.fs)


def write_tables(matcher: Matcher, totals: Totals, run: RunDir) -> dict[str, Any]:
    """The stage's files about its rows; returns the facts of its report."""
    vocabulary = matcher.vocabulary
    facts = totals.facts(matcher)
    cooccurrence = counting.cooccurrence_table(totals.pairs, totals.num_kept, vocabulary)
    run.write_bytes(vocabulary.to_json().encode(), STAGE, "concepts_to_tags.json")
    run.write_bytes(Contradictions.for_vocabulary(vocabulary).to_json().encode(), STAGE, "contradictions.json")
    run.write_bytes(frequencies_csv(totals.tags, matcher).encode(), STAGE, "frequencies.csv")
    run.write_bytes(_parquet_bytes(cooccurrence), STAGE, "cooccurrence.parquet")
    run.write_json({"malformed": totals.num_bad, "listed": totals.rejects}, STAGE, "rejects.json")
    return facts


def write_distilled(
    distiller: Distiller, vocabulary: Vocabulary, compared: Vocabulary | None, run: RunDir
) -> dict[str, Any]:
    """The canonical table, what became of every tag, and the differences from another taxonomy; returns facts."""
    run.write_bytes(synonyms.write_csv(distiller.entries).encode(), STAGE, "synonyms.csv")
    run.write_bytes(distiller.categories_csv(vocabulary).encode(), STAGE, "categories.csv")
    facts: dict[str, Any] = {"coverage": distiller.coverage(), "tags_by_category": distill.balance(vocabulary)}
    if compared is not None:
        rows = distill.differences(distiller, vocabulary, compared)
        run.write_bytes(distill.differences_csv(rows).encode(), STAGE, "differences.csv")
        disagreements = [row for row in rows if row["agrees"] == "no"]
        facts |= {"agreement": distill.agreement(rows), "disagreements": disagreements}
    return facts


def _given_vocabulary(section: TaxonomyConfig) -> Vocabulary | None:
    if section.taxonomy is None and section.annotations == sources.EMBEDDED:
        return embedded_vocabulary()
    return _optional_vocabulary(section.taxonomy)


def _optional_vocabulary(location: str | None) -> Vocabulary | None:
    return None if location is None else load_vocabulary(location)


def _frequencies(parts: list[Part], section: TaxonomyConfig) -> Counter[str]:
    """Cleaned tags and counts where the annotations are tables of frequencies; else empty."""
    tables = [part for part in parts if sources.is_frequencies(part)]
    if tables and len(tables) < len(parts):
        problem = "holds tables of frequencies beside annotated rows"
        raise InputError(section.annotations, problem, "Give one kind at a time")
    tags = Counter[str]()
    for part in tables:
        for tag, number in sources.read_frequencies(part).items():
            tags[clean(tag)] += number
    return tags


def _from_frequencies(
    section: TaxonomyConfig, tags: Counter[str], compared: Vocabulary | None, run: RunDir
) -> dict[str, Any]:
    distiller = Distiller.of(tags, _edited(section))
    vocabulary = _given_vocabulary(section) or distiller.choose(section.num_tags, section.min_count)
    matcher = Matcher.of(vocabulary, distiller.canonical, where=section.taxonomy or "taxonomy")
    run.delete(STAGE)
    run.write_bytes(vocabulary.to_json().encode(), STAGE, "concepts_to_tags.json")
    run.write_bytes(Contradictions.for_vocabulary(vocabulary).to_json().encode(), STAGE, "contradictions.json")
    run.write_bytes(frequencies_csv(tags, matcher).encode(), STAGE, "frequencies.csv")
    facts = {"rows_read": 0, "rows_kept": 0, "tags": len(vocabulary)}
    facts |= write_distilled(distiller, vocabulary, compared, run)
    run.write_json(facts, *REPORT)
    return facts


def _distiller(section: TaxonomyConfig, plan: Plan) -> Distiller:
    """The canonical table of the rows' tags, with evidence from the rows."""
    none = Vocabulary(dict.fromkeys(CATEGORIES, ()))
    totals = count(plan(), Matcher.of(none), section.min_categories)
    if not totals.tags:
        check(section, totals)
    distiller = Distiller.of(totals.tags, _edited(section))
    tags = distiller.evidence_tags()
    if section.synonyms is not None or not tags:
        return distiller
    pairs = count_pairs(plan(), {tag: (i,) for i, tag in enumerate(tags)}, len(tags))
    return distiller.with_pairs(tags, pairs, totals.num_good)


def _chosen(section: TaxonomyConfig, distiller: Distiller, plan: Plan) -> tuple[Vocabulary, Distiller]:
    """The vocabulary, and the distiller with pairs of candidates that people may want to fold."""
    candidates = distiller.candidates(section.num_tags, section.min_count)
    if not candidates.tags:
        problem = f"no tag of a category stands in {section.min_count} rows"
        raise InputError(section.annotations, problem, "Lower taxonomy.min_count, or give a taxonomy")
    columns = {tag: i for i, tag in enumerate(candidates.tags)}
    index = {tag: (columns[home],) for tag, home in distiller.canonical.items() if home in columns}
    candidates = candidates.with_pairs(count_pairs(plan(), index, len(columns)))
    return distiller.choose(section.num_tags, section.min_count, candidates), distiller.with_suggestions(candidates)


def _edited(section: TaxonomyConfig) -> list[synonyms.Entry] | None:
    if section.synonyms is None:
        return None
    return synonyms.read_csv(_read_text(section.synonyms, "the synonyms.csv of a run"), where=section.synonyms)


def _read_text(location: str, wanted: str) -> str:
    try:
        return Path(location).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(location, f"cannot be read ({error})", f"Give the path of {wanted}") from error


def load_vocabulary(location: str) -> Vocabulary:
    """The vocabulary of a concepts_to_tags.json; 'embedded' is the packaged one.

    Raises:
        InputError: no such file, or it is no taxonomy.
    """
    if location == sources.EMBEDDED:
        return embedded_vocabulary()
    return Vocabulary.from_json(_read_text(location, "a concepts_to_tags.json"), where=location)


def embedded_vocabulary() -> Vocabulary:
    """The taxonomy of the embedded corpus."""
    asset = resources.files("conceptcaps.assets").joinpath(sources.EMBEDDED_TAXONOMY)
    return Vocabulary.from_json(asset.read_bytes(), where="embedded taxonomy")


def frequencies_csv(tags: Mapping[str, int], matcher: Matcher) -> str:
    """All tags read, commonest first: tag (cleaned), count, matched tag of the vocabulary, its category."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["tag", "count", "matched", "category"])
    for tag, number in sorted(tags.items(), key=lambda item: (-item[1], item[0])):
        home = matcher.home.get(tag, "")
        writer.writerow([tag, number, home, matcher.vocabulary.category_of(home) if home else ""])
    return text.getvalue()


def _each(dataset: ray.data.Dataset, step: Callable[..., Any], **arguments: Any) -> ray.data.Dataset:
    """A step on Arrow tables of at most `_ROWS_PER_BATCH` rows."""
    return dataset.map_batches(step, batch_size=_ROWS_PER_BATCH, batch_format="pyarrow", fn_kwargs=arguments)


def _read(batch: Any, parts: list[Part]) -> Any:
    for number in batch["id"]:
        yield from sources.read_part(parts[number])


def _count_batch(parsed: pa.Table, matcher: Matcher, min_categories: int) -> pa.Table:
    return pa.table({"totals": [pickle.dumps(Totals.of(parsed, matcher, min_categories))]})


def _count_pairs(parsed: pa.Table, index: Mapping[str, Sequence[int]], size: int) -> pa.Table:
    return pa.table({"pairs": [pickle.dumps(counting.indexed_pairs(parsed, index, size))]})


def _parquet_bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()
