from __future__ import annotations

import contextlib
import sys
from types import SimpleNamespace

import pytest

from conceptcaps.captions.tracking import check_installed, track
from conceptcaps.errors import InputError

MADE = {
    "steps": [{"loss": 3.0}, {"loss": 2.0}, {"loss": 1.0}, {"loss": 0.5}],
    "history": [{"epoch": 1, "validation_loss": 2.5}, {"epoch": 2, "validation_loss": 0.75}],
}


def test_wandb_gets_every_step_and_the_epochs_where_they_end(monkeypatch):
    logged = []
    run = SimpleNamespace(log=lambda values, step: logged.append((step, values)), finish=lambda: logged.append("end"))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **settings: run))
    track(["wandb"], "mine", {"r": 4}, MADE)
    assert logged[0] == (0, {"step/loss": 3.0})
    assert logged[1] == (1, {"step/loss": 2.0, "epoch/epoch": 1, "epoch/validation_loss": 2.5})
    assert logged[3][1]["epoch/validation_loss"] == 0.75
    assert logged[-1] == "end"


def test_mlflow_gets_names_that_it_takes(monkeypatch):
    logged = {}
    stand_in = SimpleNamespace(
        set_experiment=lambda name: None,
        start_run=lambda run_name: contextlib.nullcontext(),
        log_params=logged.update,
        log_metrics=lambda values, step: logged.update({(step, k): v for k, v in values.items()}),
    )
    monkeypatch.setitem(sys.modules, "mlflow", stand_in)
    track(["mlflow"], "mine", {"r": 4}, MADE)
    assert logged["r"] == 4
    assert logged[(3, "epoch.validation_loss")] == 0.75


def test_a_tracker_that_is_not_installed_is_said_before_the_fit(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match="trackers"):
        check_installed(["wandb"])
