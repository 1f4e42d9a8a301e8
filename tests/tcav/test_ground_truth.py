"""The ground truth's own parts, on a network that is known because it is a matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from conceptcaps.tcav import ground_truth
from conceptcaps.tcav.ground_truth import ATTRIBUTES, JOINT, NUM_CLASSES, PAIRS, Case, Examined

CASE = Case("matrix", "phi = 0.5", seed=5, repeat=0, num_train=0)
USED = (0, 3, 5)
"""Attributes that raise logit 0, 1 and 2."""


@pytest.fixture(scope="module")
def examined() -> Examined:
    """A linear head over one unit per attribute and noise: three attributes move a logit, nine move none."""
    rng = np.random.default_rng(0)
    tags = ground_truth.draw_attributes(1_500, 0.5, rng)
    weight = np.zeros((NUM_CLASSES, len(ATTRIBUTES)), np.float32)
    weight[np.arange(NUM_CLASSES), USED] = 1
    activations = (tags + 0.3 * rng.normal(size=tags.shape)).astype(np.float32)
    head = nn.Linear(len(ATTRIBUTES), NUM_CLASSES, bias=False)
    head.weight.data = torch.from_numpy(weight)
    logits = activations @ weight.T
    pairs = np.broadcast_to((weight / logits.std(0)[:, None]).T[:, None], (len(ATTRIBUTES), 40, NUM_CLASSES))
    gradients = np.broadcast_to(weight[:, None], (NUM_CLASSES, len(tags), len(ATTRIBUTES)))
    return Examined(activations, gradients, logits, tags, pairs, 1.0, head)


def test_methods_find_what_the_head_reads_and_no_placebo(examined: Examined) -> None:
    outcome = ground_truth.question(CASE, examined)
    truly = examined.truth > 0.2
    assert truly.sum() == 3
    for method in (JOINT, PAIRS):
        np.testing.assert_array_equal(outcome["flags"][method], truly, err_msg=method)
    placebo = outcome["placebo"]
    assert 0.02 < placebo[f"{JOINT}, p < 0.05 of a zero null"].mean() < 0.09
    assert not placebo[f"{JOINT}, verdict"].any()


def test_summary_counts_cells_against_the_truth(examined: Examined) -> None:
    outcome = ground_truth.question(CASE, examined)
    blind = outcome | {"flags": {**outcome["flags"], "always": np.ones_like(examined.truth, bool)}}
    found = ground_truth.summarise([outcome, blind])
    rates = found["detection"]["phi = 0.5"]
    assert rates[JOINT]["recall_of_used"] == 1
    assert rates[JOINT]["ignored_flagged"] == 0
    assert (rates[JOINT]["used_cells"], rates[JOINT]["ignored_cells"]) == (6, 66)
    assert rates["always"]["networks"] == 1
    assert rates["always"]["ignored_flagged"] == 1
    agreement = found["agreement_with_interventions"]["phi = 0.5"][JOINT]
    assert agreement["pearson"] > 0.99
    assert agreement["slope"] == pytest.approx(1, abs=0.1)
    assert found["placebo_flagged"][f"{JOINT}, verdict"]["tags_times_classes"] == 2 * 120 * NUM_CLASSES


def test_attributes_are_fair_coins_that_come_in_pairs() -> None:
    drawn = ground_truth.draw_attributes(20_000, 0.5, np.random.default_rng(1))
    phi = np.corrcoef(drawn.T)
    np.testing.assert_allclose(drawn.mean(0), 0.5, atol=0.02)
    np.testing.assert_allclose(np.diag(phi, 1)[::2], 0.5, atol=0.03)
    np.testing.assert_allclose(np.diag(phi, 1)[1::2], 0, atol=0.03)


def test_labels_depend_on_one_attribute_of_each_pair() -> None:
    rng = np.random.default_rng(2)
    tags = ground_truth.draw_attributes(20_000, 0.0, rng)
    labels = ground_truth.labels_of(tags, rng)
    assert np.bincount(labels).min() > 2_000
    share = np.array([[(labels[side] == c).mean() for c in range(NUM_CLASSES)] for t in tags.T for side in (t, ~t)])
    moved = np.abs(share[::2] - share[1::2]).max(1) > 0.05
    np.testing.assert_array_equal(moved.reshape(-1, 2).sum(1), 1)
