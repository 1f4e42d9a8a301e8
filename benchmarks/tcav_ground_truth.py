"""Ground truth of TCAV: our methods beside the published recipe, the customary test, disjoint sets and captum.

    python benchmarks/tcav_ground_truth.py [--quick] [--keep FOLDER]

Corpora, networks, truth and our own methods are the package's (`conceptcaps tcav-benchmark` runs those alone); this
script adds the others to the same networks. captum: `pip install --no-deps captum`; without it its row is missing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe_machine
from tcav_baselines import captum_p, customary_p, disjoint_p, published_scores

from conceptcaps.config.ray import RayConfig
from conceptcaps.pipelines.tcav_benchmark import QUICK, run_benchmark, table_of
from conceptcaps.runtime import connect
from conceptcaps.seeding import derive, generator
from conceptcaps.tcav.concepts import ConceptSet, matched_sets
from conceptcaps.tcav.effects import rank_agreement, verdicts
from conceptcaps.tcav.ground_truth import ATTRIBUTES, Case, Examined, placebo_tags, significant
from conceptcaps.tcav.layers import randomised

RESULTS = Path(__file__).parent / "results" / "tcav_ground_truth.json"
SET_SIZE = 100


def baselines(case: Case, examined: Examined) -> Mapping[str, Mapping[str, Any]]:
    """What the other methods say of a network."""
    randomised_too = {"published recipe": _published_after_randomisation(case, examined)} if not case.repeat else {}
    return {
        "flags": _flags(case, examined),
        "placebo": _placebo(case, examined),
        "randomised": randomised_too,
    }


def _flags(case: Case, examined: Examined) -> dict[str, np.ndarray]:
    """method -> bool (num_classes, num_attributes), whether it calls the attribute used."""
    rng = generator(case.seed, "baselines")
    activations, tags = examined.activations, examined.tags
    single = [verdicts(examined.joint(tags[:, [j]]))[0][:, 0] == "used" for j in range(len(ATTRIBUTES))]
    sets = _one_set_each(tags, ATTRIBUTES, rng)
    customary = customary_p(activations, _own_gradients(examined), sets, 40, rng)
    published = published_scores(activations, examined.of_class, tags, rng)
    flags = {
        "single-tag pattern": np.stack(single, axis=1),
        "customary test, 40 runs of one set": significant(customary),
        "published recipe, score >= 0.5": np.nan_to_num(published) >= 0.5,
    }
    disjoint = disjoint_p(
        activations, _own_gradients(examined), list(matched_sets(tags, ATTRIBUTES, rng).values()), 20, 20, rng
    )
    if disjoint is not None:
        flags["sign score, 20 disjoint sets"] = significant(disjoint)
    if case.repeat == 0 and importlib.util.find_spec("captum"):
        p = captum_p(examined.head, activations, examined.of_class, sets, 10)
        flags["captum, 10 runs, t-test"] = significant(p)
    return flags


def _one_set_each(tags: np.ndarray, names: Any, rng: np.random.Generator) -> list[ConceptSet]:
    """The customary concept sets: clips with a tag and clips drawn from those without, SET_SIZE of each."""
    drawn = matched_sets(tags, names, rng, matched=False).values()
    return [ConceptSet(s.name, s.positives[:SET_SIZE], s.negatives[:SET_SIZE]) for s in drawn]


def _own_gradients(examined: Examined) -> list[np.ndarray]:
    return [examined.gradients[c][clips] for c, clips in enumerate(examined.of_class)]


def _placebo(case: Case, examined: Examined) -> dict[str, np.ndarray]:
    rng = generator(case.seed, "placebo baselines")
    coins = placebo_tags(case, len(examined.tags), 0)
    names = [f"placebo {i}" for i in range(coins.shape[1])]
    found = {}
    for runs in (10, 40, 100):
        p = customary_p(examined.activations, _own_gradients(examined), _one_set_each(coins, names, rng), runs, rng)
        found[f"customary test, {runs} runs, p < 0.05"] = p < 0.05
    whole = list(matched_sets(coins, names, rng, matched=False).values())
    p = disjoint_p(examined.activations, _own_gradients(examined), whole, 20, 20, rng)
    if p is not None:
        found["20 disjoint sets, p < 0.05"] = p < 0.05
        found["20 disjoint sets, after BH"] = significant(p)
    return found


def _published_after_randomisation(case: Case, examined: Examined) -> float:
    def scores() -> np.ndarray:
        rng = generator(case.seed, "randomised")
        return published_scores(examined.activations, examined.of_class, examined.tags, rng)

    before = scores()
    with randomised(examined.head, derive(case.seed, "head")):
        return rank_agreement(before, scores())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one network per architecture and corpus, fewer clips")
    parser.add_argument("--keep", type=Path, help="folder to go on from where a run was stopped")
    arguments = parser.parse_args()
    connect(RayConfig(num_cpus=2, object_store_mb=600), quiet=True)
    found = run_benchmark(
        **QUICK if arguments.quick else {}, further=baselines, keep=arguments.keep and arguments.keep.absolute()
    )
    captum = _captum_version()
    found = {"machine": describe_machine() | {"torch": torch.__version__, "captum": captum}, **found}
    print(json.dumps(found, indent=2))
    for line in (table := table_of(found))[1]:
        print(dict(zip(table[0], line, strict=True)))
    if not arguments.quick:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(found, indent=2) + "\n")


def _captum_version() -> str:
    if not importlib.util.find_spec("captum"):
        return "not installed"
    from importlib.metadata import version

    return version("captum")


if __name__ == "__main__":
    main()
