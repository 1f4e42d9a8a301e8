"""What joint pattern effects are compared with: the published recipe, the customary test, disjoint sets, captum."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from scipy import stats
from sklearn.preprocessing import RobustScaler, normalize
from sklearn.svm import SVC
from torch import nn

from conceptcaps.tcav.cav import fit_cavs
from conceptcaps.tcav.concepts import ConceptSet, disjoint, resplits
from conceptcaps.tcav.scores import directional_derivatives, sign_scores
from conceptcaps.tcav.significance import welch_p


def published_scores(
    activations: np.ndarray, of_class: Sequence[np.ndarray], tags: np.ndarray, rng: np.random.Generator, runs: int = 10
) -> np.ndarray:
    """float64 (num_classes, num_tags): the score of ConceptCaps as published.

    A linear SVM on 50 clips with the tag and 150 drawn at random (some have it as well), in robustly scaled and
    normalised space; runs of test accuracy up to 0.6 are dropped; the mean vector is then compared with *unscaled*
    normalised activations of the class, and the score is the share of cosines above 0.1. The classifier's head is
    never read. NaN where no run is left.
    """
    scores = np.full((len(of_class), tags.shape[1]), np.nan)
    for j in range(tags.shape[1]):
        positives = rng.permutation(np.flatnonzero(tags[:, j]))[:50]
        negatives = rng.permutation(len(tags))[:150]
        x, y = activations[np.r_[positives, negatives]], np.r_[np.ones(len(positives)), np.zeros(len(negatives))]
        vectors = [v for run in range(runs) if (v := _published_vector(x, y, np.random.default_rng(run))) is not None]
        if not vectors:
            continue
        mean = np.mean(vectors, 0)
        mean /= np.linalg.norm(mean) + 1e-8
        scores[:, j] = [(normalize(activations[clips]) @ mean > 0.1).mean() for clips in of_class]
    return scores


def _published_vector(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    test = np.zeros(len(y), bool)
    for side in (0, 1):
        clips = rng.permutation(np.flatnonzero(y == side))
        test[clips[: round(0.2 * len(clips))]] = True
    scaler = RobustScaler().fit(x[~test])
    svm = SVC(kernel="linear", C=0.1, class_weight="balanced").fit(normalize(scaler.transform(x[~test])), y[~test])
    if svm.score(normalize(scaler.transform(x[test])), y[test]) <= 0.6:
        return None
    return svm.coef_[0] / (np.linalg.norm(svm.coef_[0]) + 1e-8)


def customary_p(
    activations: np.ndarray,
    gradients: Sequence[np.ndarray],
    sets: Sequence[ConceptSet],
    runs: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """float64 (num_classes, num_sets): t-test of `runs` re-splits of one concept set against random vectors."""
    cavs = fit_cavs(activations, resplits(sets, runs, 0.33, rng))
    size = len(sets[0].positives)
    drawn = rng.permutation(len(activations))
    random_set = ConceptSet("random", drawn[:size], drawn[size : 2 * size])
    noise = fit_cavs(activations, resplits([random_set], runs, 0.33, rng))
    return _tests(gradients, cavs.vectors, noise.vectors, len(sets), runs)


def disjoint_p(
    activations: np.ndarray,
    gradients: Sequence[np.ndarray],
    sets: Sequence[ConceptSet],
    num_sets: int,
    set_size: int,
    rng: np.random.Generator,
) -> np.ndarray | None:
    """float64 (num_classes, num_sets): the same test on sets that share no clip; None with too few clips."""
    problems = disjoint(sets, num_sets, set_size, len(activations), rng)
    if problems is None:
        return None
    vectors, noise = (fit_cavs(activations, p).vectors for p in problems)
    return _tests(gradients, vectors, noise, len(sets), num_sets)


def _tests(
    gradients: Sequence[np.ndarray], vectors: np.ndarray, noise: np.ndarray, num_sets: int, runs: int
) -> np.ndarray:
    rows = []
    for of_class in gradients:
        scores = sign_scores(directional_derivatives(of_class, vectors)).reshape(num_sets, runs)
        rows.append(welch_p(scores.T, sign_scores(directional_derivatives(of_class, noise))[:, None]))
    return np.stack(rows)


def captum_p(
    head: nn.Module,
    activations: np.ndarray,
    of_class: Sequence[np.ndarray],
    sets: Sequence[ConceptSet],
    runs: int,
) -> np.ndarray:
    """float64 (num_classes, num_sets): captum's TCAV with its own classifier on the cached features, `runs` random
    re-splits per concept and random set, and the usual t-test on its sign counts."""
    from captum.attr import LayerGradientXActivation
    from captum.concept import TCAV

    model = nn.Sequential()
    model.add_module("features", nn.Identity())
    model.add_module("head", head)
    concepts = _captum_concepts(activations, sets, runs)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attribution = LayerGradientXActivation(model, None, multiply_by_inputs=False)
        tcav = TCAV(model, ["features"], layer_attr_method=attribution, save_path=folder)
        rows = []
        for c, clips in enumerate(of_class):
            found = tcav.interpret(torch.from_numpy(activations[clips]), concepts, target=c)
            signs = [found[f"{a.id}-{b.id}"]["features"]["sign_count"][0].item() for a, b in concepts]
            table = np.array(signs).reshape(len(sets) + 1, runs)
            rows.append(stats.ttest_ind(table[:-1].T, table[-1][:, None], equal_var=False).pvalue)
    return np.nan_to_num(np.stack(rows), nan=1.0)


def _captum_concepts(activations: np.ndarray, sets: Sequence[ConceptSet], runs: int) -> list[list]:
    from captum.concept import Concept

    def concept(number: int, clips: np.ndarray) -> Concept:
        rows = torch.from_numpy(activations[clips])
        return Concept(number, str(number), torch.utils.data.DataLoader(rows, batch_size=64))

    drawn = np.random.default_rng(0).permutation(len(activations))
    size = len(sets[0].positives)
    sides = [(s.positives, s.negatives) for s in sets] + [(drawn[:size], drawn[size : 2 * size])]
    numbers = iter(range(2 * runs * len(sides)))
    return [[concept(next(numbers), a), concept(next(numbers), b)] for a, b in sides for _ in range(runs)]
