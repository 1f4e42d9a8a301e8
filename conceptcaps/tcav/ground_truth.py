"""Does TCAV find what a classifier really uses? Known attributes, networks trained on them, and interventions as truth.

Corpora of short clips with 12 attributes; in one they are independent, in another they come in pairs with phi = 0.5.
Each network learns classes that depend on one attribute of each pair. The truth for a network is the mean change of a
class logit when one attribute is flipped and the clip rendered again with the same seed, in standard deviations of the
logit: used from `USED_FROM`, ignored up to `IGNORED_TO`, in between not judged. Placebo tags are coins.

A method under test is a function of an `Examined` network; other methods than ours are compared in benchmarks/.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import nn

from conceptcaps.seeding import derive, generator
from conceptcaps.tcav.effects import NEGLIGIBLE_SD, Effects, joint_effects, logit_effects, rank_agreement, verdicts
from conceptcaps.tcav.layers import LayerReader, randomised
from conceptcaps.tcav.networks import batches, logits_of, train
from conceptcaps.tcav.significance import benjamini_hochberg, minimum_effect_p

ATTRIBUTES = (
    "fast", "percussion", "bass", "voice", "strings", "bells",
    "bright", "loud", "minor", "reverb", "distorted guitar", "arpeggio",
)  # fmt: skip
NUM_CLASSES = 3
USED_FROM, IGNORED_TO = 0.2, NEGLIGIBLE_SD
"""Logit standard deviations. Both were fixed in advance, on networks of one architecture that are not among these."""
PLACEBO_GROUPS, PLACEBO_SIZE = 12, 10
NOISE = 0.2
"""Share of tags that are flipped for the row on tag noise."""
JOINT, NOISY, REGRESSION, PAIRS = (
    "joint pattern effect",
    f"joint pattern effect, {NOISE:.0%} of tags flipped",
    "logit regression",
    "24 counterfactual pairs",
)
_FEW_PAIRS = 24

Flags = dict[str, np.ndarray]
"""method -> bool array: which cells it calls used."""
Outcome = dict[str, Any]


@dataclass(frozen=True)
class Corpus:
    """Log-mel spectrograms and the attributes they were rendered with.

    Args:
        mel: float16 (num_clips, num_mels, frames).
        attributes: bool (num_clips, len(ATTRIBUTES)).
        flipped: float16 (len(ATTRIBUTES), num_pairs, num_mels, frames), the last `num_pairs` clips with one attribute
            turned over and the same seed.
    """

    mel: np.ndarray
    attributes: np.ndarray
    flipped: np.ndarray

    @property
    def num_pairs(self) -> int:
        return self.flipped.shape[1]


@dataclass(frozen=True)
class Case:
    """One network to train and to question.

    Args:
        architecture: a key of `networks.ARCHITECTURES`.
        corpus: the name of its corpus.
        seed: of its task, its weights and the methods' draws.
        repeat: counts the networks of one architecture and corpus from 0.
        num_train: clips to learn from; the rest is for the methods.
    """

    architecture: str
    corpus: str
    seed: int
    repeat: int
    num_train: int


@dataclass(frozen=True)
class Examined:
    """What is known of a network: activations and logits on clips it was not trained on, and the truth.

    Args:
        activations: float32 (num_clips, dim), of the layer under the head.
        gradients: float32 (num_classes, num_clips, dim).
        logits: float32 (num_clips, num_classes).
        tags: bool (num_clips, len(ATTRIBUTES)).
        pair_effects: float (len(ATTRIBUTES), num_pairs, num_classes), logits with the attribute less those without.
        accuracy: on these clips.
        head: what turns activations into logits.
    """

    activations: np.ndarray
    gradients: np.ndarray
    logits: np.ndarray
    tags: np.ndarray
    pair_effects: np.ndarray
    accuracy: float
    head: nn.Module

    @property
    def truth(self) -> np.ndarray:
        """float (num_classes, len(ATTRIBUTES)): the mean effect of flipping each attribute."""
        return self.pair_effects.mean(1).T

    @property
    def few_pairs(self) -> int:
        """How many pairs the test on pairs has; its truth is taken from the others."""
        return min(_FEW_PAIRS, self.pair_effects.shape[1] // 2)

    @property
    def of_class(self) -> list[np.ndarray]:
        """Per class, the clips that the network gives to it."""
        predicted = self.logits.argmax(1)
        return [np.flatnonzero(predicted == c) for c in range(NUM_CLASSES)]

    def joint(self, tags: np.ndarray) -> Effects:
        """The method under test, with these tags."""
        return joint_effects(self.activations, self.gradients.mean(1), tags, self.logits.std(0))


def draw_attributes(num_clips: int, phi: float, rng: np.random.Generator) -> np.ndarray:
    """bool (num_clips, len(ATTRIBUTES)): fair coins; each second column has correlation phi to the one before."""
    coins = rng.random((num_clips, len(ATTRIBUTES))) < 0.5
    copied = rng.random((num_clips, len(ATTRIBUTES) // 2)) < phi
    coins[:, 1::2] = np.where(copied, coins[:, ::2], coins[:, 1::2])
    return coins


def labels_of(attributes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """int64 (num_clips,): the class of highest score; scores are sums over one attribute of each pair, plus noise."""
    chosen = 2 * np.arange(len(ATTRIBUTES) // 2) + rng.integers(2, size=len(ATTRIBUTES) // 2)
    weights = np.zeros((NUM_CLASSES, len(ATTRIBUTES)))
    for place, attribute in enumerate(rng.permutation(chosen)):
        weights[place % NUM_CLASSES, attribute] = rng.choice([-1.5, 1.5])
    scores = attributes @ weights.T + 0.3 * rng.gumbel(size=(len(attributes), NUM_CLASSES))
    return (scores - scores.mean(0)).argmax(1)


def examine(case: Case, corpus: Corpus) -> Examined:
    """Train a network and read it."""
    labels = labels_of(corpus.attributes, generator(case.seed, "labels"))
    fresh = slice(case.num_train, None)
    model = train(case.architecture, corpus.mel[: case.num_train], labels[: case.num_train], NUM_CLASSES, case.seed)
    reader = LayerReader(model, ["features"])
    parts = [reader.read(torch.from_numpy(p).float(), range(NUM_CLASSES)) for p in batches(corpus.mel[fresh])]
    logits = np.concatenate([p.logits for p in parts])
    paired = slice(-corpus.num_pairs, None)
    sign = np.where(corpus.attributes[paired].T, 1, -1)[..., None]  # present minus absent
    flipped = np.stack([logits_of(model, mel) for mel in corpus.flipped])
    return Examined(
        np.concatenate([p.activations["features"] for p in parts]),
        np.concatenate([p.gradients["features"] for p in parts], axis=1),
        logits,
        corpus.attributes[fresh],
        sign * (logits[paired] - flipped) / logits.std(0),
        float((logits.argmax(1) == labels[fresh]).mean()),
        model.get_submodule("head"),
    )


def question(case: Case, examined: Examined) -> Outcome:
    """What our methods say of a network, beside the truth."""
    noisy = examined.tags ^ (generator(case.seed, "noise").random(examined.tags.shape) < NOISE)
    effects = {
        JOINT: examined.joint(examined.tags),
        NOISY: examined.joint(noisy),
        REGRESSION: logit_effects(examined.logits, examined.tags),
    }
    flags = {name: verdicts(e)[0] == "used" for name, e in effects.items()}
    return {
        "case": case,
        "accuracy": examined.accuracy,
        "truth": examined.truth,
        "truth_of_other_pairs": examined.pair_effects[:, examined.few_pairs :].mean(1).T,
        "flags": flags | {PAIRS: _by_pairs(examined.pair_effects[:, : examined.few_pairs])},
        "estimates": {name: e.estimate for name, e in effects.items()},
        "placebo": _placebo(case, examined),
        "randomised": {JOINT: _after_head_randomisation(case, examined)},
    }


def significant(p: np.ndarray, rate: float = 0.05) -> np.ndarray:
    """bool in the shape of `p`: what Benjamini and Hochberg's procedure lets through."""
    return benjamini_hochberg(p) <= rate


