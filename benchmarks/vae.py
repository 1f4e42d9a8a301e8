"""The fused fit against Lightning with a DataLoader, and how fast specs are sampled: ratios within one run.

    python benchmarks/vae.py DISTILLED_CSV CONCEPTS_TO_TAGS_JSON [--parts per_step,to_bound,sampling] [--steps 400]

`per_step`: both fits have the published model (latent 128, hidden 512), the same rows, batch 32 and number of optimiser
steps; beside them the floor, the bare matrix products and Adam's update. `to_bound`: both go on until the same held-out
bound; the published settings there, here the package's defaults with the same batch, less dropout and longer steps. CPU
seconds of one thread, loader workers included.
`sampling`: stage `specs` as a run has it, on a Ray of two CPUs: wall seconds and the most memory that this process and
all of Ray hold, at a quarter of the rows and at all of them.
Parts that are not measured keep their figures in the result file.
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

try:
    import lightning
except ImportError as error:
    raise SystemExit("This compares with Lightning: pip install lightning") from error
import numpy as np
import torch
from machine import PeakMemory, describe_machine
from tagsets import read_rows
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from conceptcaps.config import load
from conceptcaps.config.ray import RayConfig
from conceptcaps.config.vae import VaeConfig
from conceptcaps.contradictions import Contradictions
from conceptcaps.pipelines.artefacts import aspect_lists, encode_lists
from conceptcaps.pipelines.specs import CHUNKS_PER_FILE, run_specs
from conceptcaps.pipelines.vae import MODEL, fit_mixture_model
from conceptcaps.rundir import RunDir
from conceptcaps.runtime import connect
from conceptcaps.vae import train as training
from conceptcaps.vae.model import BetaVAE
from conceptcaps.vae.sampling import CHUNK
from conceptcaps.vae.weights import write_model
from conceptcaps.vocabulary import Vocabulary

PUBLISHED = VaeConfig(
    model="beta_vae",
    latent_dim=128,
    hidden_dim=512,
    dropout=0.25,
    beta=0.25,
    batch_size=32,
    learning_rate=1e-3,
    patience=10**6,
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


def per_step(train: Tensor, held: Tensor, epochs: int, rounds: int = 5) -> dict[str, float]:
    """Milliseconds of CPU per optimiser step, and the ratios to the fused loop.

    The least of several rounds, in which every fit has its turn: other processes on the machine, which share its
    caches, only ever add.
    """
    config = PUBLISHED.model_copy(update={"epochs": epochs})
    fused_fit(train, held[:1], config.model_copy(update={"epochs": 1}))
    fits: dict[str, Callable[[], tuple[float, int]]] = {
        "fused": lambda: fused_fit(train, held[:1], config),
        "floor": lambda: floor(train.shape[1], config, epochs * -(-len(train) // config.batch_size)),
        "lightning": lambda: lightning_fit(train, held, config, epochs, workers=0),
        "lightning, 2 loader workers": lambda: lightning_fit(train, held, config, epochs, workers=2),
    }
    each = dict.fromkeys(fits, float("inf"))
    for _ in range(rounds):
        for name, fit in fits.items():
            seconds, steps = fit()
            each[name] = min(each[name], 1000 * seconds / steps)
    return {f"ms, {n}": ms for n, ms in each.items()} | {f"ratio, {n}": ms / each["fused"] for n, ms in each.items()}


def floor(num_tags: int, config: VaeConfig, steps: int) -> tuple[float, int]:
    """CPU seconds and number of steps of nothing but what a step must do: its matrix products and Adam's update."""
    sizes = [(num_tags, config.hidden_dim), (config.hidden_dim, 2 * config.latent_dim)]
    sizes += [(config.latent_dim, config.hidden_dim), (config.hidden_dim, num_tags)]
    weights = [torch.zeros(size, requires_grad=True) for size in sizes]
    inputs = [torch.zeros(config.batch_size, size[0]) for size in sizes]
    outputs = [torch.zeros(config.batch_size, size[1]) for size in sizes]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    adam = torch.optim.Adam(weights, lr=config.learning_rate, fused=True)

    @torch.no_grad()
    def work() -> None:
        for _ in range(steps):
            for i, weight in enumerate(weights):
                torch.mm(inputs[i], weight, out=outputs[i])
                torch.mm(inputs[i].T, outputs[i], out=weight.grad)
                if i:  # nothing asks for the gradient of the tags
                    torch.mm(outputs[i], weight.T, out=inputs[i])
            adam.step()

    return cpu_seconds(work), steps


