"""The classifier's loop on two pitches, fed without a cluster: it learns, stops early, and goes on after a kill."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from meta_device import META, OnlyMeta, to_meta

from conceptcaps.config.tcav import ClassifierConfig
from conceptcaps.errors import InputError
from conceptcaps.rundir import RunDir
from conceptcaps.tcav import train

RATE = 4_000
CONFIG = ClassifierConfig(
    sampling_rate=RATE, duration=0.6, num_mels=16, width=8, num_blocks=2, bottleneck_dim=8,
    dropout=0.0, epochs=8, patience=8, batch_size=8, learning_rate=0.02,
)  # fmt: skip


class Shard:
    """Rows in memory behind the one method of Ray's DataIterator that the loop calls."""

    def __init__(self, rows: Mapping[str, list[Any]]):
        self.rows = rows

    def iter_torch_batches(
        self, *, batch_size: int, collate_fn: train.Crops, local_shuffle_seed: int | None = None, **_: Any
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        order = np.arange(len(self.rows["id"]))
        if local_shuffle_seed is not None:
            order = np.random.default_rng(local_shuffle_seed).permutation(order)
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            yield collate_fn({name: [column[i] for i in part] for name, column in self.rows.items()})


def pitches(part: str, per_class: int, *, swapped: bool = False) -> Shard:
    """Noisy tones of 300 Hz (label 0) and 1,200 Hz (label 1)."""
    rows: dict[str, list[Any]] = {"id": [], "wave": [], "label": []}
    rng = np.random.default_rng(len(part))
    for i in range(2 * per_class):
        label = i % 2
        wave = np.sin(2 * np.pi * (300, 1_200)[label] * np.arange(RATE) / RATE) + 0.3 * rng.normal(size=RATE)
        rows["id"].append(f"{part}-{i}")
        rows["wave"].append((8_000 * wave).astype(np.int16).tobytes())
        rows["label"].append(1 - label if swapped else label)
    return Shard(rows)


class KilledError(Exception):
    pass


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Runs the real loop in a run directory; returns what its checkpoint holds and the epochs it reported."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the same sums in the same order, whatever else the machine does
    shards = {"train": pitches("train", 32), "validation": pitches("validation", 8)}

    def run(
        folder: str, *, kill_in_epoch: int = 0, validation: Shard | None = None, **changes: Any
    ) -> tuple[dict[str, Any], list[int]]:
        config = CONFIG.model_copy(update=changes)
        reported: list[int] = []

        def report(record: dict[str, float]) -> None:
            reported.append(int(record["epoch"]))
            if record["epoch"] == kill_in_epoch:
                raise KilledError

        parts = shards | ({"validation": validation} if validation else {})
        monkeypatch.setattr(train.ray.train, "get_dataset_shard", parts.__getitem__)
        monkeypatch.setattr(train.ray.train, "report", report)
        place = RunDir(tmp_path / folder)
        settings = {"config": config.model_dump(mode="json"), "classes": ["low", "high"], "run": place.location}
        with contextlib.suppress(KilledError):
            train._train_loop({**settings, "seed": 3})
        saved = torch.load(place.path(*train.CHECKPOINT), weights_only=True)
        return saved["fit"], reported

    yield run
    torch.set_num_threads(threads)


def test_loop_learns_two_pitches(loop) -> None:
    fit, reported = loop("run")
    assert reported == list(range(1, 9))
    assert fit["history"][-1]["loss"] < 0.7 * fit["history"][0]["loss"]
    best = fit["history"][fit["best_epoch"] - 1]
    assert best["validation_accuracy"] == 1
    assert fit["best_loss"] == best["validation_loss"] == min(r["validation_loss"] for r in fit["history"])


def test_loop_stops_when_patience_runs_out_and_keeps_the_best_weights(loop) -> None:
    """The better it learns, the worse it does on labels that are swapped."""
    fit, reported = loop("run", validation=pitches("validation", 8, swapped=True), patience=2)
    assert fit["best_epoch"] + 2 == len(reported) < CONFIG.epochs
    assert any(not torch.equal(fit["best"][name], fit["model"][name]) for name in fit["model"])


def test_killed_loop_goes_on_from_its_last_checkpoint_as_if_nothing_had_happened(loop) -> None:
    whole, _ = loop("whole")
    killed, reported = loop("killed", kill_in_epoch=4)
    assert reported == [1, 2, 3, 4]
    assert len(killed["history"]) == 3  # the fourth was lost
    resumed, reported = loop("killed")
    assert reported == [4, 5, 6, 7, 8]
    assert resumed["history"] == whole["history"]
    for name, weights in whole["model"].items():
        torch.testing.assert_close(resumed["model"][name], weights)


def test_finished_loop_trains_no_more(loop) -> None:
    fit, _ = loop("run", epochs=2)
    again, reported = loop("run", epochs=2)
    assert reported == []
    assert again["history"] == fit["history"]


def test_checkpoint_of_other_settings_is_not_resumed(loop) -> None:
    loop("run", epochs=2)
    _, reported = loop("run", epochs=2, learning_rate=0.01)
    assert reported == [1, 2]


def test_loss_that_is_not_finite_names_the_learning_rate(loop) -> None:
    with pytest.raises(InputError, match="learning_rate"):
        loop("run", learning_rate=math.inf)


def test_crops_depend_on_clip_epoch_and_seed_and_not_on_the_batch() -> None:
    rows = pitches("train", 4).rows
    first = train.Crops(CONFIG, seed=1, epoch=0)
    together = first(rows)[0]
    alone = first({name: column[2:3] for name, column in rows.items()})[0]
    assert torch.equal(together[2], alone[0])
    assert not torch.equal(train.Crops(CONFIG, seed=1, epoch=1)(rows)[0], together)
    assert not torch.equal(train.Crops(CONFIG, seed=2, epoch=0)(rows)[0], together)
    middle = train.Crops(CONFIG, seed=1, epoch=None)(rows)[0]
    assert torch.equal(middle, train.Crops(CONFIG, seed=2, epoch=None)(rows)[0])
    assert together.shape == middle.shape == (8, round(CONFIG.duration * RATE))


def test_a_pass_stays_on_the_device_until_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: the sums of all batches come back once."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext())  # meta has none
    fit = train.start(train.shape_of(CONFIG, ["low", "high"]), CONFIG, 3)
    to_meta(fit.model)
    waves = torch.zeros(4, int(CONFIG.duration * CONFIG.sampling_rate), device=META)
    batches = [(waves, torch.zeros(4, dtype=torch.int64, device=META))] * 3
    losses: list[torch.Tensor] = []
    with OnlyMeta(read_back=True) as seen:
        train._pass(fit.model.train(), batches, META, lambda loss: (loss.backward(), losses.append(loss)))
    assert len(losses) == 3
    assert all(parameter.grad is not None for parameter in fit.model.parameters())
    assert seen.read == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_loop_learns_two_pitches_on_a_gpu(loop) -> None:
    device = torch.device("cuda")
    fit = train.start(train.shape_of(CONFIG, ["low", "high"]), CONFIG, 3, device)
    shards = {"train": pitches("train", 32), "validation": pitches("validation", 8)}
    for _ in range(CONFIG.epochs):
        record = train.run_epoch(fit, fit.model, shards, CONFIG, 3, device)
    assert record["validation_accuracy"] == 1
