"""From activations, gradients and tags of one layer to tables of verdicts, scores and vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from conceptcaps.config.tcav import TcavConfig
from conceptcaps.seeding import generator
from conceptcaps.tcav.cav import Cavs, Problems, check_activations, cosines, fit_cavs
from conceptcaps.tcav.concepts import ConceptSet, disjoint, matched_sets, relative_sets, resplits
from conceptcaps.tcav.effects import Effects, counterfactual_effects, joint_effects, regress, verdicts
from conceptcaps.tcav.scores import check_gradients, directional_derivatives, magnitude_scores, sign_scores
from conceptcaps.tcav.significance import benjamini_hochberg, mean_interval, welch_p, wilson_interval

Table = list[dict[str, Any]]
LOGITS = "logits"
"""Name under which the baseline that reads no layer stands among the layers."""
_MIN_CLIPS = 5


@dataclass(frozen=True)
class ConceptClips:
    """The concept dataset as a classifier sees it.

    Args:
        ids: row ids.
        pair_ids: the counterfactual pair of each row; None elsewhere.
        tags: uint8 (num_clips, num_tags), multi-hot.
        names: the tags.
        categories: the category of each tag.
        logits: float (num_clips, num_classes).
        classes: the classifier's labels.
    """

    ids: Sequence[str]
    pair_ids: Sequence[str | None]
    tags: np.ndarray
    names: Sequence[str]
    categories: Sequence[str]
    logits: np.ndarray
    classes: Sequence[str]

    @property
    def logit_sd(self) -> np.ndarray:
        """float (num_classes,): one where a logit never varies."""
        sd = self.logits.std(0)
        return np.where(sd > 0, sd, 1.0)

    def regressed(self) -> np.ndarray:
        """int64: the tags that enter the joint regression, the most frequent ones that the clips can tell apart."""
        count = self.tags.sum(0, dtype=np.int64)
        known = np.flatnonzero((count >= _MIN_CLIPS) & (count <= len(self.tags) - _MIN_CLIPS))
        most = max(1, len(self.tags) // 4)
        return np.sort(known[np.argsort(-count[known], kind="stable")][:most])


def effect_table(clips: ConceptClips, layer: str, gradients: np.ndarray | None, activations: np.ndarray | None,
                 config: TcavConfig) -> Table:  # fmt: skip
    """One row per class and tag: the joint pattern effect through a layer, or on the logits themselves.

    Args:
        clips: the concept dataset.
        layer: its name, or `LOGITS`.
        gradients: float (num_classes, dim), mean gradients; None for the logits.
        activations: float (num_clips, dim); None for the logits.
    """
    kept = clips.regressed()
    tags = clips.tags[:, kept]
    if activations is None or gradients is None:
        effects = regress(clips.logits / clips.logit_sd, tags, min_clips=_MIN_CLIPS)
    else:
        check_activations(activations, f"layer {layer!r}")
        effects = joint_effects(activations, gradients, tags, clips.logit_sd, min_clips=_MIN_CLIPS)
    return _rows_of(effects, clips, kept, layer, config)


def _rows_of(effects: Effects, clips: ConceptClips, kept: np.ndarray, layer: str, config: TcavConfig) -> Table:
    verdict, q_used, q_negligible = verdicts(effects, bound=config.negligible_sd, rate=config.false_discovery_rate)
    low, high = effects.interval()
    p_zero = effects.p_zero()
    return [
        {
            "layer": layer,
            "class": name,
            "concept": clips.names[j],
            "category": clips.categories[j],
            "num_positives": int(clips.tags[:, j].sum()),
            "effect_sd": effects.estimate[c, k],
            "low": low[c, k],
            "high": high[c, k],
            "p_zero": p_zero[c, k],
            "q_used": q_used[c, k],
            "q_negligible": q_negligible[c, k],
            "verdict": verdict[c, k],
        }
        for c, name in enumerate(clips.classes)
        for k, j in enumerate(kept)
    ]


def counterfactual_table(clips: ConceptClips, config: TcavConfig, *, min_pairs: int = 5) -> Table:
    """One row per class and tag that enough counterfactual pairs differ in, and in nothing else."""
    found = []
    for j, (rows, twins) in _pairs(clips).items():
        if len(rows) < min_pairs:
            continue
        mean, error, dof = counterfactual_effects(clips.logits[rows], clips.logits[twins], clips.logit_sd)
        effects = Effects(mean[:, None], np.maximum(error, 1e-12)[:, None], dof)
        found += [{**row, "num_pairs": len(rows)} for row in _rows_of(effects, clips, np.array([j]), "pairs", config)]
    return found


def _pairs(clips: ConceptClips) -> dict[int, tuple[list[int], list[int]]]:
    """tag -> rows that have it, and their twins that do not."""
    together: dict[str, list[int]] = {}
    for i, pair in enumerate(clips.pair_ids):
        if pair is not None:
            together.setdefault(pair, []).append(i)
    found: dict[int, tuple[list[int], list[int]]] = {}
    for rows in together.values():
        if len(rows) != 2:
            continue
        differing = np.flatnonzero(clips.tags[rows[0]] != clips.tags[rows[1]])
        if len(differing) == 1:
            j = int(differing[0])
            has, lacks = rows if clips.tags[rows[0], j] else rows[::-1]
            found.setdefault(j, ([], []))
            found[j][0].append(has)
            found[j][1].append(lacks)
    return found


@dataclass(frozen=True)
class Vectors:
    """A layer's concept vectors.

    Args:
        names: the concepts, each with `runs` consecutive rows in `cavs` and `problems`.
        cavs: the fitted classifiers.
        problems: what they were fitted on.
        runs: re-splits per concept.
    """

    names: Sequence[str]
    cavs: Cavs
    problems: Problems
    runs: int

    def accuracy(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Held-out accuracy per concept and its interval, counting clips and not runs as independent."""
        shape = (len(self.names), self.runs, -1)
        tested = self.problems.test.reshape(shape)
        right = (self.cavs.correct & self.problems.test).reshape(shape).sum(1)
        times = tested.sum(1)
        per_clip = np.divide(right, times, out=np.full(right.shape, np.nan), where=times > 0)
        share, count = np.nanmean(per_clip, 1), np.isfinite(per_clip).sum(1)
        return (share, *wilson_interval(share, count))

    def directions(self) -> np.ndarray:
        """float64 (num_concepts, dim): the mean vector over runs, unit length."""
        mean = self.cavs.vectors.reshape(len(self.names), self.runs, -1).mean(1)
        return mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-300)

    def stability(self) -> np.ndarray:
        """float64 (num_concepts,): mean cosine between runs; 1 is stable."""
        unit = self.cavs.vectors.reshape(len(self.names), self.runs, -1)
        total = (unit.sum(1) ** 2).sum(1)
        return (total - self.runs) / (self.runs * (self.runs - 1))


