"""The taxonomy's rows -> a fitted model of tag sets."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa

from conceptcaps.config.root import Config
from conceptcaps.config.vae import VaeConfig
from conceptcaps.pipelines.artefacts import read_matrix, read_vocabulary, write_table
from conceptcaps.rundir import RunDir
from conceptcaps.seeding import derive
from conceptcaps.vocabulary import Vocabulary

if TYPE_CHECKING:
    from conceptcaps.vae.model import BetaVAE
    from conceptcaps.vae.weights import FittedModel

logger = logging.getLogger(__name__)

MODEL = ("vae", "model.safetensors")
MAPPED_ROWS = 1500
"""Rows on the maps of the latent space."""


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
