"""Concept sets: rows with a concept, and matched rows without it, for fitting concept activation vectors.

A random negative of 'electric guitar' is mostly no rock either, and a vector fitted on such sets points at rock. Each
negative here resembles its positive in the tags that come with the concept: nearest in those tags among the rows
within a caliper of the propensity score (Rosenbaum and Rubin 1985), sharing the strongest correlates exactly where it
can. Balance is the standardised mean difference of each tag (Austin 2009), before and after.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from conceptcaps import seeding
from conceptcaps.config.dataset import ConceptSetsConfig
from conceptcaps.dataset.plan import Placement
from conceptcaps.dataset.splits import SPLITS, TagLists
from conceptcaps.rundir import RunDir

FOLDER = "concept_sets"
SET_SPLITS = ("train", "test")
_POOL = 20  # negatives looked at per positive wanted
_FAR = 1e6
_ROWS_AT_A_TIME = 100_000
_IMBALANCED = 0.25  # of a tag's standardised mean difference: where Rubin (2001) stops calling groups comparable
_COMMON = 0.01  # share of rows, with or without the concept, from which a tag is to be balanced

SETS = pa.schema(
    [
        pa.field("concept", pa.string()),
        pa.field("id", pa.string()),
        pa.field("positive", pa.bool_()),
        pa.field("match", pa.int32()),  # joins a positive and its negative, within concept and split
    ]
)


@dataclass(frozen=True)
class Matched:
    """One concept in one split.

    Attributes:
        positives, negatives: int64 (num_pairs,), rows; the i-th negative is matched to the i-th positive.
        before, after: float (num_tags,), standardised mean differences between rows with and without the concept:
            all of them, and the matched ones; nan for tags that need no balance.
        num_positives: rows with the concept that were looked at.
        auc: how well the other tags tell the concept (1: always).
    """

    positives: np.ndarray
    negatives: np.ndarray
    before: np.ndarray
    after: np.ndarray
    num_positives: int
    auc: float


def match(
    tags: np.ndarray,
    concept: int,
    config: ConceptSetsConfig,
    rng: np.random.Generator,
    counted: np.ndarray | None = None,
) -> Matched:
    """Match rows without a concept to rows with it.

    Args:
        tags: uint8 (num_rows, num_tags) multi-hot rows of one split.
        concept: a column of `tags`.
        rng: chooses among too many rows, and the order in which positives choose.
        counted: `counts(tags)`, for a caller with many concepts.
    """
    counted = counts(tags) if counted is None else counted
    has = tags[:, concept] > 0
    positives = rng.permutation(np.flatnonzero(has))[: config.max_rows]
    pool = rng.permutation(np.flatnonzero(~has))[: _POOL * config.max_rows]
    with_it, without = shares(counted, len(tags), concept)
    others = covariates(with_it, without, concept)
    before = differences(with_it, without, others)
    unknown = np.full_like(before, np.nan)
    if not len(positives) or not len(pool):
        none = np.zeros(0, np.int64)
        return Matched(none, none, unknown, unknown, len(positives), float("nan"))
    rows = np.concatenate([positives, pool])
    looked_at = tags[rows]
    features = looked_at[:, others].astype(np.float32)
    logit, auc = propensity(features.astype(np.float64), looked_at[:, concept])
    width = config.caliper * max(float(logit.std()), 1e-9)
    exact = strongest(looked_at, concept, others, config.num_exact)
    gap = np.abs(logit[: len(positives), None] - logit[None, len(positives) :])
    distance = _hamming(features[: len(positives)], features[len(positives) :]) + gap / (width * 1e3)
    distance += _FAR * (gap > width)
    # Rows that differ in a strongest correlate come after all that do not, and still before those outside the caliper.
    distance += 1e3 * _hamming(tags[positives][:, exact].astype(np.float32), tags[pool][:, exact].astype(np.float32))
    pairs = _greedy(distance)
    chosen, negatives = positives[[i for i, _ in pairs]], pool[[j for _, j in pairs]]
    after = differences(tags[chosen].mean(0), tags[negatives].mean(0), others) if pairs else unknown
    return Matched(chosen, negatives, before, after, len(positives), auc)


def counts(tags: np.ndarray) -> np.ndarray:
    """float64 (num_tags, num_tags): how many rows have both tags."""
    found = np.zeros((tags.shape[1], tags.shape[1]))
    for part in np.array_split(tags, max(1, len(tags) // _ROWS_AT_A_TIME)):
        some = part.astype(np.float32)
        found += some.T @ some
    return found


def shares(counted: np.ndarray, num_rows: int, concept: int) -> tuple[np.ndarray, np.ndarray]:
    """float (num_tags,) each: the share of every tag among rows with a concept, and among those without."""
    own, every = counted[concept], counted.diagonal()
    with_it, without = own[concept], num_rows - own[concept]
    return own / max(with_it, 1), (every - own) / max(without, 1)


def covariates(with_it: np.ndarray, without: np.ndarray, concept: int) -> np.ndarray:
    """Tags to balance: common enough, and found both with and without the concept.

    A tag that never comes with the concept is its alternative (another tempo, another genre): all rows with it lack
    the concept, and no choice of negatives could balance it.

    Args:
        with_it, without: `shares` of the concept.
    """
    wanted = ((with_it >= _COMMON) | (without >= _COMMON)) & (with_it > 0)
    wanted[concept] = False
    return np.flatnonzero(wanted)


def differences(first: np.ndarray, second: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Standardised mean differences of two groups of rows, from the share of each tag in them.

    Returns:
        float (num_tags,): difference of the shares / pooled standard deviation; nan outside `columns`.
    """
    found = np.full(len(first), np.nan)
    p, q = first[columns], second[columns]
    deviation = np.sqrt((p * (1 - p) + q * (1 - q)) / 2)
    found[columns] = np.divide(p - q, deviation, out=np.sign(p - q) * 10.0, where=deviation > 0)
    return found


