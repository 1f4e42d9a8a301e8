"""Fitting the adapter with Ray Train: one loop for this process, one machine or a cluster; stops and goes on."""

from __future__ import annotations

import io
import logging
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import torch
from ray.train import RunConfig
from ray.train.torch import TorchTrainer, get_device
from torch import Tensor, distributed

from conceptcaps.captions.lora import (
    Example,
    adapter_state,
    add_adapter,
    answer_loss,
    collate,
    encode_pairs,
    load_base,
    order_steps,
    save_adapter,
    save_merged,
    set_adapter_state,
    trainable,
    with_unsaid_tags_said,
    without_unsaid_tags,
)
from conceptcaps.captions.prompts import PromptTemplate
from conceptcaps.captions.vllm import load_tokenizer, model_source
from conceptcaps.config.captions import CaptionsConfig
from conceptcaps.config.lora import LoraConfig
from conceptcaps.errors import InputError
from conceptcaps.rundir import RunDir
from conceptcaps.runtime import scaling
from conceptcaps.seeding import derive, generator

logger = logging.getLogger(__name__)

CHECKPOINT, ADAPTER, MERGED = ("lora", "checkpoint.pt"), ("lora", "adapter"), ("lora", "merged")


@dataclass
class Fit:
    """The state of a fit.

    Attributes:
        model: base and adapter.
        optimizer: over the adapter.
        best: the adapter at its best validation loss; the untrained one before the first epoch ends.
        best_loss: validation loss of `best`, nats per answer token.
        best_epoch: the epoch of `best`.
        history: one record per epoch.
        steps: one record per optimiser step: loss, learning rate, gradient norm.
    """

    model: Any
    optimizer: torch.optim.Optimizer
    best: dict[str, Tensor]
    best_loss: float = math.inf
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    steps: list[dict[str, float]] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        kept = {name: getattr(self, name) for name in ("best", "best_loss", "best_epoch", "history", "steps")}
        return kept | {"adapter": adapter_state(self.model), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        set_adapter_state(self.model, state["adapter"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name in ("best", "best_loss", "best_epoch", "history", "steps"):
            setattr(self, name, state[name])


def start(base: Any, config: LoraConfig, seed: int) -> Fit:
    """A fit at epoch 0."""
    model = add_adapter(base, config, derive(seed, "lora", "weights"))
    optimizer = torch.optim.AdamW(trainable(model), lr=config.learning_rate, weight_decay=config.weight_decay)
    return Fit(model, optimizer, adapter_state(model))


def fit(
    state: Fit,
    train: list[Example],
    validation: list[Example],
    config: LoraConfig,
    seed: int,
    pad: int,
    on_epoch: Callable[[Fit], None] = lambda state: None,
) -> Fit:
    """Train until the validation loss has not fallen for `patience` epochs, then take the best adapter.

    The loss of a step is a sum over its answer tokens, divided by their number over all workers and micro-batches,
    so it does not depend on how many there are.

    Args:
        state: to begin with, or to go on from.
        train: examples, the same on every worker.
        validation: examples, the same on every worker.
        config: of the fit.
        seed: of order and dropout.
        pad: token id to pad with.
        on_epoch: called after every epoch.
    """
    steps_per_epoch = math.ceil(len(train) / config.batch_size)
    total = steps_per_epoch * config.epochs
    while len(state.history) < config.epochs and len(state.history) - state.best_epoch < config.patience:
        epoch, began, num_tokens = len(state.history), time.monotonic(), 0
        losses = []
        rng = generator(seed, "lora", "epoch", epoch)
        for rows in order_steps([len(e.ids) for e in train], config.batch_size, rng, config.length_grouping):
            step = len(state.steps)
            losses.append(_step(state, [train[i] for i in rows], config, seed, pad, learning_rate(step, total, config)))
            num_tokens += sum(len(train[i].ids) for i in rows)
        held = mean_loss(state.model, validation, config.micro_batch_size, pad)
        if held < state.best_loss:
            state.best, state.best_loss, state.best_epoch = adapter_state(state.model), held, epoch + 1
        rate = num_tokens / max(time.monotonic() - began, 1e-9)
        record = {"epoch": epoch + 1, "loss": float(np.mean(losses)), "validation_loss": held}
        state.history.append(record | {"validation_perplexity": math.exp(min(held, 700)), "tokens_per_s": rate})
        on_epoch(state)
    set_adapter_state(state.model, state.best)
    return state


def learning_rate(step: int, total: int, config: LoraConfig) -> float:
    """Linear warm-up, then a cosine to zero (Loshchilov and Hutter 2017)."""
    warm = config.warmup_fraction * total
    if step < warm:
        return config.learning_rate * (step + 1) / (warm + 1)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1.0, total - warm)))


