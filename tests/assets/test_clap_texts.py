"""Statements about clips, and the loss that teaches them."""

from __future__ import annotations

import math

import numpy as np
import torch

from conceptcaps.assets.clap_corpus import attributes
from conceptcaps.assets.clap_data import flat
from conceptcaps.assets.clap_sets import composed_sets
from conceptcaps.assets.clap_texts import make_statements, truth_loss
from conceptcaps.audio.arrangement import arrange


def test_statements_are_true_of_the_clips_that_have_what_they_ask():
    sets = composed_sets(200, 5)
    heard = [attributes(flat(tags), i) for i, tags in enumerate(sets)]
    said = make_statements(sets, heard, attributes)
    at = {tag: i for i, (_, tag) in enumerate(said.tags)}
    clips = [arrange(flat(tags), i) for i, tags in enumerate(sets)]
    percussion = np.array([clip.percussion for clip in clips])
    np.testing.assert_array_equal(said.true[:, at["percussion"]], percussion)
    np.testing.assert_array_equal(said.true[:, at["no percussion"]], ~percussion)
    np.testing.assert_array_equal(said.true[:, at["male singer"]], [clip.voice == "male" for clip in clips])
    np.testing.assert_array_equal(said.true[:, at["fast tempo"]], [clip.bpm > 129 for clip in clips])
    assert said.say([at["percussion"]], np.random.default_rng(0))[0].count("percussion") == 1


def test_truth_loss_spreads_over_all_that_is_true():
    true = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    best = truth_loss(torch.where(true > 0, 50.0, -50.0), true)
    assert math.isclose(float(best), math.log(2) / 4, rel_tol=1e-4)  # two statements share the first clip
    assert float(truth_loss(torch.zeros(2, 3), true)) > float(best)
    untrue = torch.cat([true, torch.zeros(2, 1)], dim=1)
    assert torch.isfinite(truth_loss(torch.zeros(2, 4), untrue))
