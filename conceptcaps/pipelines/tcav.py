"""clips -> classifier -> activations and gradients -> concept vectors, effects and scores."""

from __future__ import annotations

import io
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from ray.data import Dataset

from conceptcaps.config import Config
from conceptcaps.contradictions import Contradictions
from conceptcaps.errors import InputError, TooFewRows
from conceptcaps.pipelines.tcav_clips import (
    ConceptRows,
    LabelledClips,
    concept_rows,
    decoded_clips,
    decoded_rows,
    labelled_clips,
    without_unreadable,
)
from conceptcaps.pipelines.tcav_reading import Readings, Subject, read_concepts, read_examples
from conceptcaps.rundir import RunDir
from conceptcaps.runtime import TASK_CPUS, Demand, check_capacity
from conceptcaps.seeding import derive, generator
from conceptcaps.tcav import analysis, figures
from conceptcaps.tcav.analysis import LOGITS, ConceptClips, Table
from conceptcaps.tcav.classifier import GenreClassifier, to_bytes
from conceptcaps.tcav.concepts import ConceptSet, audit, matched_sets, require_positives
from conceptcaps.tcav.effects import rank_agreement
from conceptcaps.tcav.gtzan import confusion
from conceptcaps.tcav.layers import LayerReader
from conceptcaps.tcav.significance import wilson_interval
from conceptcaps.tcav.train import forget_checkpoint, shape_of, train_on_ray
from conceptcaps.vocabulary import CATEGORIES, Vocabulary

logger = logging.getLogger(__name__)

FOLDER = "tcav"
CLASSIFIER = (FOLDER, "classifier.pt")
TEMPO_REACH = 1.0
"""Seconds a layer must see to tell tempi apart: one beat at 60 a minute."""


def run_tcav(config: Config, run: RunDir) -> dict[str, Any]:
    """Fit the classifier, read its layers, and say which concepts it uses; returns facts for the manifest."""
    check_capacity([Demand("tcav.resources", config.tcav.resources)], reserved=TASK_CPUS)
    rows = concept_rows(run)
    clips = labelled_clips(config, run, rows)
    _check_names(config, rows, clips)
    examples, unreadable = fit_classifier(config, run, clips)
    subject = subject_of(config, run)
    chosen = _untouched(config, rows, clips)
    concept, broken = without_unreadable(decoded_rows(run, config, {i: rows.attempts[i] for i in chosen}))
    read_concepts(subject, concept, [i for i in chosen if i not in broken], run)
    read_examples(subject, only(examples, clips.ids("test")), clips.classes, _scored(config, clips), run)
    readings = Readings(run, subject.adapter.classes, clips.classes)
    accuracy = _accuracy(readings)
    try:
        found = analyse(config, run, concept_clips(config, rows, readings), readings, subject)
    except TooFewRows:
        run.delete(*CLASSIFIER)  # the stage is left out, and may be tried again with other settings
        raise
    facts = {
        "classifier": accuracy,
        "clips": {**_count(clips), **clips.left_out, "unreadable": unreadable | broken},
        "concept_clips": {"analysed": len(readings.ids), "trained_on": len(set(chosen) & set(clips.ids("train")))},
        **found,
    }
    run.write_json(facts, FOLDER, "results.json")
    return {"counts": found["counts"], "accuracy": accuracy["accuracy"], "unreadable": sorted(unreadable | broken)}


def _check_names(config: Config, rows: ConceptRows, clips: LabelledClips) -> None:
    """Refuse layers that do not exist and concepts that too few rows have, before anything is fitted."""
    counts = Counter(tag for tags in rows.tags for tag in tags)
    require_positives(counts, config.tcav.concepts, config.tcav.min_positives)
    if config.tcav.layers and config.tcav.model is None:
        LayerReader(GenreClassifier(shape_of(config.tcav.classifier, clips.classes)), config.tcav.layers)


def run_classifier(config: Config, run: RunDir) -> dict[str, Any]:
    """Fit the classifier alone; `run_tcav` on the same run then goes on with it. Returns its last epoch's record."""
    rows = concept_rows(run) if config.tcav.clips is None else None
    fit_classifier(config, run, labelled_clips(config, run, rows))
    return run.read_json(FOLDER, "history.json")[-1]