def fit_vectors(activations: np.ndarray, sets: Mapping[str, ConceptSet], config: TcavConfig, seed: int) -> Vectors:
    """All concepts of a layer, `config.runs` re-splits each, in one solve."""
    problems = resplits(list(sets.values()), config.runs, config.held_out, generator(seed, "resplits"))
    cavs = fit_cavs(activations, problems, method=config.method, regularisation=config.regularisation)
    return Vectors(list(sets), cavs, problems, config.runs)


def score_table(
    vectors: Vectors, layer: str, gradients: Mapping[str, np.ndarray], categories: Mapping[str, str]
) -> Table:
    """One row per class and concept: accuracy, stability, and the TCAV scores pooled over runs.

    A concept whose held-out accuracy is not above chance is reported as not separable, and not scored.

    Args:
        vectors: of the layer.
        layer: its name.
        gradients: class -> float (num_class_clips, dim), of that class's logit.
        categories: concept -> category.
    """
    share, low, high = vectors.accuracy()
    stability = vectors.stability()
    found = []
    for class_name, gradient in gradients.items():
        check_gradients(gradient, layer, class_name)
        derivatives = directional_derivatives(gradient, vectors.cavs.vectors)
        signs, sizes = (s.reshape(-1, vectors.runs) for s in (sign_scores(derivatives), magnitude_scores(derivatives)))
        sign_low, sign_high = mean_interval(signs.T)
        for k, concept in enumerate(vectors.names):
            separable = bool(low[k] > 0.5)
            found.append(
                {
                    "layer": layer,
                    "class": class_name,
                    "concept": concept,
                    "category": categories.get(concept, "relative"),
                    "cav_accuracy": share[k],
                    "accuracy_low": low[k],
                    "accuracy_high": high[k],
                    "separable": separable,
                    "stability": stability[k],
                    "tcav_score": signs[k].mean() if separable else None,
                    "score_low": max(0.0, sign_low[k]) if separable else None,
                    "score_high": min(1.0, sign_high[k]) if separable else None,
                    "magnitude_score": float(np.nanmean(sizes[k])) if separable else None,
                }
            )
    return found


