"""Held-out likelihood of a fitted model, as it is and as it is sampled."""

from __future__ import annotations

import copy

import numpy as np
import torch

from conceptcaps.seeding import derive, generator
from conceptcaps.vae.calibration import Calibration
from conceptcaps.vae.mixture import TagMixture
from conceptcaps.vae.model import BetaVAE
from conceptcaps.vae.sampling import Proposer, Rules

_DRAWS = 65_536
_BATCH = 256


def log_likelihood(model: BetaVAE | TagMixture, matrix: np.ndarray, num_samples: int, seed: int) -> np.ndarray:
    """float64 (num_rows,): log p(x) in nats; exact for a mixture, the IWAE lower bound for a one-member beta-VAE.

    Args:
        model: in evaluation mode.
        matrix: uint8 (num_rows, num_tags).
        num_samples: of the bound.
        seed: of its draws.
    """
    rows = torch.from_numpy(np.ascontiguousarray(matrix)).float()
    if isinstance(model, TagMixture):
        return model.log_likelihood(rows).double().numpy()
    draws = torch.Generator().manual_seed(derive(seed, "iwae"))
    return torch.cat([model.iwae_bound(part, num_samples, draws)[0] for part in rows.split(_BATCH)]).double().numpy()


def tilted_model(model: BetaVAE | TagMixture, tilt: np.ndarray) -> BetaVAE | TagMixture:
    """A copy with `tilt` (num_tags,) added to its logits: still a normalised density."""
    other = copy.deepcopy(model)
    bias = other.bias if isinstance(other, TagMixture) else other.decoder_out.bias
    bias.data += torch.from_numpy(tilt).float()
    return other


def sampler_log_likelihood(
    model: BetaVAE | TagMixture,
    proposer: Proposer,
    calibration: Calibration,
    rules: Rules,
    matrix: np.ndarray,
    num_samples: int,
    seed: int,
) -> np.ndarray:
    """float64 (num_rows,): log density of the calibrated sampler itself, -inf for rows that its rules exclude.

    The share of draws that the rules admit, and with it the constant of the density, is estimated from draws (its
    standard error is below 0.005 nats).

    Args:
        model: the fitted density.
        proposer: the model as a source of draws, not yet tilted.
        calibration: of the sampler.
        rules: of the sampler, without given tags.
        matrix: uint8 (num_rows, num_tags).
        num_samples: of the IWAE bound.
        seed: of every draw.
    """
    given = np.array([], dtype=np.int64)
    draws, _ = proposer.tilted(calibration.tilt).propose(generator(seed, "constant"), _DRAWS, given)
    ratios = np.exp(calibration.size_log_ratio[draws.sum(1)])
    constant = float((ratios * rules.admits(draws)).mean())
    base = log_likelihood(tilted_model(model, calibration.tilt), matrix, num_samples, seed)
    found: np.ndarray = base + calibration.size_log_ratio[matrix.sum(1)] - np.log(constant)
    return np.where(rules.admits(matrix), found, -np.inf)
