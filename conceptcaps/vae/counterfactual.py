"""Tag sets for counterfactual pairs: sets that hold a tag and remain allowed without it."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from conceptcaps.errors import InputError
from conceptcaps.vae.sampling import CHUNK, Sampler

logger = logging.getLogger(__name__)

_MAX_CHUNKS = 8


def twins(sampler: Sampler, tag: str, count: int, seed: int) -> np.ndarray:
    """Draws of the sampler's model given the tag, all different, that satisfy its rules with and without the tag.

    Args:
        sampler: the run's own.
        tag: of its vocabulary.
        count: how many sets are wanted.
        seed: of these draws; a larger `count` extends a smaller one's.

    Returns:
        uint8 (num_sets, num_tags), `count` of them or, with a warning, as many as were found.

    Raises:
        InputError: the tag is unknown, one of the given tags, or in no set that can do without it.
    """
    rules = sampler.rules
    where = "key 'specs.counterfactual'"
    if tag not in rules.vocabulary.index:
        raise InputError(where, f"{tag!r} is not in the vocabulary", "Use a tag of taxonomy/concepts_to_tags.json")
    if tag in rules.given:
        raise InputError(where, f"{tag!r} is one of specs.seed_tags, so no row may lack it", "Remove it from either")
    given = Sampler(sampler.proposer, replace(rules, given=(*rules.given, tag)), seed, sampler.size_log_ratio)
    found = np.zeros((0, len(rules.vocabulary)), np.uint8)
    for chunk in range(_MAX_CHUNKS):
        rows = given.rows(chunk * CHUNK, (chunk + 1) * CHUNK)
        without = rows.copy()
        without[:, rules.vocabulary.index[tag]] = 0
        found = np.concatenate([found, rows[rules.admits(without)]])
        _, first = np.unique(found, axis=0, return_index=True)
        found = found[np.sort(first)]
        if len(found) >= count:
            return found[:count]
    if not len(found):
        raise InputError(where, f"no set that holds {tag!r} is allowed without it", "Lower specs.min_categories")
    logger.warning("%s: only %d of %d pairs of %r were found", where, len(found), count, tag)
    return found
