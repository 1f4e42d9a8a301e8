"""Stage `lora`: pairs of tags and captions to an adapter beside the run's model, with its curves and perplexities."""

from __future__ import annotations

import io
import math
from typing import Any

import pyarrow.parquet as pq

from conceptcaps.captions import train
from conceptcaps.captions.lora import read_pairs, split_pairs
from conceptcaps.captions.tracking import check_installed, track
from conceptcaps.captions.vllm import model_source
from conceptcaps.config import Config, output_settings
from conceptcaps.errors import InputError
from conceptcaps.pipelines.taxonomy import ROWS_FOLDER, STAGE
from conceptcaps.rundir import RunDir, code_version, package_versions

FOLDER = "lora"


def run_lora(config: Config, run: RunDir) -> dict[str, Any]:
    """Fit the adapter; returns the counts and perplexities for the run's manifest.

    Files: lora/adapter (PEFT layout and provenance.json), lora/curves.json, lora/curves.png, lora/tensorboard.
    """
    rows = read_pairs(config.lora.data) if config.lora.data else annotated_rows(run)
    fitting, held = split_pairs(rows, config.lora.validation_fraction, config.seed)
    provenance: dict[str, Any] = {
        "base_model": model_source(config.captions.vllm),
        "revision": config.captions.vllm.revision,
        "settings": output_settings(config.lora),
        "pairs": {"train": len(fitting), "validation": len(held)},
        "seed": config.seed,
        "code": code_version(),
        "packages": package_versions(),
    }
    check_installed(config.lora.trackers)
    made = train.train_on_ray(fitting, held, config.lora, config.captions, run, config.seed, provenance)
    write_curves(made, run)
    track(config.lora.trackers, config.name, provenance["settings"], made)
    train.forget_checkpoint(run)
    return {
        "counts": {**made["counts"], "epochs": len(made["history"])},
        "base_perplexity": math.exp(made["base_loss"]),
        "perplexity": math.exp(made["best_loss"]),
        "model": provenance["base_model"],
    }


def annotated_rows(run: RunDir) -> list[dict[str, Any]]:
    """The run's annotated rows that have a caption.

    Raises:
        InputError: stage `taxonomy` has written none.
    """
    files = run.files(STAGE, ROWS_FOLDER, suffix=".parquet")
    rows = [row for path in files for row in pq.read_table(path, filesystem=run.fs).to_pylist() if row["caption"]]
    if not rows:
        raise InputError(run.uri(STAGE, ROWS_FOLDER), "holds no captions", "Run --stages taxonomy, or set lora.data")
    return rows


def write_curves(made: dict[str, Any], run: RunDir) -> None:
    """The fit's steps and epochs as JSON, as a figure and as TensorBoard events."""
    run.write_json({name: made[name] for name in ("steps", "history", "base_loss")}, FOLDER, "curves.json")
    run.write_bytes(_figure(made), FOLDER, "curves.png")
    for name, data in _events(made).items():
        run.write_bytes(data, FOLDER, "tensorboard", name)


def _figure(made: dict[str, Any]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    losses, perplexity, rate = figure.subplots(1, 3)
    steps, epochs = made["steps"], [record["epoch"] for record in made["history"]]
    losses.plot([step["loss"] for step in steps], linewidth=0.8)
    losses.set(xlabel="step", ylabel="loss, nats per answer token")
    perplexity.plot([0, *epochs], [math.exp(made["base_loss"])] + [h["validation_perplexity"] for h in made["history"]])
    perplexity.set(xlabel="epoch", ylabel="held-out perplexity", yscale="log")
    rate.plot([step["learning_rate"] for step in steps])
    rate.set(xlabel="step", ylabel="learning rate")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _events(made: dict[str, Any]) -> dict[str, bytes]:
    import tempfile
    from pathlib import Path

    from torch.utils.tensorboard import SummaryWriter

    with tempfile.TemporaryDirectory() as folder:
        with SummaryWriter(folder) as writer:
            for i, step in enumerate(made["steps"]):
                for name, value in step.items():
                    writer.add_scalar(f"step/{name}", value, i)
            for record in made["history"]:
                for name, value in record.items():
                    writer.add_scalar(f"epoch/{name}", value, int(record["epoch"]))
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}
