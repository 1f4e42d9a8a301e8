"""Annotations -> vocabulary, training rows, frequencies, co-occurrence: one Ray Data job, however many rows.

parts -> read -> parse -> count      totals: frequencies, pairs, malformed rows
parts -> read -> parse -> match      rows
"""

from __future__ import annotations

import csv
import io
import logging
import pickle
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from conceptcaps.config.root import Config
from conceptcaps.config.taxonomy import TaxonomyConfig
from conceptcaps.contradictions import Contradictions
from conceptcaps.errors import InputError
from conceptcaps.rundir import RunDir
from conceptcaps.taxonomy import annotations as sources
from conceptcaps.taxonomy import counting
from conceptcaps.taxonomy.annotations import Part
from conceptcaps.taxonomy.counting import Totals
from conceptcaps.taxonomy.matching import Matcher
from conceptcaps.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

STAGE, ROWS_FOLDER = "taxonomy", "rows"
_ROWS_PER_BATCH = 4096
_ROWS_PER_BLOCK = 32_768


def run_taxonomy(config: Config, run: RunDir) -> dict[str, Any]:
    """Write the `taxonomy` folder of a run; returns the counts for its manifest.

    Files: concepts_to_tags.json, rows/*.parquet (`matching.ROWS`), frequencies.csv, cooccurrence.parquet,
    contradictions.json, rejects.json, report.json.

    Raises:
        InputError: annotations or taxonomy are missing or malformed, or no row is left; nothing is written then.
    """
    section = config.taxonomy
    parsed = parsed_rows(section)
    matcher = Matcher.of(_given_vocabulary(section), where=section.taxonomy or "taxonomy")
    totals = count(parsed(), matcher, section.min_categories)
    check(section, totals)
    run.delete(STAGE)
    write_rows(parsed(), matcher, section.min_categories, run)
    return write_tables(matcher, totals, run)


def parsed_rows(section: TaxonomyConfig) -> Callable[[], ray.data.Dataset]:
    """What builds the plan part that all passes begin with: annotations -> rows of schema `PARSED`."""
    parts = sources.find_parts(section.annotations)
    table = None if parts else sources.load_hub(section.annotations, section.split)

    def plan() -> ray.data.Dataset:
        if table is not None:
            return _each(ray.data.from_arrow(table), sources.parse_table)
        numbers = ray.data.range(len(parts), override_num_blocks=len(parts))
        raw = numbers.map_batches(_read, batch_size=1, fn_kwargs={"parts": parts})
        # Splits a long file's rows between workers.
        return _each(raw.repartition(target_num_rows_per_block=_ROWS_PER_BLOCK), sources.parse_table)

    return plan


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


def write_rows(parsed: ray.data.Dataset, matcher: Matcher, min_categories: int, run: RunDir) -> None:
    """Match the parsed rows and write those with enough categories below taxonomy/rows."""
    rows = _each(parsed, matcher.rows, min_categories=min_categories)
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
    run.write_json(facts | {"unused": totals.unused(matcher)}, STAGE, "report.json")
    return facts


def _given_vocabulary(section: TaxonomyConfig) -> Vocabulary:
    if section.taxonomy is None:
        return embedded_vocabulary()
    return load_vocabulary(section.taxonomy)


def load_vocabulary(location: str) -> Vocabulary:
    """The vocabulary of a concepts_to_tags.json; 'embedded' is the packaged one.

    Raises:
        InputError: no such file, or it is no taxonomy.
    """
    if location == sources.EMBEDDED:
        return embedded_vocabulary()
    try:
        return Vocabulary.from_json(Path(location).expanduser().read_bytes(), where=location)
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        raise InputError(location, problem, "Give the path of a concepts_to_tags.json") from error


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


def _parquet_bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()
