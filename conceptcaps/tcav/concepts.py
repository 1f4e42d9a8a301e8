"""Concept sets: which clips stand for a concept and which against it, split for each use, and an audit of the tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from conceptcaps.errors import InputError
from conceptcaps.tcav.cav import Problems

CORRELATED = 0.3
"""Tags whose phi is at least this far from zero are listed in an audit."""


@dataclass(frozen=True)
class ConceptSet:
    """Clips with a concept, and as many without it that resemble them otherwise.

    Args:
        name: the concept's tag.
        positives: int64 (n,), clips that have it.
        negatives: int64 (n,), clips that do not, the i-th matched to the i-th positive.
    """

    name: str
    positives: np.ndarray
    negatives: np.ndarray


def matched_sets(
    tags: np.ndarray, names: Sequence[str], rng: np.random.Generator, *, min_positives: int = 20, matched: bool = True
) -> dict[str, ConceptSet]:
    """One set per tag that enough clips have, and enough lack.

    Each positive gets the clip without the tag that agrees most with it in all other tags, each clip used once,
    so that a concept is not learnt through the tags it usually comes with.

    Args:
        tags: bool or uint8 (num_clips, num_tags).
        names: the tags' names.
        rng: breaks ties, and draws the negatives where `matched` is off.
        min_positives: least clips on each side.
        matched: whether negatives are matched, or drawn at random.
    """
    sets = {}
    table = tags.astype(np.int16)
    for j, name in enumerate(names):
        positives, others = np.flatnonzero(tags[:, j]), np.flatnonzero(tags[:, j] == 0)
        size = min(len(positives), len(others))
        if size < min_positives:
            continue
        positives = rng.permutation(positives)[:size]
        pool = rng.permutation(others)
        negatives = _match(table, positives, pool, j) if matched else pool[:size]
        sets[name] = ConceptSet(name, positives, negatives)
    return sets


def _match(table: np.ndarray, positives: np.ndarray, pool: np.ndarray, tag: int) -> np.ndarray:
    """Greedy nearest neighbours in Hamming distance over the other tags, without replacement."""
    rest = np.delete(table, tag, axis=1)
    a, b = rest[positives], rest[pool]
    distance = (a.sum(1)[:, None] + b.sum(1)[None] - 2 * (a @ b.T)).astype(np.float32)
    chosen = np.empty(len(positives), dtype=np.int64)
    for i in np.argsort(distance.min(1), kind="stable"):
        nearest = int(distance[i].argmin())
        chosen[i] = pool[nearest]
        distance[:, nearest] = np.inf
    return chosen


def require_positives(counts: Mapping[str, int], wanted: Sequence[str], min_positives: int) -> None:
    """Refuse concepts asked for by name that too few clips have.

    Raises:
        InputError: naming each with its count and the number it needs.
    """
    short = [f"{name!r} has {counts.get(name, 0)}" for name in wanted if counts.get(name, 0) < min_positives]
    if short:
        raise InputError(
            "tcav.concepts",
            f"too few positive clips: {', '.join(short)}, each needs {min_positives}",
            "Generate more rows with these tags, or lower tcav.min_positives",
        )


def resplits(sets: Sequence[ConceptSet], runs: int, held_out: float, rng: np.random.Generator) -> Problems:
    """`runs` problems per set on the same clips, each with another held-out part; sets in order, runs within.

    Good for stability and accuracy. A significance test over them is not calibrated: they are no replicates.
    """
    size = max(len(s.positives) for s in sets)
    rows = [_problem(s.positives, s.negatives, size, held_out, rng) for s in sets for _ in range(runs)]
    return _stack(rows)


def disjoint(
    sets: Sequence[ConceptSet], num_sets: int, set_size: int, num_clips: int, rng: np.random.Generator
) -> tuple[Problems, Problems] | None:
    """Problems on disjoint clips: `num_sets` per concept, and as many of random against random clips.

    Returns:
        (concept problems, sets in order and replicates within; random problems), or None where a concept or the
        dataset has too few clips.
    """
    need = num_sets * set_size
    if any(len(s.positives) < need for s in sets) or num_clips < 2 * need:
        return None
    rows = []
    for s in sets:
        order = rng.permutation(len(s.positives))[:need].reshape(num_sets, set_size)
        rows += [_problem(s.positives[o], s.negatives[o], set_size, 0.0, rng) for o in order]
    drawn = rng.permutation(num_clips)[: 2 * need].reshape(2, num_sets, set_size)
    noise = [_problem(a, b, set_size, 0.0, rng) for a, b in zip(*drawn, strict=True)]
    return _stack(rows), _stack(noise)


def relative_sets(tags: np.ndarray, names: Sequence[str], pairs: Sequence[tuple[str, str]]) -> dict[str, ConceptSet]:
    """Sets of one concept against another of its category, e.g. 'slow | fast', from clips that have one of the two."""
    found = {}
    index = {name: j for j, name in enumerate(names)}
    for first, second in pairs:
        a, b = tags[:, index[first]] > 0, tags[:, index[second]] > 0
        positives, negatives = np.flatnonzero(a & ~b), np.flatnonzero(b & ~a)
        size = min(len(positives), len(negatives))
        if size:
            found[f"{first} | {second}"] = ConceptSet(f"{first} | {second}", positives[:size], negatives[:size])
    return found


def phi_table(tags: np.ndarray) -> np.ndarray:
    """float64 (num_tags, num_tags): phi coefficients (Pearson of two binary tags); NaN for a constant tag."""
    x = tags.astype(np.float64) - tags.mean(0)
    norms = np.sqrt((x**2).sum(0))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (x.T @ x) / np.outer(norms, norms)


def audit(tags: np.ndarray, names: Sequence[str], sets: Mapping[str, ConceptSet]) -> dict[str, Any]:
    """What a reader must know of the tags before believing a score.

    Args:
        tags: bool or uint8 (num_clips, num_tags).
        names: the tags' names.
        sets: the concept sets made from them.
    """
    index = {name: j for j, name in enumerate(names)}
    phi = np.nan_to_num(phi_table(tags))
    first, second = np.nonzero(np.triu(np.abs(phi), 1) >= CORRELATED)
    return {
        "clips_in_both_sets": {n: len(np.intersect1d(s.positives, s.negatives)) for n, s in sets.items()},
        "negatives_with_the_tag": {n: int(tags[s.negatives, index[n]].sum()) for n, s in sets.items() if n in index},
        "correlated_tags": [
            {"first": names[i], "second": names[j], "phi": round(float(phi[i, j]), 3)}
            for i, j in zip(first, second, strict=True)
        ],
    }


def _problem(
    positives: np.ndarray, negatives: np.ndarray, size: int, held_out: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    def side(clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        padded = np.full(size, -1, dtype=np.int64)
        padded[: len(clips)] = clips
        test = np.zeros(size, dtype=bool)
        test[rng.permutation(len(clips))[: round(held_out * len(clips))]] = True
        return padded, test

    (a, test_a), (b, test_b) = side(positives), side(negatives)
    return np.concatenate([a, b]), np.repeat([True, False], size), np.concatenate([test_a, test_b])


def _stack(rows: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Problems:
    clips, labels, held_out = (np.stack(column) for column in zip(*rows, strict=True))
    return Problems(clips, labels, held_out)
