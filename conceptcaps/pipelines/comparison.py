"""Held-out real rows against samplers fitted on the others, and the run's own specs beside them."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from conceptcaps.comparison.compare import Figure, Settings, as_rows, baselines, compare, floors, tag_table
from conceptcaps.comparison.measures import Reference
from conceptcaps.config.root import Config
from conceptcaps.config.specs import SpecsConfig
from conceptcaps.config.vae import VaeConfig
from conceptcaps.contradictions import Contradictions
from conceptcaps.pipelines.artefacts import (
    aspect_lists,
    encode_lists,
    read_contradictions,
    read_matrix,
    read_vocabulary,
    write_table,
)
from conceptcaps.pipelines.specs import calibrated, make_proposer, sampler_of
from conceptcaps.pipelines.vae import fit_mixture_model
from conceptcaps.rundir import RunDir
from conceptcaps.seeding import derive
from conceptcaps.vocabulary import Vocabulary

if TYPE_CHECKING:
    from conceptcaps.vae.weights import FittedModel

logger = logging.getLogger(__name__)

OWN_SPECS = "specs (fitted on all rows)"


@dataclass(frozen=True)
class Sampled:
    """What one sampler gives a comparison.

    Attributes:
        rows: uint8 (num_rows, num_tags).
        nats: held-out nats per row of the model, and of its calibrated sampler; empty where there is no density.
    """

    rows: np.ndarray
    nats: dict[str, float]


def run_comparison(config: Config, run: RunDir) -> dict[str, Any]:
    """Compare samplers with real rows that they have not seen; write `comparison/`.

    Every model of the table is fitted anew on the rows that are not held out. Writes `results.json`,
    `figures.parquet` (one row per sampler and metric), `tags.parquet` (per sampler and tag) and a PNG per plot.

    Returns:
        Facts for the manifest: rows, held-out nats, verdicts counted.

    Raises:
        InputError: the taxonomy stage has not run, or its rows are too few.
    """
    vocabulary = read_vocabulary(run)
    matrix = read_matrix(run, vocabulary)
    reference = hold_out(matrix, vocabulary, read_contradictions(run), config)
    samplers = sample_all(reference, config, derive(config.seed, "comparison"))
    own = _own_rows(run, vocabulary, len(reference.train))
    made = {name: sampled.rows for name, sampled in samplers.items()} | own
    settings = Settings(config.comparison.num_bootstrap, config.comparison.confidence, config.comparison.min_support)
    seed = derive(config.seed, "comparison")
    floor = floors(reference, settings, seed)
    figures = [f for name, rows in made.items() for f in compare(reference, rows, name, floor, settings, seed)]
    nats = {name: sampled.nats for name, sampled in samplers.items() if sampled.nats}
    return _write(run, reference, made, figures, nats)


def hold_out(matrix: np.ndarray, vocabulary: Vocabulary, contradictions: Contradictions, config: Config) -> Reference:
    """Real rows, split at random by the run's seed."""
    from conceptcaps.vae.train import split

    train, held = split(len(matrix), config.comparison.holdout_fraction, derive(config.seed, "comparison"))
    return Reference(vocabulary, matrix[train], matrix[held], contradictions)


def sample_all(reference: Reference, config: Config, seed: int) -> dict[str, Sampled]:
    """Rows of every sampler that `comparison.samplers` names."""
    count = config.comparison.num_sampled or len(reference.train)
    plain = baselines(reference.train, count, seed)
    found: dict[str, Sampled] = {}
    for name in config.comparison.samplers:
        logger.info("comparison: sampling %s", name)
        if name in plain:
            found[name] = Sampled(plain[name], {})
        else:
            chosen = config.vae.model_copy(update={"model": name})
            found[name] = sample_model(reference, chosen, config.specs, count, derive(seed, name))
    return found


def sample_model(reference: Reference, config: VaeConfig, specs: SpecsConfig, num_rows: int, seed: int) -> Sampled:
    """Fit a model on the training rows, sample it as `specs` would, and measure it on the held-out rows."""
    fitted = fit_in_process(reference.train, reference.vocabulary, config, seed)
    return sample_fitted(fitted, reference, config, specs, num_rows, seed)


