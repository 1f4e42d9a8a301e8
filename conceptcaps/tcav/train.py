"""Fitting the classifier: one loop for this process, one machine or a cluster; Ray Data decodes and crops."""

from __future__ import annotations

import copy
import io
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray.train
import ray.train.torch
import torch
from ray.data import DataIterator, Dataset
from ray.data.collate_fn import NumpyBatchCollateFn
from ray.train import RunConfig
from ray.train.torch import TorchTrainer
from torch import Tensor, distributed, nn

from conceptcaps.config.tcav import ClassifierConfig
from conceptcaps.errors import InputError
from conceptcaps.rundir import RunDir
from conceptcaps.runtime import scaling
from conceptcaps.seeding import derive, generator
from conceptcaps.tcav.classifier import ClassifierShape, GenreClassifier, fit_length

logger = logging.getLogger(__name__)

CHECKPOINT = ("tcav", "checkpoint.pt")
_SHUFFLE_BATCHES = 8


@dataclass
class Fit:
    """The state of a fit: what a checkpoint holds.

    Attributes:
        model: as trained so far.
        optimizer: its optimiser.
        best: the weights of least validation loss.
        best_loss: that loss, nats per clip.
        best_epoch: after how many epochs.
        history: loss and accuracy per epoch.
    """

    model: GenreClassifier
    optimizer: torch.optim.Optimizer
    best: dict[str, Tensor]
    best_loss: float = math.inf
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        names = ("best", "best_loss", "best_epoch", "history")
        trained = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        return trained | {name: getattr(self, name) for name in names}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best, self.best_loss = state["best"], state["best_loss"]
        self.best_epoch, self.history = state["best_epoch"], state["history"]

    def is_over(self, config: ClassifierConfig) -> bool:
        """Whether all epochs are done, or patience has run out."""
        done = len(self.history)
        return done >= config.epochs or done - self.best_epoch >= config.patience


