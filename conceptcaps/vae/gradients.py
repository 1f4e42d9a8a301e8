"""The gradient of the beta-VAE's loss, derived by hand: what autograd finds, without its graph and its copies.

Notation as in `model`: M members, B rows, V tags, H hidden units, L latent dimensions. With masks m and noise e,

    h = relu(x W1 + b1) m          z = mean + exp(log_variance / 2) e      loss = sum(reconstruction + beta KL) / size
    (mean, log_variance) = h W2 + b2       g = relu(z W3 + b3) m'          logits = g W4 + b4

and, writing d_y for the gradient of the loss in y,

    d_logits = (sigmoid(logits) - x) / size
    d_mean = d_z + beta mean / size        d_log_variance = (d_z e exp(log_variance / 2) + beta (variance - 1) / size) / 2

An affine map y = a W + b has d_W = a' d_y, d_b = the sum of d_y over rows, and d_a = d_y W'.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from conceptcaps.vae.batches import Batch
from conceptcaps.vae.model import BetaVAE, MemberLinear


def flatten(model: BetaVAE) -> tuple[Tensor, Tensor]:
    """Lay the model's parameters into one vector and zero gradients of them into another; returns both.

    One vector makes one call of an optimiser's step, and of a sum over workers.
    """
    parameters = list(model.parameters())
    sizes = [p.numel() for p in parameters]
    flat = torch.cat([p.detach().flatten() for p in parameters])
    gradient = torch.zeros_like(flat)
    for p, value, d_value in zip(parameters, flat.split(sizes), gradient.split(sizes), strict=True):
        p.data, p.grad = value.view_as(p), d_value.view_as(p)
    return flat, gradient


class Gradients:
    """Writes a model's gradients, batch after batch.

    Args:
        model: M members, laid flat.
        betas: (M,) weights of the KL term.
    """

    def __init__(self, model: BetaVAE, betas: Tensor):
        self.betas = betas[:, None, None]
        names = ("encoder_hidden", "encoder_out", "decoder_hidden", "decoder_out")
        # Attributes of modules are looked up by name in several dictionaries: here once, and not at every step.
        self.layers = [_Layer.of(getattr(model, name)) for name in names]

    @torch.no_grad()
    def write(self, batch: Batch) -> Tensor:
        """Overwrite the gradients with those of this worker's rows of a batch.

        Returns:
            (2, M): the sums of reconstruction and KL terms over these rows, nats; see `BetaVAE.loss`.
        """
        bottom, encoder_out, decoder_hidden, top = self.layers
        x, epsilon, size = batch.x, batch.epsilon, batch.size
        encoder_mask, decoder_mask = batch.masks or (None, None)

        encoded = _relu(batch.tags.sums(bottom.weight).add_(bottom.bias), encoder_mask)
        posterior = encoder_out(encoded)
        mean, log_variance = posterior.chunk(2, -1)
        deviation = torch.exp(0.5 * log_variance)
        z = torch.addcmul(mean, deviation, epsilon)
        decoded = _relu(decoder_hidden(z), decoder_mask)
        logits = top(decoded)

        excess = deviation.square().sub_(1)
        kl = torch.addcmul(excess, mean, mean).sub_(log_variance).sum((1, 2)).mul_(0.5)
        reconstruction = F.softplus(logits).sub_(logits * x).sum((1, 2))

        d_logits = logits.sigmoid_().sub_(x).div_(size)
        d_decoded = _through_relu(top.through(decoded, d_logits), decoded, decoder_mask)
        d_z = decoder_hidden.through(z, d_decoded)
        # In place of the posterior: its gradient is the way through z, and beta times that of the KL term.
        mean.mul_(self.betas / size).add_(d_z)
        torch.addcmul(d_z.mul_(epsilon).mul_(deviation), excess, self.betas / size, out=log_variance).mul_(0.5)
        d_encoded = _through_relu(encoder_out.through(encoded, posterior), encoded, encoder_mask)
        bottom.d_weight.copy_(batch.holders.sums(d_encoded))
        torch.sum(d_encoded, 1, keepdim=True, out=bottom.d_bias)
        return torch.stack([reconstruction, kl])


class _Layer(NamedTuple):
    """A `MemberLinear` and its gradients."""

    weight: Tensor
    transposed: Tensor
    bias: Tensor
    d_weight: Tensor
    d_bias: Tensor

    @classmethod
    def of(cls, layer: MemberLinear) -> _Layer:
        weight, bias = layer.weight, layer.bias
        assert weight.grad is not None
        assert bias.grad is not None
        return cls(weight.detach(), weight.detach().transpose(1, 2), bias.detach(), weight.grad, bias.grad)

    def __call__(self, a: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, a, self.weight)

    def through(self, a: Tensor, d_y: Tensor) -> Tensor:
        """Write the gradients, from the layer's input and the gradient of its output; returns that of its input."""
        torch.bmm(a.transpose(1, 2), d_y, out=self.d_weight)
        torch.sum(d_y, 1, keepdim=True, out=self.d_bias)
        return torch.bmm(d_y, self.transposed)


def _relu(x: Tensor, mask: Tensor | None) -> Tensor:
    """relu(x) times the mask, in place."""
    return x.relu_() if mask is None else x.relu_().mul_(mask)


def _through_relu(d_hidden: Tensor, hidden: Tensor, mask: Tensor | None) -> Tensor:
    """The gradient before `_relu` from that after it and its result; overwrites both."""
    d_hidden.mul_(hidden.sign_())
    return d_hidden if mask is None else d_hidden.mul_(mask)
