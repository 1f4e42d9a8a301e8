"""A run's artefacts to the page."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from conceptcaps import shards
from conceptcaps.config import Config
from conceptcaps.errors import InputError
from conceptcaps.pipelines.artefacts import read_matrix
from conceptcaps.pipelines.vae import MODEL
from conceptcaps.provenance import models
from conceptcaps.report import gather as read
from conceptcaps.report import sections
from conceptcaps.report.audio import quality
from conceptcaps.report.captions import caption_systems
from conceptcaps.report.page import add_media, render
from conceptcaps.report.sections import Latents, Section
from conceptcaps.report.tcav import Cells, cells_of
from conceptcaps.rundir import Manifest, RunDir
from conceptcaps.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

PAGE = ("report", "index.html")
_LATENT_ROWS = 2000


def run_report(config: Config, run: RunDir) -> dict[str, Any]:
    """Write `report/index.html`; returns its size and what it holds.

    Raises:
        InputError: the run has no shards, or one of them cannot be read.
    """
    if not read.has_shards(run):
        raise InputError(run.uri(shards.FOLDER), "holds no Parquet files", "Run `conceptcaps generate` first")
    vocabulary = read.vocabulary_of(run)
    gathered = read.gather(run, vocabulary, config.report.num_examples)
    media = add_media(run, gathered.examples, config.report)
    manifest = Manifest(run)
    made = f"{manifest.data['created'][:16].replace('T', ' ')} UTC, ConceptCaps {manifest.data['code']}"
    text = render(config.name, made, all_sections(config, run, gathered, vocabulary), gathered.examples, media)
    run.write_bytes(text.encode(), *PAGE)
    return {"counts": {"examples": len(gathered.examples), "players": len(media)}, "bytes": len(text.encode())}


def all_sections(config: Config, run: RunDir, gathered: read.Gathered, vocabulary: Vocabulary) -> list[Section]:
    """The page from top to bottom, less the examples."""
    source = read.source_tags(run, vocabulary)
    absolute = config.alignment.threshold.value if config.alignment.threshold.method == "absolute" else None
    calibration = read.read_optional(run, "alignment", "calibration.json")
    manifest = Manifest(run).data
    num_tags = config.report.num_tags
    return [
        sections.pipeline(gathered, shards.count_specs(run)),
        sections.tags(gathered.tags, source, num_tags),
        sections.co_occurrence(gathered.tags, source, num_tags),
        sections.latent_space(latents(run), read.read_optional(run, "vae", "metrics.json")),
        sections.comparison(read.read_table(run, "comparison", "figures.parquet")),
        sections.captions(gathered),
        caption_systems(read.read_optional(run, "captions", "evaluation.json")),
        sections.alignment(gathered, calibration, absolute),
        quality(
            read.read_optional(run, "quality", "results.json"), read.read_table(run, "quality", "concepts.parquet")
        ),
        sections.concepts(tcav_cells(run), why_left_out(manifest, "tcav")),
        sections.throughput(read.throughput(run), manifest["stages"]),
        sections.provenance(
            manifest, config.seed, manifest["stages"].get("generate", {}).get("models") or models(config)
        ),
    ]


def why_left_out(manifest: Mapping[str, Any], stage: str) -> str:
    """The reason that a run of several stages went on without one; '' where it did not."""
    record = manifest["stages"].get(stage, {})
    return record["why"] if record.get("state") == "left out" else ""


def tcav_cells(run: RunDir) -> Cells | None:
    """Effects at the deepest layer analysed."""
    results = read.read_optional(run, "tcav", "results.json") or {}
    rows = read.read_table(run, "tcav", "effects.parquet")
    layers = list(results.get("layers", {}))
    return cells_of(rows, layers[-1] if layers else None)


def latents(run: RunDir) -> Latents | None:
    """Source rows under the run's model, projected: posterior means of a beta-VAE, or for a model without a latent
    space the tags themselves. None where there is no model or no row."""
    if not (run.exists(*MODEL) and run.files("taxonomy", "rows", suffix=".parquet")):
        return None
    from conceptcaps.vae.model import BetaVAE
    from conceptcaps.vae.weights import read_model

    fitted = read_model(run, *MODEL)
    matrix = read_matrix(run, fitted.vocabulary)[:_LATENT_ROWS]
    labels = first_genres(matrix, fitted.vocabulary)
    if not isinstance(fitted.model, BetaVAE):
        return project(matrix.astype(np.float64), labels, is_latent=False)
    import torch

    with torch.inference_mode():
        means = fitted.model.encode(torch.from_numpy(matrix)[None].float())[0][0]
    return project(means.numpy(), labels)


def project(means: np.ndarray, labels: list[str], is_latent: bool = True) -> Latents:
    """The first two principal components of float (num_rows, dims)."""
    centred = means - means.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    share = s**2 / max(float((s**2).sum()), 1e-12)
    points, explained = (u * s)[:, :2], (*share[:2].tolist(), 0.0)[:2]
    if points.shape[1] == 1:
        points = np.pad(points, ((0, 0), (0, 1)))
    active = int((means.var(0) > 0.01).sum())
    return Latents(points, labels, (explained[0], explained[1]), active, means.shape[1], is_latent)


def first_genres(matrix: np.ndarray, vocabulary: Vocabulary) -> list[str]:
    """Each row's first genre, '' where it has none."""
    genres = vocabulary.tags_by_category["genre"]
    return [next((tag for tag in tags if tag in genres), "") for tags in vocabulary.decode(matrix)]
