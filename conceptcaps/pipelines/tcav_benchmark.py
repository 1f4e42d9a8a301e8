"""The ground truth of TCAV as a job: corpora rendered by Ray Data, one Ray task per network."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
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
    """
    began = time.perf_counter()
    made = {name: ray.put(make_corpus(num_clips, num_pairs, *CORPORA[name])) for name in corpora}
    rendered = time.perf_counter() - began
    cases = [
        Case(architecture, corpus, derive(7, corpus, architecture, repeat), repeat, num_train)
        for corpus in corpora
        for architecture in architectures
        for repeat in range(repeats)
    ]
    outcomes = ray.get([_run_case.remote(case, made[case.corpus], further) for case in cases])
    return {
        "settings": {
            "networks_per_architecture_and_corpus": repeats, "training_clips": num_train,
            "other_clips": num_clips - num_train, "pairs_per_attribute": num_pairs,
            "used_from_sd": USED_FROM, "ignored_to_sd": IGNORED_TO,
        },
        **summarise(outcomes),
        "cpu_seconds_networks": {k: sum(o["cpu_seconds"][k] for o in outcomes) for k in outcomes[0]["cpu_seconds"]},
        "seconds": {"rendering": rendered, "all": time.perf_counter() - began},
    }  # fmt: skip


@ray.remote(num_cpus=1)
def _run_case(case: Case, corpus: Corpus, further: Further | None) -> Outcome:
    """Everything about one network."""
    torch.set_num_threads(1)
    began = time.process_time()
    examined = examine(case, corpus)
    trained = time.process_time() - began
    outcome = question(case, examined)
    for part, values in (further(case, examined) if further else {}).items():
        outcome[part] |= values
    spent = {"training and reading": trained, "methods": time.process_time() - began - trained}
    return outcome | {"cpu_seconds": spent}


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
