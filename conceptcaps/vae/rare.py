"""Rows for tags that too few rows hold: draws of the sampler's model given the tag."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from conceptcaps.errors import InputError
from conceptcaps.seeding import derive
from conceptcaps.vae.limits import SetLimit
from conceptcaps.vae.sampling import Sampler

_CHUNK = 256


def lift(
    sampler: Sampler, counts: np.ndarray, least: int, seed: int, limit: SetLimit | None = None
) -> tuple[list[tuple[str, np.ndarray]], dict[str, str]]:
    """Rows to add so that every tag stands in `least` of all, the rarest tag first.

    A row given one tag counts for all that it holds, so that tags that go together share their rows. A tag's n-th row
    is the same whatever `counts` and `least`.

    Args:
        sampler: the run's own.
        counts: int (num_tags,), the rows that hold each tag so far.
        least: rows wanted of every tag.
        seed: of these draws.
        limit: what bounds the rows of one tag set, with all rows so far counted.

    Returns:
        Per tag that needs rows, uint8 (num_rows, num_tags) of them; and per tag that cannot have enough, why.
    """
    vocabulary = sampler.rules.vocabulary
    counts = counts.astype(np.int64)
    added: list[tuple[str, np.ndarray]] = []
    lacking: dict[str, str] = {}
    for column in np.argsort(counts, kind="stable"):
        missing = least - int(counts[column])
        if missing <= 0:
            continue
        tag = vocabulary.tags[column]
        try:
            rows = np.concatenate(list(_given(sampler, tag, missing, derive(seed, tag), limit)))
        except InputError as error:
            lacking[tag] = f"{counts[column]} of {least} rows: {error.problem}"
            continue
        counts += rows.sum(0, dtype=np.int64)
        added.append((tag, rows))
    return added, lacking


def _given(sampler: Sampler, tag: str, count: int, seed: int, limit: SetLimit | None) -> Iterator[np.ndarray]:
    """`count` rows that hold the tag, in parts."""
    rules = replace(sampler.rules, given=(*sampler.rules.given, tag))
    given = Sampler(sampler.proposer, rules, seed, sampler.size_log_ratio, _CHUNK)
    for chunk in range(-(-count // _CHUNK)):
        size = min(_CHUNK, count - chunk * _CHUNK)
        if limit is None:
            yield given.chunk(chunk)[:size]
        else:
            yield limit.apply(given.chunk(chunk)[:size], partial(given.chunk, chunk))
