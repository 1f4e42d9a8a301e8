"""A fitted model of tag sets -> specs: new sets of tags, each with an id and a seed."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from conceptcaps.config.root import Config
from conceptcaps.config.specs import SpecsConfig
from conceptcaps.contradictions import Contradictions
from conceptcaps.errors import InputError
from conceptcaps.pipelines.artefacts import aspect_lists, encode_lists, read_contradictions, write_table
from conceptcaps.pipelines.spec_tables import pairs_table, rare_table, specs_table
from conceptcaps.pipelines.vae import MODEL
from conceptcaps.rundir import RunDir
from conceptcaps.seeding import derive
from conceptcaps.shards import FOLDER as SHARDS

if TYPE_CHECKING:
    from conceptcaps.vae.calibration import Calibration
    from conceptcaps.vae.mixture import MixtureProposer
    from conceptcaps.vae.sampling import Proposer, Rules, Sampler, VaeProposer
    from conceptcaps.vae.weights import FittedModel

logger = logging.getLogger(__name__)

CHUNKS_PER_FILE = 16
_IN_FLIGHT = 4


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