def fit_classifier(config: Config, run: RunDir, clips: LabelledClips) -> tuple[Dataset, dict[str, str]]:
    """Decode the labelled clips and fit the classifier on them, unless the run has one or a model is given.

    Returns:
        The decoded clips (id, wave, label), and id -> problem of those left out as unreadable.
    """
    readable, unreadable = without_unreadable(decoded_clips(run, config, clips))
    examples = readable.map_batches(
        partial(_label, label=dict(clips.label)), batch_format="pyarrow", batch_size=None, num_cpus=TASK_CPUS
    )
    if config.tcav.model is None and not run.exists(*CLASSIFIER):
        parts = {
            "train": only(examples, clips.ids("train")).materialize(),
            "validation": only(examples, clips.ids("validation")).materialize(),
        }
        fit = train_on_ray(parts, clips.classes, config.tcav.classifier, run, derive(config.seed, "classifier"))
        run.write_json(fit.history, FOLDER, "history.json")
        run.write_bytes(to_bytes(fit.model), *CLASSIFIER)
        forget_checkpoint(run)
    return examples, unreadable


def _label(table: pa.Table, label: dict[str, int]) -> pa.Table:
    return table.append_column("label", pa.array([label[i] for i in table["id"].to_pylist()], pa.int64()))


def only(rows: Dataset, ids: Sequence[str]) -> Dataset:
    """The rows with these ids."""
    return rows.map_batches(
        partial(_keep, ids=frozenset(ids)), batch_format="pyarrow", batch_size=None, num_cpus=TASK_CPUS
    )


def _keep(table: pa.Table, ids: frozenset[str]) -> pa.Table:
    return table.filter(pa.array([i in ids for i in table["id"].to_pylist()], pa.bool_()))


def subject_of(config: Config, run: RunDir) -> Subject:
    """The classifier under analysis, as the run has it or the config names it."""
    weights = b"" if config.tcav.model is not None else run.read_bytes(*CLASSIFIER)
    return Subject(weights, config.tcav, derive(config.seed, "head"))


def _untouched(config: Config, rows: ConceptRows, clips: LabelledClips) -> list[str]:
    """Concept rows that the classifier was not trained on; all of them, with a warning, where those are too few."""
    trained = set(clips.ids("train", "validation")) if clips.attempts else set()
    fresh = [i for i in rows.ids if i not in trained]
    if not trained or len(fresh) >= 6 * config.tcav.min_positives:
        return fresh
    logger.warning("only %d rows were not trained on: concepts are tested on training clips as well", len(fresh))
    return rows.ids


def _scored(config: Config, clips: LabelledClips) -> set[str]:
    """Test clips whose derivatives are scored, up to `class_clips` of each class."""
    wanted: set[str] = set()
    for k in range(len(clips.classes)):
        own = [i for i in clips.ids("test") if clips.label[i] == k]
        wanted.update(sorted(own, key=lambda i: derive(config.seed, "class clip", i))[: config.tcav.class_clips])
    return wanted


def concept_clips(config: Config, rows: ConceptRows, readings: Readings) -> ConceptClips:
    """The clips that were read, and the tags that may be concepts."""
    place = {name: i for i, name in enumerate(rows.ids)}
    own = [place[i] for i in readings.ids]
    present = {tag for i in own for tag in rows.tags[i]}
    found = sorted(t for t in present if rows.categories[t] in config.tcav.categories)
    wanted = list(config.tcav.concepts or found)
    if not wanted:
        raise InputError("tcav.categories", "leaves no tag to test", f"Choose among {', '.join(CATEGORIES)}")
    sets = [frozenset(rows.tags[i]) for i in own]
    return ConceptClips(
        readings.ids,
        [rows.pair_ids[i] for i in own],
        np.array([[tag in s for tag in wanted] for s in sets], dtype=np.uint8),
        wanted,
        [rows.categories.get(t, "") for t in wanted],
        readings.logits,
        readings.classes,
    )


def analyse(config: Config, run: RunDir, clips: ConceptClips, readings: Readings, subject: Subject) -> dict[str, Any]:
    """All tables and figures of the run, from what was read; returns the facts of `results.json`."""
    counts = dict(zip(clips.names, clips.tags.sum(0).tolist(), strict=True))
    least = config.tcav.min_positives
    require_positives(counts, config.tcav.concepts, least)
    sets = matched_sets(clips.tags, clips.names, generator(config.seed, "sets"), min_positives=least)
    effects: Table = []
    scores: Table = []
    per_layer: dict[str, Any] = {}
    for layer in subject.layers:
        found, own_scores, per_layer[layer] = _analyse_layer(config, clips, sets, readings, layer)
        effects = found + effects  # the layer next to the head comes first
        scores += own_scores
    effects += analysis.effect_table(clips, LOGITS, None, None, config.tcav)
    effects += analysis.counterfactual_table(clips, config.tcav)
    _write(config, run, effects, scores, subject.layers)
    reach = subject.adapter.reach(subject.layers)
    return {
        "counts": _count_verdicts(effects, subject.layers[-1]),
        "tags": {
            **audit(clips.tags, clips.names, sets),
            "contradictory_clips": _contradictions(clips),
            "too_few_positives": {n: f"has {c}, needs {least}" for n, c in counts.items() if n not in sets},
        },
        "layers": per_layer,
        "reach_seconds": {name: seconds if np.isfinite(seconds) else "whole clip" for name, seconds in reach.items()},
        "warnings": _warnings(reach, clips, sets),
    }


