"""Vocabulary and rows -> model of tag sets -> specs."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from conceptcaps import schema
from conceptcaps.config.root import Config
from conceptcaps.config.specs import SpecsConfig
from conceptcaps.contradictions import Contradictions
from conceptcaps.errors import InputError
from conceptcaps.rundir import RunDir
from conceptcaps.seeding import derive, row_identity
from conceptcaps.vocabulary import CATEGORIES, Vocabulary, aspects_column

MODEL = ("vae", "model.safetensors")
ROWS_PER_FILE = 65_536


def run_vae(config: Config, run: RunDir) -> dict[str, Any]:
    """Fit the model of tag sets on the taxonomy's rows and write it below `vae/`.

    Returns:
        Facts for the manifest: rows, epochs, held-out bounds.

    Raises:
        InputError: the taxonomy stage has not run, or its rows are too few.
    """
    import torch

    from conceptcaps.vae.train import forget_checkpoint, split, train_on_ray
    from conceptcaps.vae.weights import member, write_vae

    vocabulary = read_vocabulary(run)
    matrix = read_matrix(run, vocabulary)
    seed = derive(config.seed, "vae")
    state = train_on_ray(matrix, config.vae, run, seed)
    _, held = split(len(matrix), config.vae.validation_fraction, seed)
    generator = torch.Generator().manual_seed(derive(seed, "report"))
    rows = torch.from_numpy(matrix[held]).float()
    bounds = state.model.iwae_bound(rows, config.vae.importance_samples, generator).mean(1)
    members = [
        {"beta": beta, "best_epoch": int(epoch), "validation_nats_per_row": -float(bound)}
        for beta, epoch, bound in zip((config.vae.beta, *config.vae.betas), state.best_epoch, bounds, strict=True)
    ]
    for i, facts in enumerate(members):
        place = MODEL if i == 0 else ("vae", "sweep", f"beta-{facts['beta']:g}.safetensors")
        write_vae(member(state.model, i), vocabulary, facts, run, *place)
    run.write_json({"members": members, "rows": len(matrix), "validation_rows": len(held)}, "vae", "metrics.json")
    run.write_json(state.history, "vae", "history.json")
    forget_checkpoint(run)
    return {"rows": len(matrix), "epochs": state.epoch, **members[0]}


def run_specs(config: Config, run: RunDir) -> dict[str, Any]:
    """Sample `specs.num_samples` tag sets into `specs/*.parquet`, in `schema.SPECS`.

    Row i is the same whatever `num_samples`: a longer run extends a shorter one.

    Returns:
        Facts for the manifest: rows, files, acceptance.

    Raises:
        InputError: the model is not there, or the rules leave nothing to sample.
    """
    sampler = make_sampler(config, run)
    total = config.specs.num_samples
    run.delete("specs")
    files = 0
    for files, begin in enumerate(range(0, total, ROWS_PER_FILE), start=1):
        matrix = sampler.rows(begin, min(begin + ROWS_PER_FILE, total))
        table = specs_table(matrix, sampler.rules.vocabulary, config.seed, begin)
        write_table(table, run, "specs", f"part-{files - 1:05d}.parquet")
    return {"rows": total, "files": files, "acceptance": sampler.acceptance}


def make_sampler(config: Config, run: RunDir) -> Any:
    """The sampler that the configuration asks for, over the run's fitted model."""
    from conceptcaps.vae.sampling import Sampler, VaeProposer
    from conceptcaps.vae.weights import read_vae

    model, vocabulary = read_vae(run, *MODEL)
    specs = config.specs
    proposer = VaeProposer(model, specs.method, specs.threshold, specs.temperature)
    return Sampler(proposer, make_rules(specs, vocabulary, read_contradictions(run)), derive(config.seed, "specs"))


