"""The fused fit against Lightning with a DataLoader, and how fast specs are sampled: ratios within one run.

    python benchmarks/vae.py DISTILLED_CSV CONCEPTS_TO_TAGS_JSON [--steps 400] [--specs 1000000]

Both fits have the published model (latent 128, hidden 512), the same rows, batch 32 and number of optimiser steps; the
fit to a bound gives both the same held-out bound to reach. CPU seconds of one thread, loader workers included.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import lightning
import psutil
import torch
from machine import describe_machine
from tagsets import read_rows
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from conceptcaps.config.specs import SpecsConfig
from conceptcaps.config.vae import VaeConfig
from conceptcaps.contradictions import Contradictions
from conceptcaps.pipelines import specs as stage
from conceptcaps.vae import train as training
from conceptcaps.vae.model import BetaVAE
from conceptcaps.vocabulary import Vocabulary

PUBLISHED = VaeConfig(
    model="beta_vae", latent_dim=128, hidden_dim=512, dropout=0.25, beta=0.25, batch_size=32, patience=10**6
)


class LightningVAE(lightning.LightningModule):
    """The same model and loss in the published project's kind of loop: it logs each term and watches validation."""

    def __init__(self, num_tags: int, config: VaeConfig, seed: int):
        super().__init__()
        self.config = config
        self.vae = BetaVAE(num_tags, config.hidden_dim, config.latent_dim, config.dropout, seed=seed)
        self.generator = torch.Generator().manual_seed(seed)

    def _loss(self, x: Tensor) -> Tensor:
        masks = self.vae.draw_masks(len(x), self.generator)
        terms = self.vae.loss(x, torch.randn(len(x), self.vae.latent_dim, generator=self.generator), masks)
        self.log("reconstruction", terms.reconstruction.mean())
        self.log("kl", terms.kl.mean())
        return (terms.reconstruction + self.config.beta * terms.kl).mean()

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        return self._loss(batch[0])

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        bound = self.vae.iwae_bound(batch[0], 8, torch.Generator().manual_seed(0)).mean()
        self.log("bound", bound, batch_size=len(batch[0]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.config.learning_rate)


class StopAt(lightning.Callback):
    """Ends the fit when the validation bound is reached."""

    def __init__(self, bound: float):
        self.bound = bound

    def on_validation_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if float(trainer.callback_metrics["bound"]) >= self.bound:
            trainer.should_stop = True


def lightning_fit(
    train: Tensor, held: Tensor, config: VaeConfig, epochs: int, workers: int, bound: float | None = None
) -> tuple[float, int]:
    """CPU seconds and optimiser steps of a Lightning fit."""
    module = LightningVAE(train.shape[1], config, seed=0)
    loader = DataLoader(TensorDataset(train), config.batch_size, shuffle=True, num_workers=workers)
    validation = DataLoader(TensorDataset(held), len(held), num_workers=workers)
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[StopAt(bound)] if bound is not None else [],
            limit_val_batches=1.0 if bound is not None else 0,
            num_sanity_val_steps=0,
        )
        seconds = cpu_seconds(lambda: trainer.fit(module, loader, validation if bound is not None else None))
    return seconds, trainer.global_step


def fused_fit(train: Tensor, held: Tensor, config: VaeConfig, bound: float | None = None) -> tuple[float, int]:
    """CPU seconds and optimiser steps of this package's fit, to its last epoch or to a bound."""

    class ReachedError(Exception):
        pass

    state = training.start(train.shape[1], config, seed=0)

    def stop(fit: training.Fit) -> None:
        if bound is not None and float(fit.best_bound) >= bound:
            raise ReachedError

    def run() -> None:
        try:
            training.fit(train, held, config, 0, state, stop)
        except ReachedError:
            return

    return cpu_seconds(run), state.epoch * -(-len(train) // config.batch_size)


def cpu_seconds(work: Callable[[], object]) -> float:
    """Of this process and of those that it started and that have ended."""
    before = os.times()
    work()
    after = os.times()
    return sum(after[:4]) - sum(before[:4])


def per_step(train: Tensor, held: Tensor, epochs: int) -> dict[str, float]:
    """Milliseconds of CPU per optimiser step, and the ratios to the fused loop."""
    config = PUBLISHED.model_copy(update={"epochs": epochs})
    fused_fit(train, held[:1], config.model_copy(update={"epochs": 1}))
    timings = {"fused": fused_fit(train, held[:1], config)}
    timings["lightning"] = lightning_fit(train, held, config, epochs, workers=0)
    timings["lightning, 2 loader workers"] = lightning_fit(train, held, config, epochs, workers=2)
    each = {name: 1000 * seconds / steps for name, (seconds, steps) in timings.items()}
    return {f"ms, {n}": ms for n, ms in each.items()} | {f"ratio, {n}": ms / each["fused"] for n, ms in each.items()}


def to_bound(train: Tensor, held: Tensor) -> dict[str, float]:
    """CPU seconds until the best bound, less 0.05 nats, that the published settings reach in 60 epochs."""
    config = PUBLISHED.model_copy(update={"epochs": 60})
    bound = float(training.fit(train, held, config, 0).best_bound) - 0.05
    slow, slow_steps = lightning_fit(train, held, config, 120, 0, bound)
    own = VaeConfig(model="beta_vae", learning_rate=3e-3)
    fast, fast_steps = fused_fit(train, held, own, bound)
    found = {"bound": bound, "lightning_s": slow, "fused_s": fast, "ratio": slow / fast}
    return found | {"lightning_steps": slow_steps, "fused_steps": fast_steps}


def sampling(matrix: torch.Tensor, vocabulary: Vocabulary, count: int) -> dict[str, float]:
    """Wall and CPU seconds to sample, check, calibrate and write specs in this one process, and memory added."""
    fitted = stage.fit_mixture_model(matrix.numpy(), vocabulary, VaeConfig(), 0)
    contradictions = Contradictions.for_vocabulary(vocabulary)
    process = psutil.Process()
    began, before = time.perf_counter(), process.memory_info().rss
    most = 0

    def work() -> None:
        nonlocal most
        sampler = stage.sampler_of(fitted, SpecsConfig(num_samples=count), contradictions, 0)
        with tempfile.TemporaryDirectory() as folder:
            for file, (begin, end) in enumerate(stage.file_bounds(count)):
                stage.write_file(sampler, folder, 0, file, begin, end)
                most = max(most, process.memory_info().rss - before)

    seconds = cpu_seconds(work)
    wall = time.perf_counter() - began
    return {"rows": count, "cpu_s": seconds, "wall_s": wall, "us_per_row": 1e6 * seconds / count, "mib": most / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("distilled", type=Path)
    parser.add_argument("taxonomy", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--specs", type=int, default=1_000_000)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    vocabulary = Vocabulary.from_json(arguments.taxonomy.read_bytes(), str(arguments.taxonomy))
    matrix = torch.from_numpy(read_rows(arguments.distilled, vocabulary))
    held = matrix[::5].float()
    train = matrix[torch.arange(len(matrix)) % 5 != 0].float()
    results: dict[str, object] = {"machine": describe_machine()}
    results["per_step"] = per_step(train, held, max(1, arguments.steps * PUBLISHED.batch_size // len(train)))
    print(json.dumps(results["per_step"], indent=1), flush=True)
    results["to_bound"] = to_bound(train, held)
    print(json.dumps(results["to_bound"], indent=1), flush=True)
    results["sampling"] = sampling(matrix, vocabulary, arguments.specs)
    print(json.dumps(results["sampling"], indent=1), flush=True)
    out = Path(__file__).parent / "results" / "vae.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
