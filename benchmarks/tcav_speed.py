"""Batched vectors and shared gradients against captum 0.9: 20 concepts x 40 splits x 10 classes on 256 units.

    python benchmarks/tcav_speed.py [--splits 40]

CPU seconds of this process on one thread, so that other load on the machine counts little; only ratios of one run
mean anything. captum is needed: `pip install --no-deps captum`.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe_machine
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from conceptcaps.tcav.cav import Problems, fit_cavs
from conceptcaps.tcav.layers import LayerReader
from conceptcaps.tcav.scores import directional_derivatives, magnitude_scores, sign_scores

RESULTS = Path(__file__).parent / "results" / "tcav_speed.json"
NUM_CONCEPTS, NUM_CLASSES, NUM_UNITS, SET_SIZE, CLASS_SIZE = 20, 10, 256, 50, 100
MELS, FRAMES = 32, 64


class Network(nn.Module):
    """A small 1-D convolutional classifier with a 256-unit layer under its head."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv1d(MELS, 48, 5, 2), nn.ReLU(), nn.Conv1d(48, 64, 5, 2), nn.ReLU(), nn.AdaptiveAvgPool1d(4)
        )
        self.bottleneck = nn.Sequential(nn.Linear(256, NUM_UNITS), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(NUM_UNITS, 64), nn.ReLU(), nn.Linear(64, NUM_CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.bottleneck(self.convolutions(x).flatten(1)))


class CachedHead(nn.Module):
    """The head alone, for runs from cached activations."""

    def __init__(self, head: nn.Module):
        super().__init__()
        self.bottleneck, self.head = nn.Identity(), head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.bottleneck(x))


def make_inputs(num_splits: int) -> tuple[Tensor, Tensor]:
    """Concept and random clips (num_sets * SET_SIZE, MELS, FRAMES), concepts first, and clips of each class."""
    source = torch.Generator().manual_seed(0)
    shape = (NUM_CONCEPTS + num_splits) * SET_SIZE
    x = torch.randn(shape, MELS, FRAMES, generator=source)
    tint = torch.randn(NUM_CONCEPTS, MELS, 1, generator=source).repeat_interleave(SET_SIZE, 0)
    x[: len(tint)] += 0.7 * tint
    return x, torch.randn(NUM_CLASSES, CLASS_SIZE, MELS, FRAMES, generator=source)


def make_problems(num_splits: int) -> Problems:
    """Every concept against every random set, a third held out."""
    rows = []
    for concept in range(NUM_CONCEPTS):
        for split in range(num_splits):
            rows.append(
                np.r_[
                    concept * SET_SIZE + np.arange(SET_SIZE),
                    (NUM_CONCEPTS + split) * SET_SIZE + np.arange(SET_SIZE),
                ]
            )
    clips = np.stack(rows)
    rng = np.random.default_rng(0)
    held_out = np.argsort(rng.random((*clips.shape[:1], 2, SET_SIZE)), axis=2).reshape(clips.shape) < SET_SIZE // 3
    return Problems(clips, np.broadcast_to(np.arange(2 * SET_SIZE) < SET_SIZE, clips.shape).copy(), held_out)


def run_captum(model: nn.Module, x: Tensor, of_class: Tensor, num_splits: int) -> tuple[dict[str, float], np.ndarray]:
    """CPU seconds of captum's CAVs and scores, and its sign counts (NUM_CLASSES, NUM_CONCEPTS * num_splits)."""
    from captum.attr import LayerGradientXActivation
    from captum.concept import TCAV, Concept

    loaders = [torch.utils.data.DataLoader(part, batch_size=SET_SIZE) for part in x.split(SET_SIZE)]
    concepts = [Concept(i, str(i), loader) for i, loader in enumerate(loaders)]
    sets = [[concepts[c], concepts[NUM_CONCEPTS + s]] for c in range(NUM_CONCEPTS) for s in range(num_splits)]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attribution = LayerGradientXActivation(model, None, multiply_by_inputs=False)
        tcav = TCAV(model, ["bottleneck"], layer_attr_method=attribution, save_path=folder)
        with timed() as cavs:
            tcav.compute_cavs(sets)
        with timed() as scores:
            found = [tcav.interpret(clips, sets, target=c) for c, clips in enumerate(of_class)]
    signs = [[r[f"{a.id}-{b.id}"]["bottleneck"]["sign_count"][0].item() for a, b in sets] for r in found]
    return {"cavs": cavs["seconds"], "scores": scores["seconds"]}, np.array(signs)