def sample_fitted(
    fitted: FittedModel, reference: Reference, config: VaeConfig, specs: SpecsConfig, num_rows: int, seed: int
) -> Sampled:
    """Sample a model of the training rows as `specs` would, and measure it on the held-out rows."""
    if config.model == "mixture":
        specs = specs.model_copy(update={"method": "bernoulli"})
    specs = specs.model_copy(update={"seed_tags": ()})
    sampler = sampler_of(fitted, specs, reference.contradictions, seed)
    return Sampled(sampler.rows(0, num_rows), held_out_nats(fitted, reference, specs, config, seed))


def fit_in_process(train: np.ndarray, vocabulary: Vocabulary, config: VaeConfig, seed: int) -> FittedModel:
    """Fit `config.model` on uint8 (num_rows, num_tags) rows, here and now."""
    import torch

    from conceptcaps.vae import train as training
    from conceptcaps.vae.weights import FittedModel, member

    if config.model == "mixture":
        return fit_mixture_model(train, vocabulary, config, seed)
    fitting, validation = training.split(len(train), config.validation_fraction, seed)
    rows = torch.from_numpy(train).float()
    state = training.fit(rows[fitting], rows[validation], config.model_copy(update={"betas": ()}), seed)
    return FittedModel.of(member(state.model, 0), vocabulary, train, epochs=state.epoch)


def held_out_nats(
    fitted: FittedModel, reference: Reference, specs: SpecsConfig, config: VaeConfig, seed: int
) -> dict[str, float]:
    """Mean nats per held-out row, lower is better.

    Returns:
        `model`: of the fitted density. `sampler`: of the density that is sampled, calibrated and conditioned on
        `min_categories`, over the held-out rows that satisfy it; contradictions are left out of it, because a real row
        that holds one would have density zero. Thresholded sampling has no density.
    """
    from conceptcaps.vae.likelihood import log_likelihood, sampler_log_likelihood
    from conceptcaps.vae.sampling import Rules

    samples = config.importance_samples
    nats = {"model": -float(log_likelihood(fitted.model, reference.held, samples, seed).mean())}
    if specs.method == "threshold" or specs.temperature != 1:
        return nats
    rules = Rules(fitted.vocabulary, None, specs.min_categories)
    proposer = make_proposer(fitted, specs)
    found = calibrated(fitted, proposer, rules, specs, seed)
    logs = sampler_log_likelihood(fitted.model, proposer, found, rules, reference.held, samples, seed)
    return nats | {"sampler": -float(logs[np.isfinite(logs)].mean())}


def _own_rows(run: RunDir, vocabulary: Vocabulary, most: int) -> dict[str, np.ndarray]:
    """The first of the run's specs, if it has any."""
    parts: list[np.ndarray] = []
    for path in run.files("specs", suffix=".parquet"):
        parts += [encode_lists(lists, vocabulary) for lists in aspect_lists(run, path)]
        if sum(map(len, parts)) >= most:
            break
    return {OWN_SPECS: np.concatenate(parts)[:most]} if sum(map(len, parts)) >= 50 else {}


def _write(
    run: RunDir, reference: Reference, made: dict[str, np.ndarray], figures: list[Figure], nats: dict[str, Any]
) -> dict[str, Any]:
    from conceptcaps.comparison import plots

    tags = [row for name, rows in made.items() for row in tag_table(reference, rows, name)]
    rejected = {name: sum(t["q_value"] < 0.05 for t in tags if t["sampler"] == name) for name in made}
    rows = {"train": len(reference.train), "held": len(reference.held), "sampled": {n: len(m) for n, m in made.items()}}
    results = {"rows": rows, "held_out_nats": nats, "tags_that_differ": rejected, "figures": as_rows(figures)}
    run.write_json(results, "comparison", "results.json")
    write_table(pa.Table.from_pylist(as_rows(figures)), run, "comparison", "figures.parquet")
    write_table(pa.Table.from_pylist(tags), run, "comparison", "tags.parquet")
    for name, figure in plots.all_plots(reference, made, figures).items():
        sink = io.BytesIO()
        figure.savefig(sink, format="png", dpi=120)
        run.write_bytes(sink.getvalue(), "comparison", f"{name}.png")
    counts: dict[str, dict[str, int]] = {}
    for figure_row in figures:
        of_sampler = counts.setdefault(figure_row.sampler, {})
        of_sampler[figure_row.verdict] = of_sampler.get(figure_row.verdict, 0) + 1
    return {"rows": rows, "held_out_nats": nats, "tags_that_differ": rejected, "verdicts": counts}