def propensity(features: np.ndarray, has: np.ndarray) -> tuple[np.ndarray, float]:
    """Logit of P(concept | other tags) for each row, float (num_rows,), and its AUC."""
    if not features.shape[1]:
        return np.zeros(len(has)), 0.5
    model = LogisticRegression(C=1.0, max_iter=200).fit(features, has)
    logit = model.decision_function(features)
    return logit, float(roc_auc_score(has, logit))


def strongest(tags: np.ndarray, concept: int, columns: np.ndarray, number: int) -> np.ndarray:
    """The columns most correlated with the concept."""
    if not len(columns) or not number:
        return columns[:0]
    centred = tags[:, columns] - tags[:, columns].mean(0)
    own = tags[:, concept] - tags[:, concept].mean()
    spread = np.maximum(centred.std(0) * own.std(), 1e-9)
    phi = np.abs((centred * own[:, None]).mean(0) / spread)
    return columns[np.argsort(-phi, kind="stable")[:number]]


def _hamming(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float (len(a), len(b)): in how many tags two rows differ."""
    return a.sum(1)[:, None] + b.sum(1)[None] - 2 * (a @ b.T)


def _greedy(distance: np.ndarray) -> list[tuple[int, int]]:
    """Pairs without replacement, the hardest positives first; none further than `_FAR`."""
    free = distance.copy()
    pairs = []
    for i in np.argsort(-distance.min(1), kind="stable"):
        j = int(free[i].argmin())
        if free[i, j] < _FAR:
            pairs.append((int(i), j))
            free[:, j] = np.inf
    return sorted(pairs)


def write_concept_sets(
    config: ConceptSetsConfig, seed: int, run: RunDir, folder: str, place: Placement
) -> dict[str, Any]:
    """Write `concept_sets/{train,test}.parquet` and `balance.json` below `folder`; returns a summary."""
    names = place.rows.tags.names
    in_split = place.rows.tags.counts(place.splits, len(SPLITS))
    concepts = [int(c) for c in np.flatnonzero(in_split[:, SPLITS.index("train")] >= config.min_rows)]
    balance: dict[str, dict[str, Any]] = {names[c]: {} for c in concepts}
    for split in SET_SPLITS:
        rows = np.flatnonzero(place.splits == SPLITS.index(split))
        tags = multi_hot(place.rows.tags.take(rows))
        counted, tables = counts(tags), []
        for concept in concepts:
            rng = seeding.generator(seed, "concept set", split, names[concept])
            found = match(tags, concept, config, rng, counted)
            balance[names[concept]][split] = facts(found, names, config)
            tables.append(_table(names[concept], found, rows, place.rows.ids))
        file = io.BytesIO()
        pq.write_table(pa.concat_tables([SETS.empty_table(), *tables]), file, compression="zstd")
        run.write_bytes(file.getvalue(), folder, FOLDER, f"{split}.parquet")
    run.write_json(balance, folder, FOLDER, "balance.json")
    return summary(balance)


def multi_hot(tags: TagLists) -> np.ndarray:
    """uint8 (num_rows, num_tags)."""
    matrix = np.zeros((len(tags), len(tags.names)), np.uint8)
    matrix[tags.rows(), tags.codes] = 1
    return matrix


def _table(name: str, found: Matched, rows: np.ndarray, ids: pa.Array) -> pa.Table:
    size = len(found.positives)
    both = np.concatenate([rows[found.positives], rows[found.negatives]])
    columns = {
        "concept": [name] * (2 * size),
        "id": ids.take(pa.array(both)),
        "positive": [True] * size + [False] * size,
        "match": [*range(size), *range(size)],
    }
    return pa.table(columns, schema=SETS)


def facts(found: Matched, names: Sequence[str], config: ConceptSetsConfig) -> dict[str, Any]:
    """Sizes, balance and warnings of one concept in one split."""
    return {
        "positives": found.num_positives,
        "pairs": len(found.positives),
        "auc_of_other_tags": _number(found.auc),
        "mean_smd_before": _mean(found.before),
        "mean_smd_after": _mean(found.after),
        "worst_before": _worst(found.before, names),
        "worst_after": _worst(found.after, names),
        "warnings": warnings(found, names, config),
    }


def warnings(found: Matched, names: Sequence[str], config: ConceptSetsConfig) -> list[str]:
    """Why a set may not mean what it says."""
    said = []
    if found.auc >= config.inseparable:
        partner = _worst(found.before, names)
        said.append(f"cannot be told from the tags it comes with, above all {partner[0]!r}" if partner else "")
    if len(found.positives) < found.num_positives / 2:
        said.append(f"only {len(found.positives)} of {found.num_positives} positives have a match")
    worst = _worst(found.after, names)
    if worst and abs(worst[1]) > _IMBALANCED:
        said.append(f"{worst[0]!r} still differs by {worst[1]:+.2f} standard deviations")
    return [text for text in said if text]


def summary(balance: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Over all concepts, in train."""
    train = [splits["train"] for splits in balance.values()]
    both = [f for f in train if f["mean_smd_before"] is not None and f["mean_smd_after"] is not None]
    if not both:
        return {}
    return {
        "num_concepts": len(train),
        "mean_smd_before": float(np.mean([f["mean_smd_before"] for f in both])),
        "mean_smd_after": float(np.mean([f["mean_smd_after"] for f in both])),
        "with_warnings": sum(bool(f["warnings"]) for f in train),
    }


def _mean(values: np.ndarray) -> float | None:
    return _number(float(np.nanmean(np.abs(values)))) if np.isfinite(values).any() else None


def _worst(values: np.ndarray, names: Sequence[str]) -> tuple[str, float] | None:
    if not np.isfinite(values).any():
        return None
    at = int(np.nanargmax(np.abs(values)))
    return names[at], round(float(values[at]), 4)


def _number(value: float) -> float | None:
    return round(value, 4) if np.isfinite(value) else None
