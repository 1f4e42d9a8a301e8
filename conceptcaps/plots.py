"""Figures and tables from a run's artefacts, for notebooks: one call each, a clear message where one is absent."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from conceptcaps import schema, shards, signal
from conceptcaps.errors import InputError
from conceptcaps.pipelines.report import latents as project_latents
from conceptcaps.pipelines.report import tcav_cells
from conceptcaps.report import figures
from conceptcaps.report.gather import Gathered, attach_audio, gather, read_table, source_tags, throughput, vocabulary_of
from conceptcaps.report.media import mel_decibels
from conceptcaps.rundir import Manifest, RunDir

RUN_VARIABLE = "CONCEPTCAPS_RUN"
DEMO_RUN = "runs/demo"
_EXAMPLES = 200


def open_run(location: str | None = None) -> RunDir:
    """The run to look at: the one given, the one that CONCEPTCAPS_RUN names, or the demo's, made if it is absent."""
    given = location or os.environ.get(RUN_VARIABLE)
    run = RunDir(given or _checkout() / DEMO_RUN)
    if run.exists("manifest.json"):
        return run
    if given:
        raise InputError(str(run), "is no run directory", f"Set {RUN_VARIABLE} to one, or unset it for the demo's")
    from conceptcaps.cli import execute, resolve
    from conceptcaps.pipelines.stages import default_stages

    config = resolve(_checkout() / "configs" / "demo.yaml", run.location, None)
    return execute(config, default_stages(config), quiet=True)


def _checkout() -> Path:
    """The folder that holds configs/: the working directory of a notebook is notebooks/."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "configs" / "demo.yaml").exists()), here)


def stages(run: RunDir) -> pd.DataFrame:
    """State, seconds and counts of each stage."""
    rows = [
        {"stage": name, "state": facts.get("state"), "seconds": facts.get("seconds"), "counts": facts.get("counts")}
        for name, facts in Manifest(run).data["stages"].items()
    ]
    return pd.DataFrame(rows, columns=["stage", "state", "seconds", "counts"])


@lru_cache(maxsize=4)
def _gathered(location: str) -> Gathered:
    run = RunDir(location)
    return gather(run, vocabulary_of(run), _EXAMPLES)


def taxonomy(run: RunDir) -> pd.DataFrame:
    """Tags by category, and in how many source rows each stands."""
    vocabulary = vocabulary_of(run)
    source = source_tags(run, vocabulary)
    counts = source.counts.astype(int) if source else [None] * len(vocabulary)
    rows = {"tag": vocabulary.tags, "category": [vocabulary.category_of(t) for t in vocabulary.tags], "rows": counts}
    return pd.DataFrame(rows).sort_values("rows", ascending=False, ignore_index=True)


def tags(run: RunDir, num_tags: int = 30) -> Figure:
    """Share of rows with each frequent tag, in the source and in the accepted rows."""
    populations, shown, names = _populations(run, num_tags)
    return figures.tag_shares(names, {label: found.shares[shown] for label, found in populations.items()})


def set_sizes(run: RunDir) -> Figure:
    """How many tags a row has, in the source and in the accepted rows."""
    populations, _, _ = _populations(run, 1)
    return figures.set_sizes({label: found.sizes for label, found in populations.items()})


def co_occurrence(run: RunDir, num_tags: int = 30) -> Figure:
    """Phi of each two frequent tags, in the source and in the accepted rows."""
    populations, shown, names = _populations(run, num_tags)
    matrices = {label: found.phi()[np.ix_(shown, shown)] for label, found in populations.items()}
    return figures.heat_maps(names, matrices, "phi coefficient")


def _populations(run: RunDir, num_tags: int) -> tuple[dict[str, Any], np.ndarray, list[str]]:
    vocabulary = vocabulary_of(run)
    source = source_tags(run, vocabulary)
    populations = {"source": source} if source else {}
    if shards.attempts(run):
        populations["made"] = _gathered(run.location).tags
    if not populations:
        raise InputError(str(run), "has neither source rows nor shards", "Run `conceptcaps taxonomy` first")
    first = next(iter(populations.values()))
    shown = np.argsort(-first.counts, kind="stable")[:num_tags]
    return populations, shown, [vocabulary.tags[i] for i in shown]


def fit_curve(run: RunDir) -> Figure | None:
    """Validation bound by epoch; None where the model is not fitted by epochs."""
    history = run.read_json("vae", "history.json") if run.exists("vae", "history.json") else []
    if not history:
        return None
    bounds = np.array([np.atleast_1d(record["validation_bound"]) for record in history], dtype=float)
    series = {f"member {k}": bounds[:, k] for k in range(bounds.shape[1])}
    epochs = np.array([record["epoch"] for record in history])
    return figures.lines(epochs, series, "epoch", "validation bound, nats per row")


def latents(run: RunDir) -> Figure:
    """Source rows in the model's latent space, or where it has none by their tags, coloured by genre."""
    found = project_latents(run)
    if found is None:
        raise InputError(run.uri("vae"), "holds no model", "Run `conceptcaps vae` first")
    return figures.scatter(found.points, found.labels, found.explained)


