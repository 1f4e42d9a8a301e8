"""Fitting the beta-VAE: one loop for this process, one machine or a cluster, on tensors that never leave memory."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray.train
import torch
from ray.train import RunConfig
from ray.train.torch import TorchConfig, TorchTrainer
from torch import Tensor, distributed

from conceptcaps.config.vae import VaeConfig
from conceptcaps.errors import InputError
from conceptcaps.rundir import RunDir
from conceptcaps.runtime import scaling
from conceptcaps.seeding import derive
from conceptcaps.vae.adam import Adam
from conceptcaps.vae.batches import batches
from conceptcaps.vae.gradients import Gradients, flatten
from conceptcaps.vae.model import BetaVAE

logger = logging.getLogger(__name__)

CHECKPOINT = ("vae", "checkpoint.pt")
_VALIDATION_SAMPLES = 8


@dataclass
class Fit:
    """The state of a fit: what a checkpoint holds, and what it ends with.

    Attributes:
        model: M members, one per beta.
        optimizer: of all of the model's parameters, laid into one vector.
        best: each member's weights at its best validation bound.
        best_bound: (M,) nats per row, higher is better.
        best_epoch: (M,) the epoch of `best`.
        history: per epoch, the loss terms and validation bounds of every member.
    """

    model: BetaVAE
    optimizer: Adam
    best: dict[str, Tensor]
    best_bound: Tensor
    best_epoch: Tensor
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.history)

    def state(self) -> dict[str, Any]:
        names = ("best", "best_bound", "best_epoch", "history")
        trained = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        return trained | {name: getattr(self, name) for name in names}

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best, self.best_bound = state["best"], state["best_bound"]
        self.best_epoch, self.history = state["best_epoch"], state["history"]


def start(num_tags: int, config: VaeConfig, seed: int) -> Fit:
    """A fit at epoch 0, a member for `config.beta` and for each of `config.betas`."""
    members = 1 + len(config.betas)
    model = BetaVAE(num_tags, config.hidden_dim, config.latent_dim, config.dropout, members, derive(seed, "weights"))
    optimizer = Adam(*flatten(model), config.learning_rate)
    best = {name: value.clone() for name, value in model.state_dict().items()}
    return Fit(model, optimizer, best, torch.full((members,), -torch.inf), torch.zeros(members, dtype=torch.int64))


def fit(
    train: Tensor,
    validation: Tensor,
    config: VaeConfig,
    seed: int,
    state: Fit | None = None,
    on_epoch: Callable[[Fit], None] = lambda state: None,
) -> Fit:
    """Train until no member has had a better validation bound for `patience` epochs, then take each one's best.

    The loss of a step is the same whatever the number of workers: every worker draws the whole batch's noise and
    uses its own rows of it.

    Args:
        train: float (num_rows, num_tags) in {0, 1}.
        validation: float (num_validation, num_tags).
        config: of the fit.
        seed: of weights, order and noise.
        state: to go on from; None to begin.
        on_epoch: called after every epoch.
    """
    state = state or start(train.shape[1], config, seed)
    betas = torch.tensor([config.beta, *config.betas])
    while state.epoch < config.epochs and (state.epoch - state.best_epoch < config.patience).any():
        generator = torch.Generator().manual_seed(derive(seed, "epoch", state.epoch))
        terms = _epoch(state, train, betas, config.batch_size, generator)
        bound = _validation_bound(state.model, validation, seed)
        _keep_best(state, bound, config.patience)
        names = ("reconstruction", "kl")
        record = {name: term.tolist() for name, term in zip(names, terms, strict=True)}
        state.history.append({"epoch": state.epoch + 1, **record, "validation_bound": bound.tolist()})
        on_epoch(state)
    state.model.load_state_dict(state.best)
    state.model.eval()
    return state


def _epoch(state: Fit, train: Tensor, betas: Tensor, batch_size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """One pass; returns the mean of each loss term per member, over this worker's rows."""
    model, (rank, world) = state.model, _place()
    totals = torch.zeros(2, model.members)
    seen = 0
    gradients, optimizer = Gradients(model, betas), state.optimizer
    for batch in batches(model, train, batch_size, generator, rank, world):
        totals += gradients.write(batch)
        _sum_over_workers(optimizer.gradient, world)
        optimizer.step()
        seen += len(batch.x)
    if not bool(torch.isfinite(totals).all()):
        raise InputError("the VAE's loss", "is not finite", "Lower vae.learning_rate")
    return tuple(totals / max(seen, 1))