def add_tests(
    table: Table,
    vectors: Vectors,
    activations: np.ndarray,
    gradients: Mapping[str, np.ndarray],
    sets: Mapping[str, ConceptSet],
    config: TcavConfig,
    seed: int,
) -> dict[str, Any]:
    """Adds q-values to the rows of a score table: `disjoint_q`, on sets without a common clip, and `customary_q`,
    the usual test on re-splits of one set; returns what was tested on what.

    The customary test is not calibrated (re-splits are no replicates) and stands here under its own name only.
    """
    rng = generator(seed, "tests")
    for row in table:
        row["disjoint_q"] = row["customary_q"] = None
    some = next(iter(sets.values()))
    drawn = rng.permutation(len(activations))[: 2 * len(some.positives)]
    halves = np.array_split(drawn, 2)
    noise = fit_vectors(activations, {"random": ConceptSet("random", *halves)}, config, seed)
    _add_q(table, "customary_q", vectors.names, vectors.cavs.vectors, noise.cavs.vectors, vectors.runs, gradients)
    large = [s for s in sets.values() if len(s.positives) >= config.disjoint_sets * config.disjoint_size]
    found = disjoint(large, config.disjoint_sets, config.disjoint_size, len(activations), rng) if large else None
    facts: dict[str, Any] = {
        "disjoint_sets": config.disjoint_sets,
        "disjoint_size": config.disjoint_size,
        "disjoint_concepts": [s.name for s in large] if found else [],
        "customary_warning": "re-splits of one concept set are no replicates; expect most p-values to be too small",
    }
    if found is not None:
        own, random = (
            fit_cavs(activations, p, method=config.method, regularisation=config.regularisation).vectors for p in found
        )
        _add_q(table, "disjoint_q", facts["disjoint_concepts"], own, random, config.disjoint_sets, gradients)
    return facts


def _add_q(
    table: Table,
    column: str,
    names: Sequence[str],
    vectors: np.ndarray,
    noise: np.ndarray,
    runs: int,
    gradients: Mapping[str, np.ndarray],
) -> None:
    rows = []
    for gradient in gradients.values():
        scores = sign_scores(directional_derivatives(gradient, vectors)).reshape(len(names), runs)
        rows.append(welch_p(scores.T, sign_scores(directional_derivatives(gradient, noise))[:, None]))
    q = benjamini_hochberg(np.stack(rows))
    place = {(c, n): q[i, j] for i, c in enumerate(gradients) for j, n in enumerate(names)}
    for row in table:
        if (row["class"], row["concept"]) in place and row["separable"]:
            row[column] = place[row["class"], row["concept"]]


def relative_concepts(
    clips: ConceptClips, wanted: Sequence[str], categories: Sequence[str], min_positives: int
) -> dict[str, ConceptSet]:
    """Each concept against each other of its category, from clips that have one of the two only.

    Args:
        clips: the concept dataset.
        wanted: concepts to compare.
        categories: those whose concepts are compared.
        min_positives: fewest clips on each side.
    """
    category = dict(zip(clips.names, clips.categories, strict=True))
    pairs = [(a, b) for a, b in combinations(wanted, 2) if category[a] == category[b] and category[a] in categories]
    found = relative_sets(clips.tags, clips.names, pairs)
    return {name: s for name, s in found.items() if len(s.positives) >= min_positives}


def entanglement(
    activations: np.ndarray, clips: ConceptClips, sets: Mapping[str, ConceptSet], vectors: Vectors, config: TcavConfig,
    seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Cosines between concepts' vectors, with matched negatives and with negatives drawn at random."""
    drawn = matched_sets(
        clips.tags,
        clips.names,
        generator(seed, "drawn"),
        min_positives=min(len(s.positives) for s in sets.values()),
        matched=False,
    )
    unmatched = fit_vectors(activations, {n: drawn[n] for n in sets if n in drawn}, config, seed)
    matched, plain = cosines(vectors.directions()), cosines(unmatched.directions())
    return {
        "concepts": list(vectors.names),
        "cosines": np.round(matched, 4).tolist(),
        "concepts_with_random_negatives": list(unmatched.names),
        "cosines_with_random_negatives": np.round(plain, 4).tolist(),
        "mean_absolute_cosine_matched": _off_diagonal(matched),
        "mean_absolute_cosine_random": _off_diagonal(plain),
    }


def _off_diagonal(table: np.ndarray) -> float | None:
    if len(table) < 2:
        return None
    return float(np.abs(table[~np.eye(len(table), dtype=bool)]).mean())


def published_layout(scores: Table, layer: str) -> dict[str, Any]:
    """The layout of the published `tcav_genre_classification_results.json`, for plots made for it.

    The numbers are ours: held-out accuracy, and a TCAV score that reads the classifier; concepts that are not
    separable are left out.
    """
    found: dict[str, Any] = {}
    for row in scores:
        if row["layer"] != layer or not row["separable"] or row["category"] == "relative":
            continue
        concept = found.setdefault(row["category"], {}).setdefault(
            row["concept"], {"cav_accuracy": row["cav_accuracy"], "genre_scores": {}}
        )
        concept["genre_scores"][row["class"]] = row["tcav_score"]
    return found
