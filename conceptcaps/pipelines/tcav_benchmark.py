"""The ground truth of TCAV as a job: corpora rendered by Ray Data, one Ray task per network."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch

from conceptcaps.pipelines.tcav_corpus import make_corpus
from conceptcaps.seeding import derive
from conceptcaps.tcav.ground_truth import (
    IGNORED_TO,
    USED_FROM,
    Case,
    Corpus,
    Examined,
    Outcome,
    examine,
    question,
    summarise,
)
from conceptcaps.tcav.networks import ARCHITECTURES

CORPORA = {"phi = 0": (0.0, 1), "phi = 0.5": (0.5, 2)}
"""name -> correlation of paired attributes, and the seed."""
QUICK: dict[str, Any] = {"repeats": 1, "num_train": 600, "num_clips": 1200, "num_pairs": 48}
"""Arguments of `run_benchmark` for a first look."""
Further = Callable[[Case, Examined], Mapping[str, Mapping[str, Any]]]
"""More methods for the same network: parts of an `Outcome` (flags, placebo, randomised) to add to ours."""


def run_benchmark(
    *,
    repeats: int = 2,
    num_train: int = 900,
    num_clips: int = 2100,
    num_pairs: int = 110,
    corpora: Sequence[str] = tuple(CORPORA),
    architectures: Sequence[str] = tuple(ARCHITECTURES),
    further: Further | None = None,
    keep: Path | None = None,
) -> dict[str, Any]:
    """Train `repeats` networks of each architecture on each corpus, and compare what methods say with the truth.

    Args:
        repeats: networks per architecture and corpus.
        num_train: clips that a network learns from.
        num_clips: all clips of a corpus; those not learnt from are for the methods.
        num_pairs: clips that are rendered again with each attribute flipped.
        corpora: keys of `CORPORA`.
        architectures: keys of `networks.ARCHITECTURES`.
        further: other methods than ours.
        keep: folder for corpora and outcomes; a run that was stopped goes on from there. Clear it when code changes.
    """
    made, rendering = {}, 0.0
    for name in corpora:
        rendered = partial(_render, name, num_clips, num_pairs)
        corpus, seconds = _kept(keep, f"{name} {num_clips} {num_pairs}", rendered)
        made[name], rendering = ray.put(corpus), rendering + seconds
    cases = [
        Case(architecture, corpus, derive(7, corpus, architecture, repeat), repeat, num_train)
        for corpus in corpora
        for architecture in architectures
        for repeat in range(repeats)
    ]
    outcomes = ray.get([_run_case.remote(case, made[case.corpus], further, keep) for case in cases])
    return {
        "settings": {
            "networks_per_architecture_and_corpus": repeats, "training_clips": num_train,
            "other_clips": num_clips - num_train, "pairs_per_attribute": num_pairs,
            "used_from_sd": USED_FROM, "ignored_to_sd": IGNORED_TO,
        },
        **summarise(outcomes),
        "seconds": {
            "rendering, all cores": rendering,
            **{f"{k}, one core": sum(o["seconds"][k] for o in outcomes) for k in outcomes[0]["seconds"]},
        },
    }  # fmt: skip


def _render(name: str, num_clips: int, num_pairs: int) -> tuple[Corpus, float]:
    began = time.perf_counter()
    return make_corpus(num_clips, num_pairs, *CORPORA[name]), time.perf_counter() - began


@ray.remote(num_cpus=1)
def _run_case(case: Case, corpus: Corpus, further: Further | None, keep: Path | None) -> Outcome:
    """Everything about one network."""
    name = f"{case.corpus} {case.architecture} {case.repeat} {case.num_train} {len(corpus.mel)} {corpus.num_pairs}"
    return _kept(keep, name, lambda: _ask(case, corpus, further))


def _ask(case: Case, corpus: Corpus, further: Further | None) -> Outcome:
    torch.set_num_threads(1)
    began = time.perf_counter()
    examined = examine(case, corpus)
    trained = time.perf_counter()
    outcome = question(case, examined)
    for part, values in (further(case, examined) if further else {}).items():
        outcome[part] |= values
    return outcome | {"seconds": {"training and reading": trained - began, "methods": time.perf_counter() - trained}}


def _kept(keep: Path | None, name: str, make: Callable[[], Any]) -> Any:
    """What `make` gives, or gave when the folder was last used."""
    if keep is None:
        return make()
    file = keep / f"{name}.pkl"
    if not file.exists():
        keep.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".part")
        unfinished.write_bytes(pickle.dumps(make()))
        unfinished.rename(file)
    return pickle.loads(file.read_bytes())


def table_of(found: Mapping[str, Any]) -> tuple[Sequence[str], list[list[str]]]:
    """Header and lines: per method, recall of used and share of ignored flagged, on each corpus."""
    corpora = list(found["detection"])
    methods = dict.fromkeys(m for c in corpora for m in found["detection"][c])
    header = ["method", *(f"{what}, {c}" for c in corpora for what in ("found", "wrongly flagged"))]
    return header, [
        [
            method,
            *(
                _percent(found["detection"][c].get(method, {}).get(key))
                for c in corpora
                for key in ("recall_of_used", "ignored_flagged")
            ),
        ]
        for method in methods
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