class Crops(NumpyBatchCollateFn):
    """Rows of int16 samples to a batch of float32 waveforms: a random crop and gain in training, else the middle.

    A clip's crop depends on its id, the epoch and the seed, not on the batch it is in.
    """

    def __init__(self, config: ClassifierConfig, seed: int, epoch: int | None):
        self.length = round(config.duration * config.sampling_rate)
        self.gain_db, self.seed, self.epoch = config.gain_db, seed, epoch

    def __call__(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        rows = zip(batch["id"], batch["wave"], strict=True)
        waves = np.stack([self._crop(str(name), np.frombuffer(wave, np.int16)) for name, wave in rows])
        return torch.from_numpy(waves), torch.from_numpy(np.array(batch["label"], dtype=np.int64))

    def _crop(self, name: str, samples: np.ndarray) -> np.ndarray:
        wave = samples.astype(np.float32) / 32768
        if self.epoch is None:
            return fit_length(wave, self.length)
        rng = generator(self.seed, "crop", name, self.epoch)
        gain = 10 ** (rng.uniform(-self.gain_db, self.gain_db) / 20)
        return fit_length(wave, self.length, rng.random()) * np.float32(gain)


def shape_of(config: ClassifierConfig, classes: Sequence[str]) -> ClassifierShape:
    """What the config asks for, with these labels."""
    names = ("sampling_rate", "num_mels", "width", "num_blocks", "bottleneck_dim", "dropout")
    return ClassifierShape(tuple(classes), **{name: getattr(config, name) for name in names})


def start(shape: ClassifierShape, config: ClassifierConfig, seed: int, device: torch.device | None = None) -> Fit:
    """A fit at epoch 0."""
    with seeded(derive(seed, "weights")):
        model = GenreClassifier(shape).to(device or torch.device("cpu"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=1e-2)
    return Fit(model, optimizer, copy.deepcopy(model.state_dict()))


def train_on_ray(
    datasets: Mapping[str, Dataset], classes: Sequence[str], config: ClassifierConfig, run: RunDir, seed: int
) -> Fit:
    """Fit as a Ray Train job (in this process for one worker without a GPU); resumes from the run's checkpoint.

    Args:
        datasets: `train` and `validation`, with columns id, label (index into `classes`), wave (int16 samples).
        classes: the labels.
        config: of the classifier and its fit.
        run: where checkpoints go.
        seed: of weights, order, crops and masks.
    """
    settings = {"config": config.model_dump(mode="json"), "classes": list(classes), "run": run.location, "seed": seed}
    plan = scaling(config.resources)
    storage = {"storage_path": run.path("tcav", "ray_train"), "storage_filesystem": run.fs, "name": "fit"}
    TorchTrainer(
        _train_loop,
        train_loop_config=settings,
        scaling_config=plan,
        run_config=RunConfig(**storage) if plan.num_workers else None,
        datasets=dict(datasets),
    ).fit()
    fit = start(shape_of(config, classes), config, seed)
    fit.restore(torch.load(io.BytesIO(run.read_bytes(*CHECKPOINT)), map_location="cpu", weights_only=True)["fit"])
    fit.model.load_state_dict(fit.best)
    fit.model.eval()
    return fit


def forget_checkpoint(run: RunDir) -> None:
    """Remove what only an unfinished fit needs."""
    run.delete(*CHECKPOINT)
    run.delete("tcav", "ray_train")


def _train_loop(settings: dict[str, Any]) -> None:
    config, run, seed = ClassifierConfig.model_validate(settings["config"]), RunDir(settings["run"]), settings["seed"]
    rank, world = _place()
    device = ray.train.torch.get_device() if config.resources.num_gpus else torch.device("cpu")
    fit = start(shape_of(config, settings["classes"]), config, seed, device)
    identity = {"config": config.model_dump_json(exclude={"resources"}), "classes": settings["classes"], "seed": seed}
    for saved in _saved_state(run, identity, device):
        fit.restore(saved)
    shards = {name: ray.train.get_dataset_shard(name) for name in ("train", "validation")}
    network = nn.parallel.DistributedDataParallel(fit.model) if world > 1 else fit.model
    while not fit.is_over(config):
        record = run_epoch(fit, network, shards, config, seed, device)
        ray.train.report(record)
        if rank == 0:
            _save(run, fit, identity)
    if rank == 0:
        _save(run, fit, identity)


def run_epoch(
    fit: Fit,
    network: nn.Module,
    shards: Mapping[str, DataIterator],
    config: ClassifierConfig,
    seed: int,
    device: torch.device,
) -> dict[str, float]:
    """One pass over the training clips, and the validation loss; keeps the best weights."""
    epoch, (rank, world) = len(fit.history), _place()
    for group in fit.optimizer.param_groups:
        group["lr"] = config.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / config.epochs))
    size = max(1, config.batch_size // world)
    batches = shards["train"].iter_torch_batches(
        batch_size=size,
        collate_fn=Crops(config, seed, epoch),
        local_shuffle_buffer_size=_SHUFFLE_BATCHES * size,
        local_shuffle_seed=derive(seed, "order", epoch) % 2**32,
    )
    with seeded(derive(seed, "epoch", epoch, rank)):
        loss = _pass(network.train(), batches, device, lambda value: _step(value, fit))
    held = shards["validation"].iter_torch_batches(batch_size=size, collate_fn=Crops(config, seed, None))
    with torch.no_grad():
        validation = _pass(fit.model.eval(), held, device)
    if not math.isfinite(loss[0]):
        raise InputError("the classifier's loss", "is not finite", "Lower tcav.classifier.learning_rate")
    record = {
        "epoch": epoch + 1,
        "loss": loss[0],
        "validation_loss": validation[0],
        "validation_accuracy": validation[1],
    }
    fit.history.append(record)
    if validation[0] < fit.best_loss:
        fit.best_loss, fit.best_epoch = validation[0], epoch + 1
        fit.best = {name: value.detach().cpu().clone() for name, value in fit.model.state_dict().items()}
    return record


def _step(loss: Tensor, fit: Fit) -> None:
    fit.optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(fit.model.parameters(), 1.0)
    fit.optimizer.step()


def _pass(
    network: nn.Module,
    batches: Any,
    device: torch.device,
    step: Callable[[Tensor], None] = lambda loss: None,
) -> tuple[float, float]:
    """Mean loss and accuracy over the clips of all workers."""
    totals = torch.zeros(3, dtype=torch.float64, device=device)
    for waves, labels in batches:
        waves, labels = waves.to(device), labels.to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            logits = network(waves)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        step(loss)
        right = (logits.argmax(1) == labels).sum()
        totals += torch.stack([loss.detach() * len(labels), right, torch.full_like(right, len(labels))]).to(totals)
    if _place()[1] > 1:
        distributed.all_reduce(totals)
    loss_sum, num_right, count = totals.tolist()
    return loss_sum / max(count, 1), num_right / max(count, 1)


def _place() -> tuple[int, int]:
    """This worker's rank and the number of workers."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's own generator at a seed for a while, and where it was afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _saved_state(run: RunDir, identity: dict[str, Any], device: torch.device) -> Iterator[dict[str, Any]]:
    if not run.exists(*CHECKPOINT):
        return
    saved = torch.load(io.BytesIO(run.read_bytes(*CHECKPOINT)), map_location=device, weights_only=True)
    if saved["identity"] == identity:
        logger.info("resuming the classifier at epoch %d", len(saved["fit"]["history"]))
        yield saved["fit"]


def _save(run: RunDir, fit: Fit, identity: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save({"identity": identity, "fit": fit.state()}, buffer)
    run.write_bytes(buffer.getvalue(), *CHECKPOINT)