def make_rules(specs: SpecsConfig, vocabulary: Vocabulary, contradictions: Contradictions) -> Any:
    from conceptcaps.vae.sampling import Rules

    return Rules(vocabulary, contradictions, specs.min_categories, specs.max_tags, specs.seed_tags)


def read_vocabulary(run: RunDir) -> Vocabulary:
    """The taxonomy stage's vocabulary."""
    parts = ("taxonomy", "concepts_to_tags.json")
    return Vocabulary.from_json(run.read_bytes(*parts), run.uri(*parts))


def read_contradictions(run: RunDir) -> Contradictions:
    """The taxonomy stage's table of contradictions."""
    parts = ("taxonomy", "contradictions.json")
    return Contradictions.from_json(run.read_bytes(*parts), run.uri(*parts))


def read_matrix(run: RunDir, vocabulary: Vocabulary) -> np.ndarray:
    """uint8 (num_rows, num_tags): the taxonomy stage's rows, multi-hot.

    Raises:
        InputError: there are no rows, or their files lack `aspect_list`.
    """
    files = run.files("taxonomy", "rows", suffix=".parquet")
    parts = [encode_lists(column, vocabulary) for path in files for column in _aspect_lists(run, path)]
    matrix = np.concatenate(parts) if parts else np.zeros((0, len(vocabulary)), np.uint8)
    if not len(matrix):
        raise InputError(
            run.uri("taxonomy", "rows"), "holds no rows", "Run the taxonomy stage on annotations that match"
        )
    return matrix


def _aspect_lists(run: RunDir, path: str) -> Iterator[pa.Array]:
    wanted = pa.schema([schema.SPECS.field("aspect_list")])
    with run.fs.open_input_file(path) as source:
        file = pq.ParquetFile(source)
        schema.check(file.schema_arrow, wanted, path)
        for batch in file.iter_batches(columns=["aspect_list"]):
            yield batch.column(0)


def encode_lists(lists: pa.ListArray, vocabulary: Vocabulary) -> np.ndarray:
    """uint8 (num_rows, num_tags) of an Arrow list<string> array; tags outside the vocabulary are left out."""
    lists = lists.fill_null(pa.scalar([], lists.type)) if lists.null_count else lists
    rows = np.repeat(np.arange(len(lists)), np.diff(lists.offsets.to_numpy()))
    columns = pc.index_in(lists.flatten(), value_set=pa.array(vocabulary.tags)).fill_null(-1).to_numpy()
    matrix = np.zeros((len(lists), len(vocabulary)), np.uint8)
    matrix[rows[columns >= 0], columns[columns >= 0]] = 1
    return matrix


def specs_table(matrix: np.ndarray, vocabulary: Vocabulary, run_seed: int, begin: int) -> pa.Table:
    """A table in `schema.SPECS` of multi-hot rows whose indices start at `begin`."""
    identities = [row_identity(run_seed, begin + i) for i in range(len(matrix))]
    columns: dict[str, Any] = {"id": [name for name, _ in identities], "seed": [seed for _, seed in identities]}
    columns["aspect_list"] = _lists(matrix, vocabulary.tags)
    for k, category in enumerate(CATEGORIES):
        chosen = vocabulary.category_indices == k
        columns[aspects_column(category)] = _lists(matrix[:, chosen], vocabulary.tags_by_category[category])
    columns["pair_id"] = pa.nulls(len(matrix), pa.string())
    return pa.table(columns).select(schema.SPECS.names).cast(schema.SPECS)


def _lists(matrix: np.ndarray, tags: tuple[str, ...]) -> pa.ListArray:
    offsets = np.concatenate([[0], np.cumsum(matrix.sum(1, dtype=np.int64))]).astype(np.int32)
    values = pa.array(tags, pa.string()).take(pa.array(np.nonzero(matrix)[1]))
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def write_table(table: pa.Table, run: RunDir, *parts: str) -> None:
    """Write a table as one Parquet file, whole or not at all."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    run.write_bytes(sink.getvalue(), *parts)
