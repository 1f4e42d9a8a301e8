"""Beta-VAE on multi-hot tag vectors (Kingma and Welling 2014; Higgins et al. 2017), several betas side by side.

Shapes: M members, B rows, S importance samples, V tags, H hidden units, L latent dimensions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Masks = tuple[Tensor, Tensor]
"""Dropout of the encoder's and the decoder's hidden units: (B, H) multipliers each, 0 or 1 / (1 - dropout)."""


class Loss(NamedTuple):
    """Per member and row, float (M, B), nats."""

    reconstruction: Tensor
    kl: Tensor


class MemberLinear(nn.Module):
    """One affine map per member: (M, B, in) -> (M, B, out), initialised as `nn.Linear`."""

    def __init__(self, members: int, num_in: int, num_out: int, generator: torch.Generator):
        super().__init__()
        bound = 1 / math.sqrt(num_in)
        # Every member starts from the same weights, so that a sweep compares betas and not starting points.
        weight = torch.empty(1, num_in, num_out).uniform_(-bound, bound, generator=generator)
        bias = torch.empty(1, 1, num_out).uniform_(-bound, bound, generator=generator)
        self.weight = nn.Parameter(weight.repeat(members, 1, 1))
        self.bias = nn.Parameter(bias.repeat(members, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class BetaVAE(nn.Module):
    """Bernoulli likelihood, diagonal Gaussian posterior, one hidden layer on either side.

    Args:
        num_tags: V.
        hidden_dim: H.
        latent_dim: L.
        dropout: probability that a hidden unit is dropped in training.
        members: M models with their own weights, evaluated in one batched product.
        seed: of the initial weights.
    """

    def __init__(
        self, num_tags: int, hidden_dim: int, latent_dim: int, dropout: float, members: int = 1, seed: int = 0
    ):
        super().__init__()
        self.num_tags, self.hidden_dim, self.latent_dim = num_tags, hidden_dim, latent_dim
        self.dropout, self.members = dropout, members
        generator = torch.Generator().manual_seed(seed)
        self.encoder_hidden = MemberLinear(members, num_tags, hidden_dim, generator)
        self.encoder_out = MemberLinear(members, hidden_dim, 2 * latent_dim, generator)
        self.decoder_hidden = MemberLinear(members, latent_dim, hidden_dim, generator)
        self.decoder_out = MemberLinear(members, hidden_dim, num_tags, generator)

    def encode(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(M, B, V) tags -> mean and log variance of the posterior, (M, B, L) each."""
        hidden = torch.relu(self.encoder_hidden(x))
        hidden = hidden if mask is None else hidden * mask
        mean, log_variance = self.encoder_out(hidden).chunk(2, dim=-1)
        return mean, log_variance

    def decode(self, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """(M, B, L) latents -> (M, B, V) logits."""
        hidden = torch.relu(self.decoder_hidden(z))
        return self.decoder_out(hidden if mask is None else hidden * mask)

    def draw_masks(self, num_rows: int, generator: torch.Generator) -> Masks | None:
        """Dropout of `num_rows` rows, its probability rounded to a multiple of 2^-16; None where the model has none."""
        dropped = round(self.dropout * 2**16)
        if not dropped:
            return None
        shape = 2, num_rows, self.hidden_dim
        # Four draws from each 64-bit word: single uniform floats would take a tenth of a fit.
        words = torch.empty(-(-math.prod(shape) // 4), dtype=torch.int64).random_(-(2**63), None, generator=generator)
        draws = words.view(torch.int16)[: math.prod(shape)].view(shape)
        masks = torch.ge(draws, dropped - 2**15, out=torch.empty(shape)).mul_(1 / (1 - dropped / 2**16))
        return masks[0], masks[1]

    def loss(self, x: Tensor, epsilon: Tensor, masks: Masks | None = None) -> Loss:
        """The two terms of the negative ELBO.

        Args:
            x: (B, V) in {0, 1}.
            epsilon: (B, L) standard normal.
            masks: dropout; None in evaluation.
        """
        x = x.expand(self.members, *x.shape)
        encoder_mask, decoder_mask = masks or (None, None)
        mean, log_variance = self.encode(x, encoder_mask)
        logits = self.decode(mean + torch.exp(0.5 * log_variance) * epsilon, decoder_mask)
        return Loss(negative_log_bernoulli(logits, x), gaussian_kl(mean, log_variance))

    @torch.no_grad()
    def iwae_bound(self, x: Tensor, num_samples: int, generator: torch.Generator, chunk: int = 100) -> Tensor:
        """Importance weighted bound on log p(x) (Burda et al. 2016, eq. 8): (M, B), nats, higher is better.

        Args:
            x: (B, V) in {0, 1}.
            num_samples: S; the bound tightens as it grows.
            generator: of the S standard normal draws.
            chunk: samples held in memory at once.
        """
        x = x.expand(self.members, *x.shape)
        mean, log_variance = self.encode(x)
        deviation = torch.exp(0.5 * log_variance)
        log_weights = []
        for begin in range(0, num_samples, chunk):
            size = min(chunk, num_samples - begin)
            epsilon = torch.randn(size, *mean.shape[1:], generator=generator)[:, None]  # (S, 1, B, L)
            z = mean + deviation * epsilon
            logits = self.decode(z.transpose(0, 1).flatten(1, 2)).unflatten(1, (size, -1))  # (M, S, B, V)
            log_ratio = 0.5 * (epsilon.square() - z.square() + log_variance).sum(-1).transpose(0, 1)
            log_weights.append(log_ratio - negative_log_bernoulli(logits, x[:, None]))
        return torch.logsumexp(torch.cat(log_weights, 1), 1) - math.log(num_samples)


def negative_log_bernoulli(logits: Tensor, x: Tensor) -> Tensor:
    """-log p(x | logits) summed over the last axis."""
    return F.softplus(logits).sum(-1) - (logits * x).sum(-1)


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, 1)) summed over the last axis."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
