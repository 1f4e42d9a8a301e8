"""Samplers of tag sets against held-out real rows, by cross-validation: the README's table.

    python benchmarks/tagsets.py DISTILLED_CSV CONCEPTS_TO_TAGS_JSON [--folds 5] [--fold K] [--models mixture,beta_vae]

Every fold fits each model anew on the other rows with the package's default settings; a fit stops early on rows of its
own training part. Those settings were chosen on the held-out rows of folds 0 and 1 of the published rows, so the means
are given twice: over all folds, and over the later ones, whose held-out rows no choice has seen.

`--fold` measures one fold and puts it among those already in the result file. The floor compares the fold's real
training rows with its held-out rows; with `--halves` each fold is half of the rows, the split at which the noise floor
is lowest. `nats_model` is of the fitted density, and `nats_sampler` of the density that is sampled: calibrated, and
conditioned on tags in three categories, which all rows of the data have. The published project's own sampled tags are
no part of the data.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from machine import describe_machine

from conceptcaps.comparison.compare import Estimate, Settings, baselines, compare, floors
from conceptcaps.comparison.measures import Reference
from conceptcaps.config.specs import SpecsConfig
from conceptcaps.config.vae import VaeConfig
from conceptcaps.contradictions import Contradictions
from conceptcaps.pipelines.comparison import fit_in_process, sample_fitted
from conceptcaps.seeding import derive
from conceptcaps.vae.weights import FittedModel
from conceptcaps.vocabulary import Vocabulary

PUBLISHED = {
    "latent_dim": 128,
    "hidden_dim": 512,
    "dropout": 0.25,
    "beta": 0.25,
    "batch_size": 32,
    "learning_rate": 1e-3,
}
MODELS: dict[str, tuple[VaeConfig, SpecsConfig]] = {
    "mixture": (VaeConfig(), SpecsConfig()),
    "mixture (uncalibrated)": (VaeConfig(), SpecsConfig(calibrate_marginals=False, calibrate_sizes=False)),
    "beta_vae": (VaeConfig(model="beta_vae"), SpecsConfig()),
    "beta_vae as published": (
        VaeConfig(model="beta_vae", **PUBLISHED),
        SpecsConfig(calibrate_marginals=False, calibrate_sizes=False),
    ),
    "beta_vae as published (threshold)": (VaeConfig(model="beta_vae", **PUBLISHED), SpecsConfig(method="threshold")),
}
CHOSEN_ON = (0, 1)
SHOWN = (
    "auc_logistic",
    "auc_trees",
    "size_wasserstein",
    "marginal_js",
    "cooccurrence_pearson",
    "pmi_pearson",
    "contradictions",
    "novel_share",
    "nearest_jaccard",
)


def read_rows(path: Path, vocabulary: Vocabulary) -> np.ndarray:
    """uint8 (num_rows, num_tags) of a distilled CSV with comma-separated `aspect_list`."""
    lists = pd.read_csv(path)["aspect_list"].fillna("")
    return vocabulary.encode([tag.strip() for tag in text.split(",")] for text in lists)


def splits(num_rows: int, folds: int, halves: bool, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Training and held-out indices of each fold."""
    for fold in range(folds):
        if halves:
            order = np.random.default_rng(derive(seed, "halves", fold)).permutation(num_rows)
            yield order[num_rows // 2 :], order[: num_rows // 2]
        else:
            parts = np.array_split(np.random.default_rng(derive(seed, "folds")).permutation(num_rows), folds)
            yield np.concatenate([p for i, p in enumerate(parts) if i != fold]), parts[fold]


def measure_fold(reference: Reference, models: list[str], rows_per_sampler: int, seed: int) -> list[dict[str, object]]:
    """One record per sampler: shown figures, held-out nats, seconds of CPU to fit and to sample and check."""
    settings = Settings(num_bootstrap=1)  # the table has no intervals: its deviations are between folds
    floor = floors(reference, settings, seed)
    records: list[dict[str, object]] = [{"sampler": "real training rows (floor)", **_values(floor)}]
    for name, rows in baselines(reference.train, rows_per_sampler, seed).items():
        figures = compare(reference, rows, name, floor, settings, seed)
        records.append({"sampler": name, **{f.metric: f.value for f in figures if f.metric in SHOWN}})
    fits: dict[str, tuple[FittedModel, float]] = {}
    for name in models:
        config, specs = MODELS[name]
        began = time.process_time()
        if (key := config.model_dump_json()) not in fits:
            fitted = fit_in_process(reference.train, reference.vocabulary, config, derive(seed, "fit"))
            fits[key] = fitted, time.process_time() - began
        fitted, seconds = fits[key]
        began = time.process_time()
        sampled = sample_fitted(fitted, reference, config, specs, rows_per_sampler, derive(seed, name))
        times = {"cpu_s_fit": seconds, "cpu_s_sample": time.process_time() - began}
        figures = compare(reference, sampled.rows, name, floor, settings, seed)
        nats = {f"nats_{kind}": value for kind, value in sampled.nats.items()}
        shown = {f.metric: f.value for f in figures if f.metric in SHOWN}
        records.append({"sampler": name, **nats, **shown, **times})
        print(json.dumps(records[-1]), flush=True)
    return records


def _values(floor: dict[str, Estimate]) -> dict[str, float]:
    return {name: floor[name].value for name in SHOWN}


def summary(records: list[dict[str, object]]) -> dict[str, object]:
    """Mean and deviation over folds, and the mean over the folds that no setting was chosen on."""
    frame = pd.DataFrame(records).sort_values("fold", kind="stable")
    figures = frame.groupby("sampler", sort=False)
    later = frame[~frame["fold"].isin(CHOSEN_ON)].groupby("sampler", sort=False)
    print(figures.mean(numeric_only=True).drop(columns="fold").round(3).to_string())
    tables = {"mean": figures.mean(numeric_only=True), "std": figures.std(numeric_only=True)}
    tables["mean of the folds that no setting was chosen on"] = later.mean(numeric_only=True)
    found = {name: json.loads(table.drop(columns="fold").to_json(orient="index")) for name, table in tables.items()}
    return found | {"folds": json.loads(frame.to_json(orient="records"))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("distilled", type=Path)
    parser.add_argument("taxonomy", type=Path)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--fold", type=int, help="measure this one only")
    parser.add_argument("--halves", action="store_true")
    parser.add_argument("--models", default=",".join(m for m in MODELS if m != "mixture (uncalibrated)"))
    parser.add_argument("--rows", type=int, help="rows per sampler (default: as many as training rows)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "tagsets.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    vocabulary = Vocabulary.from_json(arguments.taxonomy.read_bytes(), str(arguments.taxonomy))
    matrix = read_rows(arguments.distilled, vocabulary)
    models = [name for name in MODELS if name in [m.strip() for m in arguments.models.split(",")]]
    protocol = {"rows": len(matrix), "folds": arguments.folds, "halves": arguments.halves, "seed": arguments.seed}
    before = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    records = before["folds"] if before.get("protocol") == protocol and arguments.fold is not None else []
    for fold, (train, held) in enumerate(splits(len(matrix), arguments.folds, arguments.halves, arguments.seed)):
        if arguments.fold is not None and fold != arguments.fold:
            continue
        reference = Reference(vocabulary, matrix[train], matrix[held], Contradictions.for_vocabulary(vocabulary))
        count = arguments.rows or len(train)
        measured = measure_fold(reference, models, count, derive(arguments.seed, "fold", fold))
        names = {record["sampler"] for record in measured}
        records = [r for r in records if r["fold"] != fold or r["sampler"] not in names]
        records += [{"fold": fold, **r} for r in measured]
        results = {"machine": describe_machine(), "protocol": protocol, **summary(records)}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
