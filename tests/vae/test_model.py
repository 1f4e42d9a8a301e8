"""The beta-VAE's loss and its bound on the likelihood."""

import math

import numpy as np
import pytest
import torch

from conceptcaps.vae.model import BetaVAE, gaussian_kl, negative_log_bernoulli


@pytest.fixture
def rows() -> torch.Tensor:
    return (torch.rand(6, 9, generator=torch.Generator().manual_seed(1)) < 0.3).float()


def test_kl_agrees_with_torch():
    mean, log_variance = torch.randn(4, 3), torch.randn(4, 3)
    posterior = torch.distributions.Normal(mean, torch.exp(0.5 * log_variance))
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(gaussian_kl(mean, log_variance), expected)


def test_reconstruction_is_bernoulli_likelihood(rows):
    logits = torch.randn_like(rows)
    expected = -torch.distributions.Bernoulli(logits=logits).log_prob(rows).sum(-1)
    torch.testing.assert_close(negative_log_bernoulli(logits, rows), expected)


def test_iwae_bound_reaches_the_likelihood(rows):
    model = BetaVAE(9, 8, 1, 0.0, seed=3).eval()
    z = torch.linspace(-8, 8, 4001)
    logits = model.decode(z[None, :, None])[0]
    log_joint = (
        -negative_log_bernoulli(logits[:, None], rows[None]) - 0.5 * z[:, None] ** 2 - 0.5 * math.log(2 * math.pi)
    )
    exact = torch.logsumexp(log_joint, 0) + math.log(float(z[1] - z[0]))
    bound = model.iwae_bound(rows, 5000, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(bound[0], exact.detach(), atol=2e-2)


def test_iwae_bound_tightens_with_samples(rows):
    model = BetaVAE(9, 8, 4, 0.0, seed=3).eval()
    model.decoder_out.weight.data *= 10
    bounds = [
        float(model.iwae_bound(rows.repeat(50, 1), s, torch.Generator().manual_seed(0)).mean()) for s in (1, 20, 2000)
    ]
    assert bounds == sorted(bounds)


def test_members_are_independent_models(rows):
    one, three = BetaVAE(9, 8, 4, 0.0, seed=3), BetaVAE(9, 8, 4, 0.0, members=3, seed=3)
    epsilon = torch.randn(6, 4)
    for single, several in zip(one.loss(rows, epsilon), three.loss(rows, epsilon), strict=True):
        torch.testing.assert_close(single.expand_as(several), several)


def test_masks_drop_hidden_units(rows):
    model = BetaVAE(9, 8, 4, 0.5, seed=3)
    zeros, epsilon = torch.zeros(6, 8), torch.zeros(6, 4)
    dropped = model.loss(rows, epsilon, (zeros, zeros)).reconstruction
    torch.testing.assert_close(dropped, negative_log_bernoulli(model.decoder_out.bias, rows[None]))
    assert not torch.allclose(dropped, model.loss(rows, epsilon).reconstruction)


def test_masks_keep_the_mean():
    masks = BetaVAE(9, 8, 4, 0.25).draw_masks(20_000, torch.Generator().manual_seed(0))
    assert masks is not None
    for mask in masks:
        assert float(mask.mean()) == pytest.approx(1, abs=0.02)
        assert mask.unique().tolist() == pytest.approx([0, 4 / 3])
    assert BetaVAE(9, 8, 4, 0.0).draw_masks(5, torch.Generator()) is None