def _step(state: Fit, examples: list[Example], config: LoraConfig, seed: int, pad: int, rate: float) -> float:
    """One optimiser step on the whole batch; returns its mean loss, nats per answer token."""
    rank, world = _place()
    num_answer = sum(e.num_answer for e in examples)
    mine = sorted(examples[rank::world], key=lambda e: len(e.ids))
    device = next(state.model.parameters()).device
    total = torch.zeros((), device=device)
    state.model.train()
    with torch.random.fork_rng():
        # Dropout depends on the step, not on what ran before, so that a resumed fit goes on as it would have.
        torch.manual_seed(derive(seed, "lora", "dropout", len(state.steps), rank) % 2**32)
        for i in range(0, len(mine), config.micro_batch_size):
            batch = collate(mine[i : i + config.micro_batch_size], pad)
            loss = answer_loss(state.model, {name: value.to(device) for name, value in batch.items()})
            (loss / num_answer).backward()
            total += loss.detach()
    parameters = trainable(state.model)
    _sum_over_workers([_gradient(p) for p in parameters] + [total])
    norm = torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
    if not bool(torch.isfinite(norm)):
        raise InputError("the adapter's gradient", "is not finite", "Lower lora.learning_rate")
    state.optimizer.param_groups[0]["lr"] = rate
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    mean = float(total) / num_answer
    state.steps.append({"loss": mean, "learning_rate": rate, "gradient_norm": float(norm)})
    return mean


def _gradient(parameter: Tensor) -> Tensor:
    # A worker that has no row in the last, short batch of an epoch adds nothing.
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


@torch.no_grad()
def mean_loss(model: Any, examples: list[Example], rows: int, pad: int) -> float:
    """Nats per answer token over all examples, which the workers share out; exp of it is the perplexity."""
    rank, world = _place()
    model.eval()
    device = next(model.parameters()).device
    total = torch.zeros(2, dtype=torch.float64, device=device)
    mine = sorted(examples[rank::world], key=lambda e: len(e.ids))
    for i in range(0, len(mine), rows):
        batch = collate(mine[i : i + rows], pad)
        loss = answer_loss(model, {name: value.to(device) for name, value in batch.items()})
        total += torch.tensor([float(loss), float(batch["answer"].sum())], dtype=torch.float64, device=device)
    _sum_over_workers([total])
    return float(total[0] / total[1])


