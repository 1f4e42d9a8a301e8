"""Activations and gradients of all layers asked for: one Ray Data job over the clips, kept as Parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from ray.data import Dataset

from conceptcaps.config.tcav import TcavConfig
from conceptcaps.devices import device_for
from conceptcaps.errors import InputError
from conceptcaps.rundir import RunDir
from conceptcaps.runtime import TASK_CPUS, pool_arguments
from conceptcaps.seeding import derive
from conceptcaps.tcav.adapter import Adapter, of_genre_classifier, of_transformers
from conceptcaps.tcav.cav import check_activations
from conceptcaps.tcav.layers import LayerReader, randomised
from conceptcaps.tcav.scores import check_gradients

CONCEPT, EXAMPLES = ("tcav", "activations", "concept"), ("tcav", "activations", "examples")


@dataclass(frozen=True)
class Subject:
    """The classifier under analysis: enough to build it in any worker.

    Attributes:
        weights: of our own classifier; empty for a transformers model.
        section: `tcav` of the config.
        seed: of the randomised head.
    """

    weights: bytes
    section: TcavConfig
    seed: int

    def build(self) -> Adapter:
        if self.section.model is not None:
            return of_transformers(self.section.model)
        return of_genre_classifier(self.weights, self.section.classifier.duration)

    @cached_property
    def adapter(self) -> Adapter:
        """Built once in this process."""
        return self.build()

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers to analyse.

        Raises:
            InputError: one does not exist.
        """
        names = self.section.layers or self.adapter.layers
        LayerReader(self.adapter.model, names)
        return names


class ReadConcepts:
    """Actor: concept clips -> logits and activations; of some, every class's gradients, with the head as it is and
    drawn anew."""

    def __init__(self, subject: Subject, layers: Sequence[str], gradient_ids: frozenset[str]):
        self.adapter, self.layers, self.gradient_ids = subject.build(), tuple(layers), gradient_ids
        self.adapter.model.to(device_for(subject.section.resources, "tcav.resources"))
        self.reader, self.seed = LayerReader(self.adapter.model, layers), subject.seed

    def __call__(self, table: pa.Table) -> pa.Table:
        ids = table["id"].to_pylist()
        if not ids:
            return table.select(["id"])
        inputs = _inputs(self.adapter, table)
        reading = self.reader.read(inputs)
        columns: dict[str, Any] = {"id": pa.array(ids), "logits": _lists(reading.logits)}
        columns |= {f"activation.{layer}": _lists(reading.activations[layer]) for layer in self.layers}
        wanted = np.array([i in self.gradient_ids for i in ids])
        gradients = self._gradients(inputs, wanted)
        with randomised(self.adapter.head, self.seed):
            shuffled = self._gradients(inputs, wanted)
        for kind, found in (("gradient", gradients), ("randomised", shuffled)):
            columns |= {f"{kind}.{layer}": _holed(found.get(layer), wanted) for layer in self.layers}
        return pa.table(columns)

    def _gradients(self, inputs: torch.Tensor, wanted: np.ndarray) -> dict[str, np.ndarray]:
        if not wanted.any():
            return {}
        classes = range(len(self.adapter.classes))
        read = self.reader.read(inputs[torch.from_numpy(wanted)], classes).gradients
        return {layer: g.transpose(1, 0, 2).reshape(g.shape[1], -1) for layer, g in read.items()}


class ReadExamples:
    """Actor: labelled clips -> logits, and of some the gradient of their own class's logit."""

    def __init__(self, subject: Subject, layers: Sequence[str], classes: Sequence[str], wanted: frozenset[str]):
        self.adapter, self.layers, self.wanted = subject.build(), tuple(layers), wanted
        self.adapter.model.to(device_for(subject.section.resources, "tcav.resources"))
        self.reader = LayerReader(self.adapter.model, layers)
        known = {name.lower(): k for k, name in enumerate(self.adapter.classes)}
        self.index = [known.get(name.lower(), -1) for name in classes]

    def __call__(self, table: pa.Table) -> pa.Table:
        ids = table["id"].to_pylist()
        if not ids:
            return table.select(["id"])
        inputs, labels = _inputs(self.adapter, table), np.array(table["label"].to_pylist())
        logits = self.reader.read(inputs).logits
        own = np.array([self.index[k] for k in labels])
        found: dict[str, list[list[float] | None]] = {layer: [None] * len(ids) for layer in self.layers}
        wanted = np.array([i in self.wanted for i in ids]) & (own >= 0)
        for c in np.unique(own[wanted]):
            rows = np.flatnonzero(wanted & (own == c))
            read = self.reader.read(inputs[torch.from_numpy(rows)], [int(c)]).gradients
            for layer in self.layers:
                for row, gradient in zip(rows, read[layer][0], strict=True):
                    found[layer][row] = gradient.tolist()
        columns: dict[str, Any] = {"id": pa.array(ids), "label": pa.array(labels), "logits": _lists(logits)}
        columns |= {f"gradient.{layer}": pa.array(g, pa.list_(pa.float32())) for layer, g in found.items()}
        return pa.table(columns)