def run_ours(
    reader: LayerReader, x: Tensor, of_class: Tensor, problems: Problems, method: str
) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """CPU seconds of passes, CAVs and scores; the vectors; and sign scores (NUM_CLASSES, num_problems)."""
    with timed() as passes:
        activations = np.concatenate([reader.read(part).activations["bottleneck"] for part in x.split(250)])
        gradients = [reader.read(clips, [c]).gradients["bottleneck"][0] for c, clips in enumerate(of_class)]
    with timed() as cavs:
        vectors = fit_cavs(activations, problems, method=method).vectors  # type: ignore[arg-type]
    with timed() as scores:
        rounded = vectors.astype(gradients[0].dtype)
        derivatives = [directional_derivatives(g, rounded) for g in gradients]
        signs = np.stack([sign_scores(d) for d in derivatives])
        np.stack([magnitude_scores(d) for d in derivatives])
    seconds = {"passes": passes["seconds"], "cavs": cavs["seconds"], "scores": scores["seconds"]}
    return seconds, vectors, signs


def least_cosine(activations: np.ndarray, problems: Problems, vectors: np.ndarray, count: int = 40) -> float:
    """The least cosine of our vectors to scikit-learn's LogisticRegression on the same scaled features."""
    scale = activations.std(0)
    scale[scale == 0] = np.inf
    features = (activations - activations.mean(0)) / scale
    found = []
    for row in np.linspace(0, len(problems) - 1, count).astype(int):
        train = problems.train[row]
        fitted = LogisticRegression(tol=1e-8, max_iter=10_000).fit(
            features[problems.clips[row][train]], problems.labels[row][train]
        )
        raw = fitted.coef_.ravel() / scale
        found.append(vectors[row] @ raw / np.linalg.norm(raw))
    return float(min(found))


