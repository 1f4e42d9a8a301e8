"""Vocabulary and rows -> model of tag sets -> specs."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from conceptcaps import pairs, schema
from conceptcaps.config.root import Config
from conceptcaps.config.specs import SpecsConfig
from conceptcaps.config.vae import VaeConfig
from conceptcaps.contradictions import Contradictions
from conceptcaps.errors import InputError
from conceptcaps.rundir import RunDir
from conceptcaps.seeding import derive, row_identity
from conceptcaps.shards import FOLDER as SHARDS
from conceptcaps.vocabulary import CATEGORIES, Vocabulary, aspects_column

if TYPE_CHECKING:
    from conceptcaps.vae.calibration import Calibration
    from conceptcaps.vae.mixture import MixtureProposer
    from conceptcaps.vae.model import BetaVAE
    from conceptcaps.vae.sampling import Proposer, Rules, Sampler, VaeProposer
    from conceptcaps.vae.weights import FittedModel

logger = logging.getLogger(__name__)

MODEL = ("vae", "model.safetensors")
CHUNKS_PER_FILE = 16
ROW_GROUP = 1024
"""Rows per row group of the specs: the least that a read task of the streaming plan reads."""
MAPPED_ROWS = 1500
"""Rows on the maps of the latent space."""
_IN_FLIGHT = 4


def run_vae(config: Config, run: RunDir) -> dict[str, Any]:
    """Fit the model of tag sets on the taxonomy's rows and write it below `vae/`.

    Returns:
        Facts for the manifest: rows, epochs, held-out nats per row.

    Raises:
        InputError: the taxonomy stage has not run, or its rows are too few.
    """
    from conceptcaps.vae.train import forget_checkpoint
    from conceptcaps.vae.weights import write_model

    vocabulary = read_vocabulary(run)
    matrix = read_matrix(run, vocabulary)
    seed = derive(config.seed, "vae")
    history: list[Any]
    if config.vae.model == "mixture":
        models, history = [fit_mixture_model(matrix, vocabulary, config.vae, seed)], []
    else:
        models, history = _fit_sweep(matrix, vocabulary, config.vae, run, seed)
        _write_latents(models, matrix[:MAPPED_ROWS], config.vae.maps, run, seed)
    for fitted in models[1:]:
        write_model(fitted, run, "vae", "sweep", f"beta-{fitted.facts['beta']:g}.safetensors")
    facts = {"model": config.vae.model, "rows": len(matrix)}
    run.write_json({**facts, "members": [fitted.facts for fitted in models]}, "vae", "metrics.json")
    run.write_json(history, "vae", "history.json")
    write_model(models[0], run, *MODEL)
    forget_checkpoint(run)
    return {**facts, **models[0].facts}


def fit_mixture_model(matrix: np.ndarray, vocabulary: Vocabulary, config: VaeConfig, seed: int) -> FittedModel:
    """Fit the default model on uint8 (num_rows, num_tags) rows."""
    from conceptcaps.vae.mixture import MixtureSettings, fit_mixture
    from conceptcaps.vae.train import split
    from conceptcaps.vae.weights import FittedModel

    split(len(matrix), config.validation_fraction, seed)  # refuses too few rows
    settings = MixtureSettings(validation_fraction=config.validation_fraction, **config.mixture.model_dump())
    model, facts = fit_mixture(matrix, settings, seed)
    return FittedModel.of(model, vocabulary, matrix, **facts)


def _fit_sweep(
    matrix: np.ndarray, vocabulary: Vocabulary, config: VaeConfig, run: RunDir, seed: int
) -> tuple[list[FittedModel], list[dict[str, Any]]]:
    """The beta-VAE at `beta`, then at each of `betas`, and the history of their fit."""
    from conceptcaps.vae.analysis import describe_vae
    from conceptcaps.vae.train import split, train_on_ray
    from conceptcaps.vae.weights import FittedModel, member

    state = train_on_ray(matrix, config, run, seed)
    _, held = split(len(matrix), config.validation_fraction, seed)
    models = []
    for i, beta in enumerate((config.beta, *config.betas)):
        single = member(state.model, i)
        facts = describe_vae(single, matrix[held], vocabulary, config.importance_samples, derive(seed, "report"))
        facts = {"beta": beta, "epochs": int(state.best_epoch[i]), **facts}
        models.append(FittedModel.of(single, vocabulary, matrix, **facts))
    return models, state.history


def _write_latents(models: list[FittedModel], matrix: np.ndarray, maps: Sequence[str], run: RunDir, seed: int) -> None:
    """`vae/latents.parquet`: by beta, each row's genre and place on each map; a PNG of each map, a panel per beta."""
    from conceptcaps.comparison.plots import latent_maps
    from conceptcaps.vae.analysis import genre_of, latents, project

    vocabulary = models[0].vocabulary
    genres = genre_of(matrix, vocabulary)
    names = [vocabulary.tags[g] if g >= 0 else None for g in genres]
    means = {fitted.facts["beta"]: latents(cast("BetaVAE", fitted.model), matrix) for fitted in models}
    columns: dict[str, Any] = {"beta": np.repeat(list(means), len(matrix)), "genre": names * len(means)}
    for method in dict.fromkeys(_available(maps)):
        points = {f"beta {beta:g}": project(rows, method, seed % 2**32) for beta, rows in means.items()}
        x, y = np.concatenate(list(points.values())).T
        columns |= {f"{method}_x": x, f"{method}_y": y}
        sink = io.BytesIO()
        latent_maps(points, genres, vocabulary).savefig(sink, format="png", dpi=120)
        run.write_bytes(sink.getvalue(), "vae", f"latents_{method}.png")
    write_table(pa.table(columns), run, "vae", "latents.parquet")