def comparison(run: RunDir) -> pd.DataFrame:
    """Metrics by sampler, with intervals, the noise floor and the verdict."""
    return pd.DataFrame(read_table(run, "comparison", "figures.parquet"))


def examples(run: RunDir, number: int = 8, status: str = schema.ACCEPTED) -> pd.DataFrame:
    """Rows drawn at random, the same each time."""
    rows = [row for row in _gathered(run.location).examples if row["status"] == status][:number]
    return pd.DataFrame(rows, columns=["id", "caption", "aspect_list", "clap_score", "reason"])


def caption_lengths(run: RunDir) -> Figure:
    """Words of the accepted captions."""
    return figures.histograms({"accepted": _gathered(run.location).caption_words}, "words of a caption")


def caption_facts(run: RunDir) -> pd.DataFrame:
    """Distinct n-grams, and the share of tags that the captions say word for word."""
    found = _gathered(run.location)
    facts = {f"distinct-{n}": value for n, value in found.distinct.items()}
    return pd.DataFrame([facts | {"tags said": found.tags_said, "captions": len(found.caption_words)}])


def scores(run: RunDir) -> Figure:
    """Alignment scores of mismatched and matched pairs and of the rows, with the threshold."""
    found = _gathered(run.location)
    pairs, threshold = {}, None
    if run.exists("alignment", "calibration.json"):
        calibration = run.read_json("alignment", "calibration.json")
        pairs = {"mismatched": calibration["null_scores"], "matched": calibration["matched_scores"]}
        threshold = calibration["threshold"]
    rows = {status: found.scores[status] for status in (schema.ACCEPTED, schema.REJECTED)}
    return figures.histograms(pairs | rows, "cosine similarity of caption and audio", threshold)


def outcomes(run: RunDir) -> pd.DataFrame:
    """How many rows ended in each status, and why."""
    found = _gathered(run.location)
    rows = [{"status": status, "reason": "", "rows": number} for status, number in found.counts.statuses.items()]
    for status, reasons in found.reasons.items():
        rows += [{"status": status, "reason": reason, "rows": number} for reason, number in reasons.items()]
    return pd.DataFrame(rows, columns=["status", "reason", "rows"]).sort_values(["status", "reason"], ignore_index=True)


def clips(run: RunDir, number: int = 4) -> list[tuple[dict[str, Any], np.ndarray, int]]:
    """Accepted rows with their mono waveform and its rate in Hz."""
    rows = [dict(row) for row in _gathered(run.location).examples if row["status"] == schema.ACCEPTED][:number]
    decoded = [(row, *signal.decode(data)) for row, data in attach_audio(run, rows)]
    return [(row, signal.downmix(waveform), rate) for row, waveform, rate in decoded]


def spectrogram(mono: np.ndarray, rate: int, title: str = "") -> Figure:
    """Mel bands over time of a (samples,) waveform, decibels below the loudest."""
    figure = Figure(figsize=(8, 2.2), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(
        mel_decibels(mono, rate), origin="lower", aspect="auto", cmap="magma", extent=(0, len(mono) / rate, 0, 72)
    )
    axes.set(xlabel="seconds", ylabel="mel band", title=title[:90])
    figure.colorbar(image, ax=axes, label="dB")
    return figure


def speed(run: RunDir) -> Figure | None:
    """Rows written over time; None where there is one shard file or none."""
    found = throughput(run)
    if found is None:
        return None
    return figures.lines(found[0], {"rows": found[1]}, "minutes since the first shard", "rows written")


def splits(run: RunDir) -> pd.DataFrame:
    """Rows of each config and split of the finished dataset."""
    configs = run.read_json("dataset", "statistics.json")["configs"]
    return pd.DataFrame({name: {s: facts["rows"] for s, facts in parts.items()} for name, parts in configs.items()}).T


def split_rows(run: RunDir, config: str = "default", split: str = "train") -> pa.Table:
    """The rows of one config and split, as a user of the dataset reads them."""
    paths = [p for p in run.files("dataset", config, suffix=".parquet") if f"/{split}-" in p]
    return pa.concat_tables(pq.read_table(p, filesystem=run.fs, partitioning=None) for p in paths)


def balance(run: RunDir, split: str = "train") -> pd.DataFrame:
    """Concept sets: sizes, and standardised mean differences before and after matching."""
    found = run.read_json("dataset", "concept_sets", "balance.json")
    return pd.DataFrame({concept: by_split[split] for concept, by_split in found.items()}).T


def concept_effects(run: RunDir) -> Figure:
    """Effects of concepts on classes; a cross where an effect is not shown to be used."""
    cells = tcav_cells(run)
    if cells is None:
        raise InputError(run.uri("tcav"), "holds no concept effects", "Run `conceptcaps tcav` first")
    shown = cells.first(40)
    label = "effect on the logit, standard deviations"
    return figures.marked_heat_map(shown.concepts, shown.targets, shown.values, ~shown.significant, label)


def effects(run: RunDir) -> pd.DataFrame:
    """Every effect of a concept on a class, by layer, with its interval and verdict."""
    return pd.DataFrame(read_table(run, "tcav", "effects.parquet"))