def _inputs(adapter: Adapter, table: pa.Table) -> torch.Tensor:
    waves = [np.frombuffer(w, np.int16).astype(np.float32) / 32768 for w in table["wave"].to_pylist()]
    return adapter.prepare(waves).to(next(adapter.model.parameters()).device)


def _lists(matrix: np.ndarray) -> pa.Array:
    return pa.array(list(matrix.astype(np.float32)), pa.list_(pa.float32()))


def _holed(matrix: np.ndarray | None, wanted: np.ndarray) -> pa.Array:
    values: list[np.ndarray | None] = [None] * len(wanted)
    for row, vector in zip(np.flatnonzero(wanted), () if matrix is None else matrix, strict=True):
        values[row] = vector.astype(np.float32)
    return pa.array(values, pa.list_(pa.float32()))


def read_concepts(subject: Subject, rows: Dataset, ids: Sequence[str], run: RunDir) -> None:
    """Read the concept clips into the run; the gradients of `gradient_clips` of them, drawn by id."""
    drawn = sorted(ids, key=lambda i: derive(subject.seed, "gradient clip", i))[: subject.section.gradient_clips]
    _write(rows, ReadConcepts, (subject, subject.layers, frozenset(drawn)), subject, run, *CONCEPT)


def read_examples(subject: Subject, rows: Dataset, classes: Sequence[str], wanted: set[str], run: RunDir) -> None:
    """Read labelled clips into the run.

    Raises:
        InputError: the classifier knows none of the labels.
    """
    known = {name.lower() for name in subject.adapter.classes}
    if not known & {name.lower() for name in classes}:
        raise InputError(
            "tcav.clips", f"has labels {list(classes)}, none of which the classifier knows", f"It knows {sorted(known)}"
        )
    _write(rows, ReadExamples, (subject, subject.layers, classes, frozenset(wanted)), subject, run, *EXAMPLES)


def _write(rows: Dataset, actor: type, arguments: tuple, subject: Subject, run: RunDir, *parts: str) -> None:
    run.delete(*parts)
    run.fs.create_dir(run.path(*parts), recursive=True)
    read = rows.map_batches(
        actor, fn_constructor_args=arguments, batch_format="pyarrow", **pool_arguments(subject.section.resources)
    )
    read.write_parquet(run.path(*parts), filesystem=run.fs, ray_remote_args={"num_cpus": TASK_CPUS})


class Readings:
    """What was read, column by column; a layer is in memory only while it is analysed."""

    def __init__(self, run: RunDir, classes: Sequence[str], labels: Sequence[str]):
        self.run, self.classes, self.labels = run, tuple(classes), tuple(labels)
        ids = self._column(CONCEPT, "id").to_pylist()
        self._order = np.argsort(ids)  # rows come back in any order
        self.ids = [ids[i] for i in self._order]

    @cached_property
    def logits(self) -> np.ndarray:
        """float32 (num_concept_clips, num_classes)."""
        found = _matrix(self._column(CONCEPT, "logits"))[self._order]
        check_activations(found, "the classifier's logits")
        return found

    def activations(self, layer: str) -> np.ndarray:
        """float32 (num_concept_clips, dim)."""
        found = _matrix(self._column(CONCEPT, f"activation.{layer}"))[self._order]
        check_activations(found, f"layer {layer!r}")
        return found

    def mean_gradients(self, layer: str, *, with_randomised_head: bool = False) -> np.ndarray:
        """float64 (num_classes, dim): each logit's gradient, averaged over concept clips."""
        kind = "randomised" if with_randomised_head else "gradient"
        known = self._column(CONCEPT, f"{kind}.{layer}").drop_null()
        found = _matrix(known).reshape(len(known), len(self.classes), -1)
        if not with_randomised_head:
            for c, name in enumerate(self.classes):
                check_gradients(found[:, c], layer, name)
        return found.mean(0, dtype=np.float64)

    def class_gradients(self, layer: str) -> Mapping[str, np.ndarray]:
        """class -> float32 (num_clips, dim): gradients of a class's logit on clips of that class."""
        column, label = self._column(EXAMPLES, f"gradient.{layer}"), self._column(EXAMPLES, "label").to_numpy()
        known = ~column.is_null().to_numpy(zero_copy_only=False)
        gradients, own = _matrix(column.drop_null()), label[known]
        return {name: gradients[own == k] for k, name in enumerate(self.labels) if (own == k).any()}

    def predictions(self) -> tuple[list[str], list[str]]:
        """Label and predicted class of every example."""
        label = self._column(EXAMPLES, "label").to_pylist()
        best = _matrix(self._column(EXAMPLES, "logits")).argmax(1)
        return [self.labels[k] for k in label], [self.classes[k] for k in best]

    def _column(self, parts: tuple[str, ...], name: str) -> pa.ChunkedArray:
        files = self.run.files(*parts, suffix=".parquet")
        held = [f for f in files if pq.read_metadata(f, filesystem=self.run.fs).num_rows]
        tables = [pq.read_table(f, columns=[name], filesystem=self.run.fs, partitioning=None) for f in held]
        return pa.concat_tables(tables)[name].combine_chunks()


def _matrix(column: Any) -> np.ndarray:
    """float32 (num_rows, dim) from lists of one length."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.asarray(array.flatten(), dtype=np.float32).reshape(len(array), -1)