def _available(maps: Sequence[str]) -> Iterator[Any]:
    for method in maps:
        if method == "umap" and find_spec("umap") is None:
            logger.info("umap-learn is not installed, so the map is t-SNE: pip install 'conceptcaps[metrics]'")
            yield "tsne"
        else:
            yield method


def run_specs(config: Config, run: RunDir) -> dict[str, Any]:
    """Sample `specs.num_samples` tag sets, and the counterfactual pairs, into `specs/*.parquet`, in `schema.SPECS`.

    Row i is the same whatever `num_samples`: a longer run extends a shorter one. Files are made in parallel where Ray
    runs; at most a few are in memory.

    Returns:
        Facts for the manifest: rows, files, acceptance.

    Raises:
        InputError: the model is not there, or the rules leave nothing to sample.
    """
    sampler = make_sampler(config, run)
    total = config.specs.num_samples
    jobs = [(file, *bounds) for file, bounds in enumerate(file_bounds(total))]
    kept = _refuse_other_rows(sampler, config, run)
    if not kept:
        run.delete("specs")
    elif config.specs.max_per_set is None:
        jobs = [job for job in jobs if job[-1] > kept]
    if config.specs.max_per_set is not None:
        _write_limited(sampler, config, run, jobs)
    elif ray.is_initialized() and len(jobs) > 1:
        _write_in_parallel(sampler, config, run, jobs)
    else:
        for job in jobs:
            write_file(sampler, run.location, config.seed, *job)
    rare = write_rare(sampler, config, run)
    num_pairs = write_pairs(sampler, config, run)
    num_rows = total + rare.get("rows_for_rare_tags", 0) + 2 * num_pairs
    facts = {"rows": num_rows, "files": len(file_bounds(total)), "acceptance": sampler.acceptance, **rare}
    return facts | ({"counterfactual_pairs": num_pairs} if num_pairs else {})


def _refuse_other_rows(sampler: Sampler, config: Config, run: RunDir) -> int:
    """How many specs a run has whose rows are made already: they stay, and sampling must give them again.

    Raises:
        InputError: it does not, for one because this version samples otherwise.
    """
    # Pairs and rows for rare tags stand in files of their own and are made by other rules.
    paths = [path for path in run.files("specs", suffix=".parquet") if "/part-" in path]
    if not paths or not run.files(SHARDS, suffix=".parquet"):
        return 0
    total = sum(pq.read_metadata(path, filesystem=run.fs).num_rows for path in paths)
    begin, end = file_bounds(total)[-1]
    if config.specs.max_per_set is None:  # there, a row depends on all before it
        before = pq.read_table(paths[-1], filesystem=run.fs, partitioning=None)
        if not before.equals(specs_table(sampler.rows(begin, end), sampler.rules.vocabulary, config.seed, begin)):
            raise InputError(
                run.uri("specs"),
                "are not what this version samples, and rows are made of them",
                "Go on with the version in the manifest, or give a new --run-dir",
            )
    return total


def file_bounds(total: int) -> list[tuple[int, int]]:
    """Row ranges of the files of `total` specs."""
    from conceptcaps.vae.sampling import CHUNK

    size = CHUNK * CHUNKS_PER_FILE
    return [(begin, min(begin + size, total)) for begin in range(0, total, size)]


def write_file(sampler: Sampler, location: str, run_seed: int, file: int, begin: int, end: int) -> int:
    """Sample rows [begin, end) and write them as one file; returns their number."""
    table = specs_table(sampler.rows(begin, end), sampler.rules.vocabulary, run_seed, begin)
    write_table(table, RunDir(location), "specs", f"part-{file:05d}.parquet")
    return table.num_rows