def _analyse_layer(
    config: Config, clips: ConceptClips, sets: Mapping[str, ConceptSet], readings: Readings, layer: str
) -> tuple[Table, Table, dict[str, Any]]:
    section, seed = config.tcav, derive(config.seed, "vectors", layer)
    activations = readings.activations(layer)
    effects = analysis.effect_table(clips, layer, readings.mean_gradients(layer), activations, section)
    shuffled = readings.mean_gradients(layer, with_randomised_head=True)
    again = analysis.effect_table(clips, layer, shuffled, activations, section)
    agreement = rank_agreement(*(np.array([row["effect_sd"] for row in table]) for table in (effects, again)))
    facts: dict[str, Any] = {"rank_agreement_after_head_randomisation": agreement if np.isfinite(agreement) else None}
    if not sets:
        return effects, [], facts
    gradients = readings.class_gradients(layer)
    categories = dict(zip(clips.names, clips.categories, strict=True))
    vectors = analysis.fit_vectors(activations, sets, section, seed)
    scores = analysis.score_table(vectors, layer, gradients, categories)
    facts["tests"] = analysis.add_tests(scores, vectors, activations, gradients, sets, section, seed)
    facts["entanglement"] = analysis.entanglement(activations, clips, sets, vectors, section, seed)
    relative = analysis.relative_concepts(clips, list(sets), section.relative, section.min_positives)
    if relative:
        scores += analysis.score_table(
            analysis.fit_vectors(activations, relative, section, seed), layer, gradients, categories
        )
    return effects, scores, facts


def _write(config: Config, run: RunDir, effects: Table, scores: Table, layers: Sequence[str]) -> None:
    """Tables as Parquet, the published layout as JSON, figures as PNG."""
    frame = pd.DataFrame(effects)
    _write_parquet(run, frame, "effects.parquet")
    run.write_bytes(figures.heat_map(frame, layers[-1]), FOLDER, "figures", "effects.png")
    run.write_bytes(figures.bars(frame, layers[-1], config.tcav.negligible_sd), FOLDER, "figures", "largest.png")
    if scores:
        table = pd.DataFrame(scores)
        _write_parquet(run, table, "scores.parquet")
        run.write_bytes(figures.layer_curves(table), FOLDER, "figures", "layers.png")
    run.write_json(analysis.published_layout(scores, layers[-1]), FOLDER, "tcav_genre_classification_results.json")


def _write_parquet(run: RunDir, frame: pd.DataFrame, name: str) -> None:
    file = io.BytesIO()
    frame.to_parquet(file, index=False)
    run.write_bytes(file.getvalue(), FOLDER, name)


def _accuracy(readings: Readings) -> dict[str, Any]:
    """Accuracy on held-out clips with its interval, and the confusion matrix."""
    labels, predicted = readings.predictions()
    names = sorted({*labels, *predicted})
    a, b = (np.array([names.index(x) for x in side]) for side in (labels, predicted))
    right = float((a == b).mean())
    low, high = wilson_interval(np.array(right), np.array(len(a)))
    return {
        "accuracy": right,
        "interval": [float(low), float(high)],
        "held_out_clips": len(a),
        "classes": names,
        "confusion": confusion(a, b, len(names)).tolist(),
    }


def _count(clips: LabelledClips) -> dict[str, Any]:
    return {"classes": list(clips.classes), **Counter(clips.split.values())}


def _count_verdicts(effects: Table, layer: str) -> dict[str, int]:
    return dict(Counter(row["verdict"] for row in effects if row["layer"] == layer))


def _contradictions(clips: ConceptClips) -> int:
    """How many clips have tags that exclude each other."""
    by_category: dict[str, list[str]] = {c: [] for c in CATEGORIES}
    for name, category in zip(clips.names, clips.categories, strict=True):
        by_category[category].append(name)
    vocabulary = Vocabulary.from_mapping(by_category)
    order = [clips.names.index(tag) for tag in vocabulary.tags]
    return int(Contradictions.for_vocabulary(vocabulary).violations(clips.tags[:, order]).sum())


def _warnings(reach: Mapping[str, float], clips: ConceptClips, sets: Mapping[str, ConceptSet]) -> list[str]:
    found = [
        f"layer {layer!r} sees {seconds:.2f} s at a time: too little to tell tempi apart"
        for layer, seconds in reach.items()
        if seconds < TEMPO_REACH and "tempo" in clips.categories
    ]
    if not sets:
        found.append("no tag has enough positives for concept vectors: see tags.too_few_positives")
    return found
