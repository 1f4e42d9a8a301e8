"""The loop of the classifier, on shards in memory: it learns, stops, and goes on as if it had not stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from conceptcaps.config.tcav import ClassifierConfig
from conceptcaps.errors import InputError
from conceptcaps.tcav.train import Crops, Fit, run_epoch, shape_of, start

RATE = 4_000
CONFIG = ClassifierConfig(
    sampling_rate=RATE, duration=0.6, num_mels=16, width=2, num_blocks=2, bottleneck_dim=8, epochs=6, batch_size=8
)


class Shard:
    """As much of Ray Data's iterator as the loop uses."""

    def __init__(self, rows: list[dict[str, Any]]):
        self.rows = rows

    def iter_torch_batches(
        self, batch_size: int, collate_fn: Callable, local_shuffle_seed: int | None = None, **_: Any
    ) -> Iterator[Any]:
        order = np.arange(len(self.rows))
        if local_shuffle_seed is not None:
            order = np.random.default_rng(local_shuffle_seed).permutation(order)
        for i in range(0, len(order), batch_size):
            rows = [self.rows[j] for j in order[i : i + batch_size]]
            yield collate_fn({name: np.array([r[name] for r in rows], dtype=object) for name in rows[0]})


def tones(num: int, seed: int) -> Shard:
    """Low and high tones, the label; noise on top."""
    rng, time = np.random.default_rng(seed), np.arange(RATE) / RATE
    rows = []
    for i in range(num):
        wave = 0.3 * np.sin(2 * np.pi * (300, 1200)[i % 2] * time + rng.uniform(0, 6)) + 0.02 * rng.normal(size=RATE)
        rows.append({"id": f"{seed}-{i}", "wave": (wave * 32767).astype(np.int16).tobytes(), "label": i % 2})
    return Shard(rows)


@pytest.fixture(scope="module")
def shards() -> dict[str, Shard]:
    return {"train": tones(32, 1), "validation": tones(16, 2)}


def fit_for(epochs: int, shards: dict[str, Shard], fit: Fit | None = None, config: ClassifierConfig = CONFIG) -> Fit:
    fit = fit or start(shape_of(config, ("low", "high")), config, seed=3)
    for _ in range(epochs):
        run_epoch(fit, fit.model, shards, config, 3, torch.device("cpu"))  # type: ignore[arg-type]
    return fit


def test_it_learns_and_keeps_the_best_weights(shards) -> None:
    fit = fit_for(6, shards)
    assert fit.history[-1]["loss"] < fit.history[0]["loss"]
    assert max(record["validation_accuracy"] for record in fit.history) > 0.9
    assert fit.best_loss == min(record["validation_loss"] for record in fit.history)
    assert fit.is_over(CONFIG)


def test_resumed_fit_equals_one_that_never_stopped(shards) -> None:
    whole = fit_for(3, shards)
    part = fit_for(1, shards)
    resumed = start(shape_of(CONFIG, ("low", "high")), CONFIG, seed=99)
    resumed.restore(part.state())
    resumed = fit_for(2, shards, resumed)
    assert [r["loss"] for r in resumed.history] == [r["loss"] for r in whole.history]
    assert torch.equal(resumed.model.head.weight, whole.model.head.weight)


def test_patience_ends_it_early() -> None:
    fit = start(shape_of(CONFIG, ("low", "high")), CONFIG, seed=0)
    fit.history = [{"epoch": float(i)} for i in range(4)]
    fit.best_epoch = 2
    assert not fit.is_over(CONFIG.model_copy(update={"patience": 3}))
    assert fit.is_over(CONFIG.model_copy(update={"patience": 2}))


def test_fit_leaves_torchs_own_generator_alone(shards) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit_for(1, shards)
    assert torch.equal(torch.rand(3), expected)


def test_crops_depend_on_clip_and_epoch_only() -> None:
    shard = tones(4, 7)

    def waves(order: list[int], epoch: int | None) -> torch.Tensor:
        rows = [shard.rows[i] for i in order]
        batch = {name: np.array([r[name] for r in rows], dtype=object) for name in rows[0]}
        return Crops(CONFIG, 0, epoch)(batch)[0]

    assert torch.equal(waves([0, 1, 2], 4), waves([2, 1, 0], 4).flip(0))
    assert not torch.equal(waves([0], 4), waves([0], 5))
    assert torch.equal(waves([0], None), waves([0], None))
    assert waves([0], 1).shape == (1, 2400)


def test_loss_that_is_not_finite_is_refused(shards) -> None:
    fit = start(shape_of(CONFIG, ("low", "high")), CONFIG, seed=0)
    with torch.no_grad():
        fit.model.head.weight.fill_(float("nan"))
    with pytest.raises(InputError, match="not finite"):
        fit_for(1, shards, fit)