def _write_in_parallel(sampler: Sampler, config: Config, run: RunDir, jobs: list[tuple[int, int, int]]) -> None:
    task, shared = ray.remote(write_file), ray.put(sampler)
    running: list[ray.ObjectRef] = []
    for job in jobs:
        if len(running) >= max(_IN_FLIGHT, 2 * int(ray.cluster_resources().get("CPU", 1))):
            done, running = ray.wait(running)
            ray.get(done)
        running.append(task.remote(shared, run.location, config.seed, *job))
    ray.get(running)


def _write_limited(sampler: Sampler, config: Config, run: RunDir, jobs: list[tuple[int, int, int]]) -> None:
    """One file after the other: which sets are used up depends on all rows before."""
    from conceptcaps.vae.limits import SetLimit
    from conceptcaps.vae.sampling import CHUNK

    assert config.specs.max_per_set is not None
    limit = SetLimit(config.specs.max_per_set)
    for file, begin, end in jobs:
        chunks = range(begin // CHUNK, -(-end // CHUNK))
        rows = np.concatenate([limit.apply(sampler.chunk(i), partial(sampler.chunk, i)) for i in chunks])
        table = specs_table(rows[: end - begin], sampler.rules.vocabulary, config.seed, begin)
        write_table(table, run, "specs", f"part-{file:05d}.parquet")


def write_rare(sampler: Sampler, config: Config, run: RunDir) -> dict[str, Any]:
    """Write `specs/rare.parquet`, rows for the tags that fewer than `specs.min_positives` rows hold; returns facts.

    Rows of an earlier, shorter run stay, because clips may have been made of them.
    """
    from conceptcaps.vae.limits import SetLimit
    from conceptcaps.vae.rare import lift

    if not config.specs.min_positives:
        return {}
    vocabulary, parts = sampler.rules.vocabulary, ("specs", "rare.parquet")
    limit = SetLimit(config.specs.max_per_set) if config.specs.max_per_set is not None else None
    counts = np.zeros(len(vocabulary), np.int64)
    for path in [p for p in run.files("specs", suffix=".parquet") if "part-" in p.rpartition("/")[2]]:
        for lists in aspect_lists(run, path):
            rows = encode_lists(lists, vocabulary)
            counts += rows.sum(0, dtype=np.int64)
            if limit is not None:
                limit.add(rows)
    seed = derive(config.seed, "specs", "rare")
    added, lacking = lift(sampler, counts, config.specs.min_positives, seed, limit)
    tables = [rare_table(rows, tag, vocabulary, config.seed) for tag, rows in added]
    if run.exists(*parts):
        before = pq.read_table(run.path(*parts), filesystem=run.fs, partitioning=None)
        tables = [before, *(t.filter(pc.invert(pc.is_in(t["id"], value_set=before["id"]))) for t in tables)]
    if tables:
        write_table(pa.concat_tables(tables), run, *parts)
    for tag, why in lacking.items():
        logger.warning("specs.min_positives: tag %r has %s", tag, why)
    return {"rows_for_rare_tags": sum(map(len, tables)), "tags_with_too_few_rows": lacking}


def rare_table(rows: np.ndarray, tag: str, vocabulary: Vocabulary, run_seed: int) -> pa.Table:
    """A table in `schema.SPECS` of uint8 (num_rows, num_tags) rows drawn given `tag`, by their number alone."""
    seeds = [derive(run_seed, "rare", tag, number) for number in range(len(rows))]
    return _table_of_sets(rows, vocabulary, [f"rare-{seed:016x}" for seed in seeds], seeds, [None] * len(rows))


def write_pairs(sampler: Sampler, config: Config, run: RunDir) -> int:
    """Write `specs/twins.parquet`, the pairs of every tag of `specs.counterfactual`; returns their number.

    Raises:
        InputError: a tag that is not in the vocabulary, or that no set can do without.
    """
    from conceptcaps.vae.counterfactual import twins

    vocabulary = sampler.rules.vocabulary
    tables = []
    for tag in config.specs.counterfactual:
        rows = twins(sampler, tag, config.specs.counterfactual_pairs, derive(config.seed, "specs", "pairs", tag))
        tables.append(pairs_table(rows, tag, vocabulary, config.seed))
    if tables:
        # The name comes after the others': the first rows of a run, which calibrate it, are independent ones.
        write_table(pa.concat_tables(tables), run, "specs", "twins.parquet")
    return sum(map(len, tables)) // 2


def pairs_table(rows: np.ndarray, tag: str, vocabulary: Vocabulary, run_seed: int) -> pa.Table:
    """A table in `schema.SPECS` of uint8 (num_pairs, num_tags) rows that have `tag`, each followed by its twin."""
    matrix = np.repeat(rows, 2, axis=0)
    matrix[1::2, vocabulary.index[tag]] = 0
    names = [pairs.pair_id(tag, number) for number in range(len(rows))]
    seeds = [pairs.pair_seed(run_seed, name) for name in names]
    identities = [
        (row_id, seed, name) for name, seed in zip(names, seeds, strict=True) for row_id in pairs.row_ids(seed)
    ]
    return _table_of_sets(matrix, vocabulary, *map(list, zip(*identities, strict=True)))


def make_sampler(config: Config, run: RunDir) -> Sampler:
    """The sampler that the configuration asks for, over the run's fitted model."""
    from conceptcaps.vae.weights import read_model

    return sampler_of(read_model(run, *MODEL), config.specs, read_contradictions(run), derive(config.seed, "specs"))


def sampler_of(fitted: FittedModel, specs: SpecsConfig, contradictions: Contradictions, seed: int) -> Sampler:
    """A sampler over a fitted model: rules, calibration, balancing.

    Raises:
        InputError: a rule or a method that the model cannot follow.
    """
    from conceptcaps.vae.sampling import Rules, Sampler

    rules = Rules(fitted.vocabulary, contradictions, specs.min_categories, specs.max_tags, specs.seed_tags)
    proposer = make_proposer(fitted, specs)
    found = calibrated(fitted, proposer, rules, specs, seed)
    return Sampler(proposer.tilted(found.tilt), rules, seed, found.size_log_ratio)


def calibrated(fitted: FittedModel, proposer: Proposer, rules: Rules, specs: SpecsConfig, seed: int) -> Calibration:
    """The calibration that the configuration asks for; none for thresholded sampling."""
    from conceptcaps.vae.calibration import Targets, balanced, calibrate

    if specs.method == "threshold":
        return calibrate(proposer, rules, Targets(), seed)
    rebalanced = specs.rarity_temperature != 1 or specs.min_share > 0
    wanted = balanced(fitted.marginals, specs.rarity_temperature, specs.min_share)
    # Balancing adds tags; forcing the training sizes on it would take them away again.
    sizes = fitted.sizes if specs.calibrate_sizes and not rebalanced else None
    return calibrate(proposer, rules, Targets(wanted if specs.calibrate_marginals or rebalanced else None, sizes), seed)


def make_proposer(fitted: FittedModel, specs: SpecsConfig) -> MixtureProposer | VaeProposer:
    """The model as a source of draws."""
    from conceptcaps.vae.mixture import MixtureProposer, TagMixture
    from conceptcaps.vae.sampling import VaeProposer

    if not isinstance(fitted.model, TagMixture):
        return VaeProposer(fitted.model, specs.method, specs.threshold, specs.temperature)
    if specs.method == "threshold":
        raise InputError("key 'specs.method'", "is 'threshold', which a mixture has not", "Set vae.model to 'beta_vae'")
    return MixtureProposer(fitted.model, specs.temperature)


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
    parts = [encode_lists(column, vocabulary) for path in files for column in aspect_lists(run, path)]
    matrix = np.concatenate(parts) if parts else np.zeros((0, len(vocabulary)), np.uint8)
    if not len(matrix):
        raise InputError(
            run.uri("taxonomy", "rows"), "holds no rows", "Run the taxonomy stage on annotations that match"
        )
    return matrix


def aspect_lists(run: RunDir, path: str) -> Iterator[pa.Array]:
    """The `aspect_list` column of one Parquet file, batch by batch."""
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
    ids, seeds = zip(*(row_identity(run_seed, begin + i) for i in range(len(matrix))), strict=True)
    return _table_of_sets(matrix, vocabulary, ids, seeds, [None] * len(matrix))


def _table_of_sets(
    matrix: np.ndarray, vocabulary: Vocabulary, ids: Sequence[str], seeds: Sequence[int], pair_ids: Sequence[str | None]
) -> pa.Table:
    columns: dict[str, Any] = {"id": pa.array(ids), "seed": pa.array(seeds, pa.int64())}
    columns["aspect_list"] = _lists(matrix, vocabulary.tags)
    for k, category in enumerate(CATEGORIES):
        chosen = vocabulary.category_indices == k
        columns[aspects_column(category)] = _lists(matrix[:, chosen], vocabulary.tags_by_category[category])
    columns["pair_id"] = pa.array(pair_ids, pa.string())
    return pa.table(columns).select(schema.SPECS.names).cast(schema.SPECS)


def _lists(matrix: np.ndarray, tags: tuple[str, ...]) -> pa.ListArray:
    offsets = np.concatenate([[0], np.cumsum(matrix.sum(1, dtype=np.int64))]).astype(np.int32)
    values = pa.array(tags, pa.string()).take(pa.array(np.nonzero(matrix)[1]))
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def write_table(table: pa.Table, run: RunDir, *parts: str) -> None:
    """Write a table as one Parquet file, whole or not at all."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=ROW_GROUP)
    run.write_bytes(sink.getvalue(), *parts)
