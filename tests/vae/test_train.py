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


@pytest.mark.slow
def test_two_ray_workers_have_the_history_of_one(cluster, matrix, tmp_path):
    alone = training.train_on_ray(matrix, VaeConfig(**SMALL), RunDir(tmp_path / "one"), seed=5)
    two = VaeConfig(**SMALL, resources={"workers": 2, "num_cpus": 0.5})
    shared = training.train_on_ray(matrix, two, RunDir(tmp_path / "two"), seed=5)
    for one, both in zip(alone.history, shared.history, strict=True):
        assert both["validation_bound"] == pytest.approx(one["validation_bound"], abs=1e-4)


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
    """What three workers sum is what one has, also where the last batch has fewer rows than there are workers."""
    rows = torch.from_numpy(matrix).float()[:102]
    config = VaeConfig(**SMALL)

    def gradients(rank: int, world: int) -> list[torch.Tensor]:
        found: list[torch.Tensor] = []
        monkeypatch.setattr(training, "_place", lambda: (rank, world))
        monkeypatch.setattr(training, "_sum_over_workers", lambda gradient, _: found.append(gradient.clone()))
        state = training.start(12, config, 5)
        monkeypatch.setattr(state.optimizer, "step", lambda: None)
        training._epoch(state, rows, torch.tensor([1.0]), 20, torch.Generator().manual_seed(1))
        return found

    alone, workers = gradients(0, 1), [gradients(rank, 3) for rank in range(3)]
    assert len(alone) == 6
    for expected, *shares in zip(alone, *workers, strict=True):
        torch.testing.assert_close(sum(shares), expected, atol=1e-5, rtol=1e-4)


def test_the_fit_is_autograds(matrix):
    """The loop against the plainest one: autograd of `BetaVAE.loss`, `torch.optim.Adam`, the same batches."""
    rows = torch.from_numpy(matrix).float()
    config = VaeConfig(**{**SMALL, "epochs": 3}, beta=0.5, betas=(2.0,))
    fitted = training.fit(rows[20:], rows[:20], config, seed=5)
    model = training.start(12, config, 5).model
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    for epoch in range(3):
        generator = torch.Generator().manual_seed(training.derive(5, "epoch", epoch))
        for batch in training.batches(model, rows[20:], config.batch_size, generator):
            reconstruction, kl = model.loss(batch.x, batch.epsilon, batch.masks)
            optimizer.zero_grad()
            (reconstruction + torch.tensor([[0.5], [2.0]]) * kl).sum().div(batch.size).backward()
            optimizer.step()
    again = training._validation_bound(model, rows[:20], 5)
    torch.testing.assert_close(torch.tensor(fitted.history[-1]["validation_bound"]), again, atol=1e-4, rtol=1e-5)


def test_too_few_rows():
    with pytest.raises(InputError, match="2 or more"):
        training.split(1, 0.1, 0)


def test_a_loss_that_is_not_finite_is_refused(matrix):
    with pytest.raises(InputError, match="learning_rate"):
        fit(matrix, learning_rate=1e30)