def _by_pairs(pairs: np.ndarray) -> np.ndarray:
    mean, error = pairs.mean(1).T, pairs.std(1, ddof=1).T / np.sqrt(pairs.shape[1])
    return significant(minimum_effect_p(mean, np.maximum(error, 1e-12), pairs.shape[1] - 1, IGNORED_TO))


def placebo_tags(case: Case, num_clips: int, group: int) -> np.ndarray:
    """bool (num_clips, PLACEBO_SIZE): coins."""
    return generator(case.seed, "placebo", group).random((num_clips, PLACEBO_SIZE)) < 0.5


def _placebo(case: Case, examined: Examined) -> Flags:
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    for group in range(PLACEBO_GROUPS):
        coins = placebo_tags(case, len(examined.tags), group)
        effects = examined.joint(np.concatenate([examined.tags, coins], axis=1))
        here = slice(len(ATTRIBUTES), None)
        p_zero = effects.p_zero()
        found[f"{JOINT}, p < 0.05 of a zero null"].append(p_zero[:, here] < 0.05)
        found[f"{JOINT}, zero null after BH"].append(significant(p_zero)[:, here])
        found[f"{JOINT}, verdict"].append(verdicts(effects)[0][:, here] == "used")
    return {name: np.concatenate([f.ravel() for f in flags]) for name, flags in found.items()}


