"""The training loop: learns, stops, resumes, and gives one result for one worker or several."""

import numpy as np
import pytest
import torch

from conceptcaps.config.vae import VaeConfig
from conceptcaps.errors import InputError
from conceptcaps.rundir import RunDir
from conceptcaps.vae import train as training

SMALL = {"latent_dim": 3, "hidden_dim": 16, "batch_size": 20, "epochs": 12, "dropout": 0.2, "learning_rate": 1e-2}


@pytest.fixture
def matrix() -> np.ndarray:
    rng = np.random.default_rng(0)
    prototypes = rng.random((3, 12)) < 0.4
    return (prototypes[rng.integers(0, 3, 120)] ^ (rng.random((120, 12)) < 0.05)).astype(np.uint8)


def fit(matrix: np.ndarray, **keys) -> training.Fit:
    rows = torch.from_numpy(matrix).float()
    return training.fit(rows[20:], rows[:20], VaeConfig(**{**SMALL, **keys}), seed=5)


def test_bound_improves(matrix):
    history = fit(matrix).history
    assert history[-1]["validation_bound"][0] > history[0]["validation_bound"][0] + 1


def test_stops_early_with_the_best_weights(matrix):
    state = fit(matrix, epochs=400, patience=8, learning_rate=3e-2)
    bounds = [h["validation_bound"][0] for h in state.history]
    assert state.epoch < 400
    assert state.epoch == int(state.best_epoch) + 8
    assert max(bounds) == pytest.approx(float(state.best_bound))
    rows = torch.from_numpy(matrix[:20]).float()
    again = training._validation_bound(state.model, rows, 5)
    assert float(again) == pytest.approx(max(bounds), abs=1e-5)


def test_a_sweep_gives_each_beta_its_own_fit(matrix):
    sweep = fit(matrix, beta=1.0, betas=(4.0,))
    for i, beta in enumerate((1.0, 4.0)):
        alone = fit(matrix, beta=beta)
        assert float(sweep.best_bound[i]) == pytest.approx(float(alone.best_bound), abs=1e-3)
    assert sweep.history[-1]["kl"][0] > sweep.history[-1]["kl"][1]


def test_resumes_where_it_was_killed(matrix, tmp_path):
    run = RunDir(tmp_path / "run")
    whole = training.train_on_ray(matrix, VaeConfig(**SMALL), RunDir(tmp_path / "other"), seed=5)
    calls = []

    class KilledError(Exception):
        pass

    def killing_save(*args):
        save(*args)
        calls.append(1)
        raise KilledError

    save, training._save = training._save, killing_save
    try:
        with pytest.raises(KilledError):
            training.train_on_ray(matrix, VaeConfig(**SMALL, checkpoint_epochs=7), run, seed=5)
    finally:
        training._save = save
    resumed = training.train_on_ray(matrix, VaeConfig(**SMALL, checkpoint_epochs=7), run, seed=5)
    assert calls == [1]
    assert resumed.history == whole.history
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value)


def test_workers_share_one_loss(matrix, monkeypatch):
    whole = fit(matrix, epochs=1)
    rows = torch.from_numpy(matrix).float()
    config = VaeConfig(**{**SMALL, "epochs": 1})
    gradients = []
    for rank in range(3):
        monkeypatch.setattr(training, "_place", lambda rank=rank: (rank, 3))
        monkeypatch.setattr(
            training,
            "_sum_gradients",
            lambda model, world: gradients.append([p.grad.clone() for p in model.parameters()]),
        )
        state = training.start(12, config, 5)
        monkeypatch.setattr(state.optimizer, "step", lambda: None)
        training._epoch(state, rows[20:], torch.tensor([1.0]), 20, torch.Generator().manual_seed(1))
    monkeypatch.setattr(training, "_place", lambda: (0, 1))
    state = training.start(12, config, 5)
    alone: list = []
    monkeypatch.setattr(
        training, "_sum_gradients", lambda model, world: alone.append([p.grad.clone() for p in model.parameters()])
    )
    monkeypatch.setattr(state.optimizer, "step", lambda: None)
    training._epoch(state, rows[20:], torch.tensor([1.0]), 20, torch.Generator().manual_seed(1))
    steps = len(alone)
    assert whole.epoch == 1
    for step in range(steps):
        for k, expected in enumerate(alone[step]):
            summed = sum(gradients[rank * steps + step][k] for rank in range(3))
            torch.testing.assert_close(summed, expected, atol=1e-5, rtol=1e-4)


def test_too_few_rows():
    with pytest.raises(InputError, match="2 or more"):
        training.split(1, 0.1, 0)


def test_a_loss_that_is_not_finite_is_refused(matrix):
    with pytest.raises(InputError, match="learning_rate"):
        fit(matrix, learning_rate=1e30)
