"""Does TCAV find what a classifier really uses? Known attributes, networks trained on them, and interventions as truth.

    python benchmarks/tcav_ground_truth.py [--quick]

Corpora of short rendered clips with 12 attributes; in one they are independent, in the other they come in pairs with
phi = 0.5. Each network learns classes that depend on one attribute of each pair. The truth for a network is the mean
change of a class logit when one attribute is flipped and the clip rendered again with the same seed, in standard
deviations of the logit: used from 0.2, ignored up to 0.1, in between not judged. Placebo tags are coins.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from tcav_baselines import captum_p, customary_p, disjoint_p, published_scores
from tcav_corpus import ATTRIBUTES, Corpus, make_corpus
from tcav_networks import ARCHITECTURES, batches, logits_of, train

from conceptcaps.seeding import derive, generator
from conceptcaps.tcav.concepts import matched_sets
from conceptcaps.tcav.effects import Effects, joint_effects, logit_effects, rank_agreement, verdicts
from conceptcaps.tcav.layers import LayerReader, randomised
from conceptcaps.tcav.significance import benjamini_hochberg, minimum_effect_p

RESULTS = Path(__file__).parent / "results" / "tcav_ground_truth.json"
NUM_CLASSES, NUM_TRAIN, NUM_CLIPS, NUM_PAIRS = 3, 1000, 2200, 60
USED_FROM, IGNORED_TO = 0.2, 0.1
PLACEBO_GROUPS, PLACEBO_SIZE = 12, 10


@dataclass(frozen=True)
class Case:
    """One network to train and to question."""

    architecture: str
    corpus: str
    seed: int
    with_captum: bool


@dataclass
class Reading:
    """What is known of a network: activations and logits on clips it was not trained on, and the truth."""

    activations: np.ndarray
    gradients: np.ndarray  # (num_classes, num_clips, dim)
    logits: np.ndarray
    tags: np.ndarray
    truth: np.ndarray  # (num_classes, num_attributes)
    pair_effects: np.ndarray  # (num_attributes, num_pairs, num_classes)
    accuracy: float
    head: torch.nn.Module

    @property
    def of_class(self) -> list[np.ndarray]:
        predicted = self.logits.argmax(1)
        return [np.flatnonzero(predicted == c) for c in range(NUM_CLASSES)]


def labels_of(attributes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """int64 (num_clips,): the class of highest score; scores are sums over one attribute of each pair, plus noise."""
    chosen = 2 * np.arange(len(ATTRIBUTES) // 2) + rng.integers(2, size=len(ATTRIBUTES) // 2)
    weights = np.zeros((NUM_CLASSES, len(ATTRIBUTES)))
    for place, attribute in enumerate(rng.permutation(chosen)):
        weights[place % NUM_CLASSES, attribute] = rng.choice([-1.5, 1.5])
    scores = attributes @ weights.T + 0.3 * rng.gumbel(size=(len(attributes), NUM_CLASSES))
    return (scores - scores.mean(0)).argmax(1)


def read_network(case: Case, corpus: Corpus) -> Reading:
    """Train a network and read it."""
    labels = labels_of(corpus.attributes, generator(case.seed, "labels"))
    model = train(case.architecture, corpus.mel[:NUM_TRAIN], labels[:NUM_TRAIN], NUM_CLASSES, case.seed)
    reader = LayerReader(model, ["features"])
    parts = [reader.read(torch.from_numpy(p).float(), range(NUM_CLASSES)) for p in batches(corpus.mel[NUM_TRAIN:])]
    logits = np.concatenate([p.logits for p in parts])
    sign = np.where(corpus.attributes[-NUM_PAIRS:].T, 1, -1)[..., None]  # present minus absent
    flipped = np.stack([logits_of(model, corpus.flipped[j]) for j in range(len(ATTRIBUTES))])
    pair_effects = sign * (logits[-NUM_PAIRS:] - flipped) / logits.std(0)
    return Reading(
        np.concatenate([p.activations["features"] for p in parts]),
        np.concatenate([p.gradients["features"] for p in parts], axis=1),
        logits,
        corpus.attributes[NUM_TRAIN:],
        pair_effects.mean(1).T,
        pair_effects,
        float((logits.argmax(1) == labels[NUM_TRAIN:]).mean()),
        model.head,
    )


def joint(reading: Reading, tags: np.ndarray) -> Effects:
    return joint_effects(reading.activations, reading.gradients.mean(1), tags, reading.logits.std(0))


def flags_of(reading: Reading, case: Case) -> tuple[dict[str, np.ndarray], dict[str, Effects]]:
    """method -> bool (num_classes, num_attributes), whether it calls the attribute used; and the estimates."""
    rng = generator(case.seed, "methods")
    noisy = reading.tags ^ (rng.random(reading.tags.shape) < 0.1 * 2)
    effects = {
        "joint pattern effect": joint(reading, reading.tags),
        "joint pattern effect, 20% of tags flipped": joint(reading, noisy),
        "logit regression": logit_effects(reading.logits, reading.tags),
    }
    flags = {name: verdicts(e)[0] == "used" for name, e in effects.items()}
    flags["single-tag pattern"] = np.stack(
        [verdicts(joint(reading, reading.tags[:, [j]]))[0][:, 0] == "used" for j in range(len(ATTRIBUTES))],
        axis=1,
    )
    flags["24 counterfactual pairs"] = _by_pairs(reading.pair_effects[:, :24])
    sets = list(matched_sets(reading.tags, ATTRIBUTES, rng, matched=False).values())
    sets = [type(s)(s.name, s.positives[:100], s.negatives[:100]) for s in sets]
    gradients = [reading.gradients[c][clips] for c, clips in enumerate(reading.of_class)]
    flags["customary test, 40 runs of one set"] = _significant(
        customary_p(reading.activations, gradients, sets, 40, rng)
    )
    whole = list(matched_sets(reading.tags, ATTRIBUTES, rng).values())
    p = disjoint_p(reading.activations, gradients, whole, 20, 20, rng)
    if p is not None:
        flags["sign score, 20 disjoint sets"] = _significant(p)
    flags["published recipe, score >= 0.5"] = (
        np.nan_to_num(published_scores(reading.activations, reading.of_class, reading.tags, rng)) >= 0.5
    )
    if case.with_captum:
        flags["captum 0.9, 10 runs, t-test"] = _significant(
            captum_p(reading.head, reading.activations, reading.of_class, sets, 10)
        )
    return flags, effects


def _significant(p: np.ndarray) -> np.ndarray:
    return benjamini_hochberg(p) <= 0.05


def _by_pairs(pairs: np.ndarray) -> np.ndarray:
    mean, error = pairs.mean(1).T, pairs.std(1, ddof=1).T / np.sqrt(pairs.shape[1])
    return _significant(minimum_effect_p(mean, np.maximum(error, 1e-12), pairs.shape[1] - 1, IGNORED_TO))


def placebo_flags(reading: Reading, case: Case) -> dict[str, np.ndarray]:
    """Share-ready flags of placebo tags: method -> bool, any shape."""
    rng = generator(case.seed, "placebo")
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    gradients = [reading.gradients[c][clips] for c, clips in enumerate(reading.of_class)]
    for group in range(PLACEBO_GROUPS):
        coins = rng.random((len(reading.tags), PLACEBO_SIZE)) < 0.5
        effects = joint(reading, np.concatenate([reading.tags, coins], axis=1))
        here = slice(len(ATTRIBUTES), None)
        found["joint pattern effect, p < 0.05 of a zero null"].append(effects.p_zero()[:, here] < 0.05)
        found["joint pattern effect, verdict after BH"].append(verdicts(effects)[0][:, here] == "used")
        if group:
            continue
        names = [f"placebo {i}" for i in range(PLACEBO_SIZE)]
        sets = list(matched_sets(coins, names, rng, matched=False).values())
        short = [type(s)(s.name, s.positives[:100], s.negatives[:100]) for s in sets]
        for runs in (10, 40, 100):
            p = customary_p(reading.activations, gradients, short, runs, rng)
            found[f"customary test, {runs} runs, p < 0.05"].append(p < 0.05)
        p = disjoint_p(reading.activations, gradients, sets, 20, 20, rng)
        if p is not None:
            found["20 disjoint sets, p < 0.05"].append(p < 0.05)
            found["20 disjoint sets, after BH"].append(_significant(p))
    return {name: np.concatenate([f.ravel() for f in flags]) for name, flags in found.items()}


def head_randomisation(reading: Reading, case: Case) -> dict[str, float]:
    """Rank agreement of scores before and after the head is drawn anew; a score that explains the head loses it."""
    rng = generator(case.seed, "randomised")
    before = joint(reading, reading.tags).estimate
    x = torch.from_numpy(reading.activations)
    published = published_scores(reading.activations, reading.of_class, reading.tags, rng)
    with randomised(reading.head, derive(case.seed, "head")):
        new = LayerReader(torch.nn.Sequential(torch.nn.Identity(), reading.head), ["0"]).read(x, range(NUM_CLASSES))
    after = joint_effects(reading.activations, new.gradients["0"].mean(1), reading.tags, new.logits.std(0)).estimate
    rng = generator(case.seed, "randomised")
    again = published_scores(reading.activations, reading.of_class, reading.tags, rng)
    return {"joint pattern effect": rank_agreement(before, after), "published recipe": rank_agreement(published, again)}


def run_case(case: Case) -> dict[str, Any]:
    """Everything about one network."""
    torch.set_num_threads(1)
    began = time.process_time()
    reading = read_network(case, _CORPORA[case.corpus])
    trained = time.process_time() - began
    flags, effects = flags_of(reading, case)
    return {
        "case": case,
        "accuracy": reading.accuracy,
        "truth": reading.truth,
        "truth_24": reading.pair_effects[:, 24:].mean(1).T,
        "flags": flags,
        "estimates": {name: e.estimate for name, e in effects.items()},
        "placebo": placebo_flags(reading, case),
        "randomised": head_randomisation(reading, case),
        "cpu_seconds": {"training and reading": trained, "methods": time.process_time() - began - trained},
    }


_CORPORA: dict[str, Corpus] = {}


def _share_corpora(corpora: dict[str, Corpus]) -> None:
    _CORPORA.update(corpora)


def tabulate(outcomes: list[dict[str, Any]]) -> dict[str, Any]:
    """The tables of the report, per corpus and method."""
    table: dict[str, Any] = {}
    for corpus in sorted({o["case"].corpus for o in outcomes}):
        own = [o for o in outcomes if o["case"].corpus == corpus]
        methods = {m for o in own for m in o["flags"]}
        table[corpus] = {m: _rates([o for o in own if m in o["flags"]], m) for m in sorted(methods)}
    return table


def _rates(outcomes: list[dict[str, Any]], method: str) -> dict[str, Any]:
    key = "truth_24" if method.startswith("24") else "truth"
    truth = np.abs(np.concatenate([o[key].ravel() for o in outcomes]))
    flags = np.concatenate([o["flags"][method].ravel() for o in outcomes])
    used, ignored = truth >= USED_FROM, truth <= IGNORED_TO
    return {
        "networks": len(outcomes),
        "recall_of_used": float(flags[used].mean()),
        "ignored_flagged": float(flags[ignored].mean()),
        "used_cells": int(used.sum()),
        "ignored_cells": int(ignored.sum()),
        "unjudged_cells": int((~used & ~ignored).sum()),
    }


def agreement(outcomes: list[dict[str, Any]], name: str) -> dict[str, float]:
    """Pearson and slope of estimates against interventions."""
    truth = np.concatenate([o["truth"].ravel() for o in outcomes])
    estimate = np.concatenate([o["estimates"][name].ravel() for o in outcomes])
    return {
        "pearson": float(stats.pearsonr(estimate, truth).statistic),
        "slope": float(stats.linregress(truth, estimate).slope),
    }


def report(outcomes: list[dict[str, Any]], seconds: dict[str, float]) -> dict[str, Any]:
    names = list(outcomes[0]["estimates"])
    corpora = sorted({o["case"].corpus for o in outcomes})
    placebo = {n for o in outcomes for n in o["placebo"]}
    joined = {n: np.concatenate([o["placebo"][n] for o in outcomes if n in o["placebo"]]) for n in sorted(placebo)}
    return {
        "machine": {"cpu": platform.processor() or platform.machine(), "python": platform.python_version()},
        "packages": {"torch": torch.__version__, "numpy": np.__version__},
        "networks": [
            {"architecture": o["case"].architecture, "corpus": o["case"].corpus, "held_out_accuracy": o["accuracy"]}
            for o in outcomes
        ],
        "detection": tabulate(outcomes),
        "agreement_with_interventions": {
            c: {n: agreement([o for o in outcomes if o["case"].corpus == c], n) for n in names} for c in corpora
        },
        "agreement_by_architecture": {
            a: agreement([o for o in outcomes if o["case"].architecture == a], names[0]) for a in ARCHITECTURES
        },
        "placebo_flagged": {
            n: {"share": float(f.mean()), "tags_times_classes": int(f.size)} for n, f in joined.items()
        },
        "rank_agreement_after_head_randomisation": {
            n: float(np.nanmean([o["randomised"][n] for o in outcomes])) for n in outcomes[0]["randomised"]
        },
        "cpu_seconds_networks": {
            k: float(sum(o["cpu_seconds"][k] for o in outcomes)) for k in outcomes[0]["cpu_seconds"]
        },
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three networks on one corpus, no captum")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    began = time.perf_counter()
    settings = {"phi = 0": (0.0, 1), "phi = 0.5": (0.5, 2)}
    if arguments.quick:
        settings.pop("phi = 0")
    corpora = {
        name: make_corpus(NUM_CLIPS, NUM_PAIRS, phi, seed, arguments.workers) for name, (phi, seed) in settings.items()
    }
    rendered = time.perf_counter() - began
    repeats = 1 if arguments.quick else 2
    cases = [
        Case(architecture, corpus, derive(7, corpus, architecture, repeat), with_captum=not (arguments.quick or repeat))
        for corpus in corpora
        for architecture in ARCHITECTURES
        for repeat in range(repeats)
    ]
    with multiprocessing.get_context("fork").Pool(arguments.workers, _share_corpora, (corpora,)) as pool:
        outcomes = pool.map(run_case, cases, chunksize=1)
    found = report(outcomes, {"rendering": rendered, "all": time.perf_counter() - began})
    print(json.dumps(found, indent=2))
    if not arguments.quick:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
