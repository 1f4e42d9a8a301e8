"""Whether drawn tokens follow the probabilities that they should."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import chisquare


def p_value(drawn: torch.Tensor, probabilities: torch.Tensor) -> float:
    """Of Pearson's chi-square test; tokens expected less than five times are pooled.

    Args:
        drawn: int64 (num_draws,).
        probabilities: (vocabulary,); no token of probability 0 may have been drawn.
    """
    counts = np.bincount(drawn.numpy(), minlength=len(probabilities))
    expected = probabilities.double().numpy() * len(drawn)
    assert counts[expected == 0].sum() == 0
    likely = expected >= 5
    observed = np.append(counts[likely], counts[~likely].sum())
    wanted = np.append(expected[likely], expected[~likely].sum())
    keep = wanted > 0
    return float(chisquare(observed[keep], wanted[keep] * observed.sum() / wanted.sum()).pvalue)