class FiveLayers(nn.Module):
    """Five dense layers of NUM_UNITS units, each readable, under a linear head."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [MELS, *[NUM_UNITS] * 5]
        self.dense = nn.Sequential(*(nn.Sequential(nn.Linear(a, b), nn.Tanh()) for a, b in itertools.pairwise(sizes)))
        self.head = nn.Linear(NUM_UNITS, NUM_CLASSES)
        self.backwards = 0
        self.head.register_full_backward_hook(self._count)

    def _count(self, *_: Any) -> None:
        self.backwards += 1

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dense(x.mean(-1)))


def large_job(num_concepts: int = 200, runs: int = 40, num_clips: int = 4000) -> dict[str, Any]:
    """CPU seconds for 200 concepts x 40 runs x 10 classes on five layers; one backward per class serves all layers."""
    network, layers = FiveLayers(), [f"dense.{i}" for i in range(5)]
    rng, source = np.random.default_rng(0), torch.Generator().manual_seed(0)
    x = torch.randn(num_clips, MELS, 8, generator=source)
    of_class = torch.randn(NUM_CLASSES, CLASS_SIZE, MELS, 8, generator=source)
    clips = np.stack([rng.permutation(num_clips)[: 2 * SET_SIZE] for _ in range(num_concepts * runs)])
    labels = np.broadcast_to(np.arange(2 * SET_SIZE) < SET_SIZE, clips.shape).copy()
    problems = Problems(clips, labels, np.zeros_like(labels))
    reader = LayerReader(network, layers)
    with timed() as passes:
        read = reader.read(x).activations
        gradients = [reader.read(own, [c]).gradients for c, own in enumerate(of_class)]
    found: dict[str, Any] = {"passes": passes["seconds"], "backward_passes_through_the_head": network.backwards}
    assert network.backwards == NUM_CLASSES
    for method in ("logistic", "ridge", "pattern"):
        with timed() as spent:
            for layer in layers:
                vectors = fit_cavs(read[layer], problems, method=method).vectors  # type: ignore[arg-type]
                for of_one in gradients:
                    sign_scores(directional_derivatives(of_one[layer][0], vectors))
        found[method] = spent["seconds"]
    return found


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    spent: dict[str, float] = {}
    began = time.process_time()
    yield spent
    spent["seconds"] = time.process_time() - began


def best_of(repeats: int, call: Callable[[], tuple]) -> tuple:
    """The result with the least total of its first element's values."""
    return min((call() for _ in range(repeats)), key=lambda r: sum(r[0].values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=40)
    arguments = parser.parse_args()
    if not importlib.util.find_spec("captum"):
        parser.exit(1, "captum is what is measured against: pip install --no-deps captum\n")
    torch.set_num_threads(1)
    threadpool_limits(1)  # numpy's BLAS has threads of its own
    torch.manual_seed(0)
    large = large_job()
    network = Network().eval()
    x, of_class = make_inputs(arguments.splits)
    problems = make_problems(arguments.splits)
    with torch.no_grad():
        cached = torch.cat([network.bottleneck(network.convolutions(p).flatten(1)) for p in x.split(250)])
        cached_class = torch.stack([network.bottleneck(network.convolutions(p).flatten(1)) for p in of_class])
    head = CachedHead(network.head).eval()
    captum_cached, _ = run_captum(head, cached, cached_class, arguments.splits)
    captum_whole, captum_signs = run_captum(network, x, of_class, arguments.splits)
    found: dict[str, Any] = {"captum from cached activations": captum_cached, "captum end to end": captum_whole}
    ratios: dict[str, float] = {}
    for method in ("logistic", "ridge", "pattern"):
        from_cache, *_ = best_of(
            3, lambda m=method: run_ours(LayerReader(head, ["bottleneck"]), cached, cached_class, problems, m)
        )
        whole, vectors, signs = best_of(
            3, lambda m=method: run_ours(LayerReader(network, ["bottleneck"]), x, of_class, problems, m)
        )
        found[f"{method} from cached activations"], found[f"{method} end to end"] = from_cache, whole
        ratios[f"{method}: CAVs from cached activations"] = captum_cached["cavs"] / from_cache["cavs"]
        ratios[f"{method}: CAVs and scores from cached activations"] = sum(captum_cached.values()) / sum(
            from_cache.values()
        )
        ratios[f"{method}: end to end"] = sum(captum_whole.values()) / sum(whole.values())
        if method == "logistic":
            cosine = least_cosine(cached.numpy(), problems, vectors)
            agreement = float(np.corrcoef(signs.ravel(), captum_signs.ravel())[0, 1])
    result = {
        "machine": describe_machine() | {"threads": 1, "torch": torch.__version__, "captum": version("captum")},
        "setting": {
            "concepts": NUM_CONCEPTS, "splits": arguments.splits, "classes": NUM_CLASSES, "units": NUM_UNITS,
            "clips_per_set": SET_SIZE, "clips_per_class": CLASS_SIZE,
        },
        "times_faster_than_captum": ratios,
        "cpu_seconds": found,
        "least_cosine_to_scikit_learn": cosine,
        "correlation_with_captums_sign_counts": agreement,
        "cpu_seconds_200_concepts_40_runs_5_layers": large,
    }  # fmt: skip
    print(json.dumps(result, indent=2))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