def _place() -> tuple[int, int]:
    """This worker's rank and the number of workers."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _sum_over_workers(tensors: list[Tensor]) -> None:
    """Add up each tensor over the workers, in place, in one exchange."""
    if _place()[1] == 1:
        return
    flat = torch.cat([t.flatten() for t in tensors])
    distributed.all_reduce(flat)
    for tensor, summed in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(summed.view_as(tensor))


def train_on_ray(
    train: list[dict[str, Any]],
    validation: list[dict[str, Any]],
    config: LoraConfig,
    captions: CaptionsConfig,
    run: RunDir,
    seed: int,
    provenance: dict[str, Any],
) -> dict[str, Any]:
    """Fit as a Ray Train job and write `lora/adapter`; goes on from the run's checkpoint where there is one.

    Args:
        train: rows with `caption` and aspect columns.
        validation: held-out rows.
        config: of the fit, its resources included.
        captions: which model, and its prompt.
        run: where the checkpoint and the adapter go.
        seed: of everything random.
        provenance: facts to keep beside the adapter.

    Returns:
        `history`, `steps`, `base_loss`, `best_loss` (nats per answer token), `counts`.
    """
    # Held-out pairs stay as people wrote them, so that fits can be compared.
    if config.unsaid_tags == "drop":
        train = without_unsaid_tags(train)
    elif config.unsaid_tags == "say":
        train = with_unsaid_tags_said(train, seed)
    settings = {
        "train": train,
        "validation": validation,
        "config": config.model_dump(mode="json"),
        "captions": captions.model_dump(mode="json"),
        "run": run.location,
        "seed": seed,
        "provenance": provenance,
    }
    plan = scaling(config.resources)
    storage = {"storage_path": run.path("lora", "ray_train"), "storage_filesystem": run.fs, "name": "fit"}
    run_config = None
    if plan.num_workers:
        run_config = RunConfig(**storage, failure_config=ray.train.FailureConfig(max_failures=3))
    TorchTrainer(_train_loop, train_loop_config=settings, scaling_config=plan, run_config=run_config).fit()
    saved = load_checkpoint(run)
    return {name: saved["fit"][name] for name in ("history", "steps", "best_loss")} | saved["facts"]


def forget_checkpoint(run: RunDir) -> None:
    """Remove what only an unfinished fit needs."""
    run.delete(*CHECKPOINT)
    run.delete("lora", "ray_train")


def _train_loop(settings: dict[str, Any]) -> None:
    config = LoraConfig.model_validate(settings["config"])
    captions = CaptionsConfig.model_validate(settings["captions"])
    run, seed = RunDir(settings["run"]), settings["seed"]
    source, template = model_source(captions.vllm), PromptTemplate.load(captions.prompt)
    tokenizer = load_tokenizer(source, captions.vllm.revision, captions.vllm.trust_remote_code)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    train, counts = encode_pairs(tokenizer, template, settings["train"], config.max_length)
    validation, held_counts = encode_pairs(tokenizer, template, settings["validation"], config.max_length)
    device = get_device() if config.resources.num_gpus else torch.device("cpu")
    state = start(load_base(source, config, device, captions.vllm.revision), config, seed)
    identity = {"config": config.model_dump_json(exclude={"resources", "micro_batch_size"}), "seed": seed}
    identity |= {"model": source, "prompt": captions.prompt, "pairs": len(train)}
    saved = _saved(run, identity)
    if saved:
        state.restore(saved["fit"])
        facts = saved["facts"]
        logger.info("going on with the fit after epoch %d", len(state.history))
    else:
        # An untrained adapter adds nothing: this is the loss of the base model.
        base_loss = mean_loss(state.model, validation, config.micro_batch_size, pad)
        facts = {"base_loss": base_loss, "counts": {"train": counts, "validation": held_counts}}
    rank, _ = _place()

    def on_epoch(fitted: Fit) -> None:
        if rank == 0:
            _save(run, fitted, identity, facts)
        ray.train.report(fitted.history[-1])

    fit(state, train, validation, config, seed, pad, on_epoch)
    if rank == 0:
        _save(run, state, identity, facts)
        _write_folder(run, ADAPTER, lambda folder: save_adapter(state.model, folder, settings["provenance"]))
        if config.save_merged:
            _write_folder(run, MERGED, lambda folder: save_merged(state.model, tokenizer, folder))


def _saved(run: RunDir, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The checkpoint of this very fit, if there is one."""
    if not run.exists(*CHECKPOINT):
        return None
    saved = load_checkpoint(run)
    return saved if saved["identity"] == identity else None


def load_checkpoint(run: RunDir) -> dict[str, Any]:
    """On the CPU: what a GPU wrote is read by a driver that has none, and by workers on other GPUs."""
    return torch.load(io.BytesIO(run.read_bytes(*CHECKPOINT)), map_location="cpu", weights_only=True)


def _save(run: RunDir, state: Fit, identity: dict[str, Any], facts: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save({"identity": identity, "fit": state.state(), "facts": facts}, buffer)
    run.write_bytes(buffer.getvalue(), *CHECKPOINT)


def _write_folder(run: RunDir, parts: tuple[str, ...], save: Callable[[Path], None]) -> None:
    """What `save` leaves in a local folder, below the run's `parts`."""
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder))
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                run.write_bytes(path.read_bytes(), *parts, *path.relative_to(folder).parts)