def _after_head_randomisation(case: Case, examined: Examined) -> float:
    """Rank agreement of effects before and after the head is drawn anew."""
    x = torch.from_numpy(examined.activations)
    with randomised(examined.head, derive(case.seed, "head")):
        new = LayerReader(nn.Sequential(nn.Identity(), examined.head), ["0"]).read(x, range(NUM_CLASSES))
    after = joint_effects(examined.activations, new.gradients["0"].mean(1), examined.tags, new.logits.std(0)).estimate
    return rank_agreement(examined.joint(examined.tags).estimate, after)


def summarise(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The tables of a report, from the outcomes of all networks."""
    corpora = sorted({o["case"].corpus for o in outcomes})
    per_corpus = {c: [o for o in outcomes if o["case"].corpus == c] for c in corpora}
    names = list(outcomes[0]["estimates"])
    architectures = sorted({o["case"].architecture for o in outcomes})
    return {
        "networks": [
            {"architecture": o["case"].architecture, "corpus": o["case"].corpus, "held_out_accuracy": o["accuracy"]}
            for o in outcomes
        ],
        "detection": {c: _detection(own) for c, own in per_corpus.items()},
        "agreement_with_interventions": {c: {n: _agreement(o, n) for n in names} for c, o in per_corpus.items()},
        "agreement_by_architecture": {
            a: _agreement([o for o in outcomes if o["case"].architecture == a], JOINT) for a in architectures
        },
        "placebo_flagged": {
            n: {"share": float(f.mean()), "tags_times_classes": int(f.size)}
            for n, f in _joined(outcomes, "placebo").items()
        },
        "rank_agreement_after_head_randomisation": {
            n: float(np.nanmean(values)) for n, values in _joined(outcomes, "randomised").items()
        },
    }


def _joined(outcomes: Sequence[Outcome], part: str) -> dict[str, np.ndarray]:
    """name -> the values of all networks that have it."""
    names = dict.fromkeys(n for o in outcomes for n in o[part])
    return {n: np.concatenate([np.ravel(o[part][n]) for o in outcomes if n in o[part]]) for n in names}


def _detection(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    methods = dict.fromkeys(m for o in outcomes for m in o["flags"])
    return {m: _rates([o for o in outcomes if m in o["flags"]], m) for m in methods}


def _rates(outcomes: Sequence[Outcome], method: str) -> dict[str, Any]:
    key = "truth_of_other_pairs" if method == PAIRS else "truth"
    truth = np.abs(np.concatenate([o[key].ravel() for o in outcomes]))
    flags = np.concatenate([o["flags"][method].ravel() for o in outcomes])
    used, ignored = truth >= USED_FROM, truth <= IGNORED_TO
    return {
        "networks": len(outcomes),
        "recall_of_used": _share(flags[used]),
        "ignored_flagged": _share(flags[ignored]),
        "used_cells": int(used.sum()),
        "ignored_cells": int(ignored.sum()),
        "unjudged_cells": int((~used & ~ignored).sum()),
    }


def _share(flags: np.ndarray) -> float | None:
    return float(flags.mean()) if flags.size else None


def _agreement(outcomes: Sequence[Outcome], name: str) -> dict[str, float]:
    """Pearson of estimates with interventions, and the slope of estimates over them."""
    truth = np.concatenate([o["truth"].ravel() for o in outcomes])
    estimate = np.concatenate([o["estimates"][name].ravel() for o in outcomes])
    return {
        "pearson": float(stats.pearsonr(estimate, truth).statistic),
        "slope": float(stats.linregress(truth, estimate).slope),
    }