def to_bound(train: Tensor, held: Tensor) -> dict[str, float]:
    """CPU seconds until the best bound, less 0.05 nats, that the published settings reach in 60 epochs."""
    config = PUBLISHED.model_copy(update={"epochs": 60})
    bound = float(training.fit(train, held, config, 0).best_bound) - 0.05
    slow, slow_steps = lightning_fit(train, held, config, 120, 0, bound)
    own = VaeConfig(model="beta_vae", dropout=0.1, learning_rate=1.2e-2, batch_size=32)  # chosen on three other splits
    fast, fast_steps = fused_fit(train, held, own, bound)
    found = {"bound": bound, "lightning_s": slow, "fused_s": fast, "ratio": slow / fast}
    return found | {"lightning_steps": slow_steps, "fused_steps": fast_steps}


def sampling(matrix: np.ndarray, vocabulary: Vocabulary, counts: list[int]) -> list[dict[str, float]]:
    """Stage `specs` with its default settings, on Ray: sampled, checked, calibrated, written to Parquet."""
    connect(RayConfig(num_cpus=2, object_store_mb=300), quiet=True)
    fitted = fit_mixture_model(matrix, vocabulary, VaeConfig(), 0)
    contradictions = Contradictions.for_vocabulary(vocabulary)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir(folder)
        run.write_bytes(vocabulary.to_json().encode(), "taxonomy", "concepts_to_tags.json")
        run.write_bytes(contradictions.to_json().encode(), "taxonomy", "contradictions.json")
        write_model(fitted, run, *MODEL)
        for count in (CHUNK * CHUNKS_PER_FILE * 2, *counts):  # the first warms Ray's workers up
            with PeakMemory() as memory:
                began = time.perf_counter()
                facts = run_specs(load(None, [f"specs.num_samples={count}"]), run)
                wall = time.perf_counter() - began
            bad = check(run, vocabulary, contradictions)
            assert facts["rows"] == count
            assert bad == 0
            found.append({"rows": count, "wall_s": wall, "gib": memory.peak / 2**30, "rows_that_break_a_rule": bad})
    return found[1:]


def check(run: RunDir, vocabulary: Vocabulary, contradictions: Contradictions) -> int:
    """Rows of the run's specs that contradict themselves or have tags in too few categories."""
    bad = 0
    for path in run.files("specs", suffix=".parquet"):
        for lists in aspect_lists(run, path):
            rows = encode_lists(lists, vocabulary)
            bad += int((contradictions.violations(rows) | (vocabulary.num_categories(rows) < 3)).sum())
    return bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("distilled", type=Path)
    parser.add_argument("taxonomy", type=Path)
    parser.add_argument("--parts", default="per_step,to_bound,sampling")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--specs", type=int, default=1_000_000)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    vocabulary = Vocabulary.from_json(arguments.taxonomy.read_bytes(), str(arguments.taxonomy))
    matrix = read_rows(arguments.distilled, vocabulary)
    held = torch.from_numpy(matrix[::5]).float()
    train = torch.from_numpy(matrix[np.arange(len(matrix)) % 5 != 0]).float()
    epochs = max(1, arguments.steps * PUBLISHED.batch_size // len(train))
    parts: dict[str, Callable[[], object]] = {
        "per_step": lambda: per_step(train, held, epochs),
        "to_bound": lambda: to_bound(train, held),
        "sampling": lambda: sampling(matrix, vocabulary, [arguments.specs // 4, arguments.specs]),
    }
    out = Path(__file__).parent / "results" / "vae.json"
    results = json.loads(out.read_text()) if out.exists() else {}
    for name in arguments.parts.split(","):
        results[name] = {"machine": describe_machine(), "measured": parts[name]()}
        print(name, json.dumps(results[name]["measured"], indent=1), flush=True)
        out.parent.mkdir(exist_ok=True)
        out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