def _place() -> tuple[int, int]:
    """This worker's rank and the number of workers."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _sum_over_workers(gradient: Tensor, world: int) -> None:
    if world > 1:
        distributed.all_reduce(gradient)


def _validation_bound(model: BetaVAE, validation: Tensor, seed: int) -> Tensor:
    # The same noise at every epoch, so that early stopping compares models and not draws.
    generator = torch.Generator().manual_seed(derive(seed, "validation"))
    return model.iwae_bound(validation, _VALIDATION_SAMPLES, generator).mean(1)


def _keep_best(state: Fit, bound: Tensor, patience: int) -> None:
    # A member that has run out of patience stays as it is while others of the sweep go on.
    better = (bound > state.best_bound) & (state.epoch - state.best_epoch < patience)
    state.best_bound = torch.where(better, bound, state.best_bound)
    state.best_epoch[better] = state.epoch + 1
    for name, value in state.model.state_dict().items():
        for member in better.nonzero().flatten().tolist():
            state.best[name][member].copy_(value[member])


def split(num_rows: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row indices for training and for early stopping.

    Raises:
        InputError: too few rows for both.
    """
    if num_rows < 2:
        raise InputError("the taxonomy's rows", f"are {num_rows}: a model needs 2 or more", "Give more annotations")
    held = min(max(1, round(fraction * num_rows)), num_rows - 1)
    order = np.random.Generator(np.random.Philox(derive(seed, "split"))).permutation(num_rows)
    return np.sort(order[held:]), np.sort(order[:held])


def train_on_ray(matrix: np.ndarray, config: VaeConfig, run: RunDir, seed: int) -> Fit:
    """Fit as a Ray Train job (in this process for one worker without a GPU); resumes from the run's checkpoint.

    Args:
        matrix: uint8 (num_rows, num_tags).
        config: of the fit, its resources included.
        run: where checkpoints go; the last one stays until `forget_checkpoint`.
        seed: of everything random.
    """
    settings = {"matrix": matrix, "config": config.model_dump(mode="json"), "run": run.location, "seed": seed}
    storage = {"storage_path": run.path("vae", "ray_train"), "storage_filesystem": run.fs, "name": "fit"}
    plan = scaling(config.resources)
    run_config = RunConfig(**storage) if plan.num_workers else None
    # On CPUs, wherever the workers are: a step of this model is shorter than a GPU's launches and transfers.
    sums = TorchConfig(backend="gloo")
    TorchTrainer(
        _train_loop, train_loop_config=settings, scaling_config=plan, run_config=run_config, torch_config=sums
    ).fit()
    state = start(matrix.shape[1], config, seed)
    state.restore(torch.load(io.BytesIO(run.read_bytes(*CHECKPOINT)), weights_only=True)["fit"])
    state.model.load_state_dict(state.best)
    state.model.eval()
    return state


def forget_checkpoint(run: RunDir) -> None:
    """Remove what only an unfinished fit needs."""
    run.delete(*CHECKPOINT)
    run.delete("vae", "ray_train")


def _train_loop(settings: dict[str, Any]) -> None:
    config, run, seed = VaeConfig.model_validate(settings["config"]), RunDir(settings["run"]), settings["seed"]
    matrix = torch.from_numpy(settings["matrix"]).float()
    train_rows, validation_rows = split(len(matrix), config.validation_fraction, seed)
    identity = {"config": config.model_dump_json(exclude={"resources", "checkpoint_epochs"}), "seed": seed}
    identity["optimizer"] = "flat"  # a checkpoint of an earlier layout is no part of this fit
    state = start(matrix.shape[1], config, seed)
    for saved in _saved_state(run, identity):
        state.restore(saved)
    rank, _ = _place()

    def on_epoch(fit: Fit) -> None:
        ray.train.report(fit.history[-1])
        if rank == 0 and fit.epoch % config.checkpoint_epochs == 0:
            _save(run, fit, identity)

    state = fit(matrix[train_rows], matrix[validation_rows], config, seed, state, on_epoch)
    if rank == 0:
        _save(run, state, identity)


def _saved_state(run: RunDir, identity: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The checkpoint of this very fit, if there is one."""
    if not run.exists(*CHECKPOINT):
        return
    saved = torch.load(io.BytesIO(run.read_bytes(*CHECKPOINT)), weights_only=True)
    if saved["identity"] == identity:
        logger.info("resuming the fit at epoch %d", len(saved["fit"]["history"]))
        yield saved["fit"]


def _save(run: RunDir, state: Fit, identity: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save({"identity": identity, "fit": state.state()}, buffer)
    run.write_bytes(buffer.getvalue(), *CHECKPOINT)
