"""A fit's curves to the trackers that a user names: Weights & Biases, MLflow. Neither is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from conceptcaps.extras import require

PROJECT = "conceptcaps"


def track(trackers: Sequence[str], name: str, settings: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    """Log a finished fit; where to and under which account is the tracker's own configuration.

    Args:
        trackers: 'wandb', 'mlflow'.
        name: of the run.
        settings: of the fit.
        made: `steps` and `history`, as stage `lora` returns them.

    Raises:
        InputError: a tracker is not installed.
    """
    for tracker in trackers:
        {"wandb": _to_wandb, "mlflow": _to_mlflow}[tracker](name, settings, made)


def check_installed(trackers: Sequence[str]) -> None:
    """Before the fit, not after it.

    Raises:
        InputError: a tracker is not installed.
    """
    for tracker in trackers:
        require(tracker, "trackers")


def _points(made: Mapping[str, Any]) -> list[tuple[int, dict[str, float]]]:
    """(optimiser step, values): each step's, and after the last step of an epoch the epoch's."""
    points = [(i, {f"step/{k}": v for k, v in step.items()}) for i, step in enumerate(made["steps"])]
    per_epoch = len(made["steps"]) // max(1, len(made["history"]))
    for record in made["history"]:
        at = int(record["epoch"]) * per_epoch - 1
        points[at][1].update({f"epoch/{k}": v for k, v in record.items()})
    return points


def _to_wandb(name: str, settings: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    run = require("wandb", "trackers").init(project=PROJECT, name=name, config=dict(settings))
    for step, values in _points(made):
        run.log(values, step=step)
    run.finish()


def _to_mlflow(name: str, settings: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    mlflow = require("mlflow", "trackers")
    mlflow.set_experiment(PROJECT)
    with mlflow.start_run(run_name=name):
        mlflow.log_params(dict(settings))
        for step, values in _points(made):
            mlflow.log_metrics({key.replace("/", "."): value for key, value in values.items()}, step=step)
